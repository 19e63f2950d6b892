"""What the recurrent network is trained on: a window of iterations, each told what every position is to say by then."""

import torch
import torch.nn.functional as F

from pool import WINDOW
from tasks import NOTHING

HINGE = 0.08


def as_tensors(batch, device):
    targets = torch.as_tensor(batch.targets, device=device)
    ids, settled = (torch.as_tensor(array, device=device) for array in (batch.ids, batch.settled()))
    return ids, targets, torch.as_tensor(batch.weights(), dtype=torch.float32, device=device), settled


def objective(model, ongoing, still_weight, dtype, device):
    """Takes a batch through its next window, and leaves its new latent and depth in it.

    Returns the loss, and {cross entropy, latent change once settled, weighted share of targets met} without gradient.
    """
    ids, targets, weights, settled = as_tensors(ongoing.batch, device)
    context = model.prepare(ids.shape[1], dtype, device)
    embedding = model.embed(ids, context)
    latents = [first_latent(model, ongoing, embedding, context) if ongoing.latent is None else ongoing.latent]
    for _ in range(WINDOW):
        latents.append(model.iterate(latents[-1], embedding, context))
    steps = ongoing.depth + torch.arange(WINDOW, device=device)
    at = steps.clamp(max=len(targets) - 1)
    wanted, weight = targets[at].flatten(), weights[at].flatten()
    logits = model.read(torch.cat(latents[1:]), context).flatten(0, 1)
    entropies = F.cross_entropy(logits, wanted, ignore_index=NOTHING, reduction="none")
    entropy = (entropies * weight).sum() / weight.sum()
    still, hinge = movement(torch.stack(latents[1:]), steps, settled, targets[-1] != NOTHING)
    met = ((logits.argmax(-1) == wanted) * weight).sum() / weight.sum()
    loss = entropy + still_weight * still + hinge
    ongoing.latent, ongoing.depth = latents[-1].detach(), ongoing.depth + WINDOW
    return loss, torch.stack([entropy, still, met]).detach()


@torch.no_grad()
def first_latent(model, ongoing, embedding, context):
    """The latent at which the first window of a batch begins."""
    latent = model.initial_latent(embedding, ongoing.scale)
    for _ in range(ongoing.depth):
        latent = model.iterate(latent, embedding, context)
    return latent


def movement(latents, steps, settled, asked):
    """The mean relative change between iterations once settled, and how far it falls short of HINGE before.

    The first makes answers fixed points, so that `latent-diff` fires; the second keeps it from firing earlier.
    """
    change = (latents[1:] - latents[:-1]).square().sum(-1) / latents[1:].square().sum(-1).detach()
    change = (change + 1e-6).sqrt()
    before = steps[:-1, None, None]
    done = ((before >= settled + 1) & asked).float()
    waiting = ((before < settled) & asked).float()
    mean = lambda values, mask: (values * mask).sum() / mask.sum().clamp(min=1)
    return mean(change, done), mean(F.relu(HINGE - change), waiting)
