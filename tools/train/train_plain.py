"""Trains the baseline: the same network run through once, so a plain transformer, which writes its steps."""

import numpy as np
import torch
import torch.nn.functional as F

import written_steps
from curriculum import LARGEST, Curriculum
from run import LOG_EVERY, Run, arguments, start
from tasks import NOTHING, TASKS, draw

ROWS = {"chain": 24, "arithmetic": 16, "addition": 24}
FIRST = {"chain": LARGEST["chain"]}  # short ways alone are guessed, and following them is never learned
WEIGHTS = {"chain": 4, "arithmetic": 1, "addition": 1}  # at equal weight the others drown what chains begin with


def objective(model, task, batch, dtype, device):
    """Loss of the written tokens, and {it, share of tokens right} without gradient."""
    ids, following = (torch.as_tensor(array, device=device) for array in written_steps.rows(task, batch))
    context = model.prepare(ids.shape[1], dtype, device)
    embedding = model.embed(ids, context)
    latent = model.iterate(model.initial_latent(embedding, 0), embedding, context)
    logits, wanted = model.read(latent, context).flatten(0, 1), following.flatten()
    loss = F.cross_entropy(logits, wanted, ignore_index=NOTHING)
    met = (logits.argmax(-1) == wanted)[wanted != NOTHING].float().mean()
    return loss, torch.stack([loss, met]).detach()


def work(rank, options):
    state = {}
    run = Run(options, rank, state)
    curriculum = Curriculum(state, FIRST)
    seed = options.seed + 1000 * run.step
    shared, own = np.random.default_rng(seed), np.random.default_rng([seed, 1 + rank])
    log = []
    while run.progress < 1:
        facts = []
        for task in TASKS:
            batch = draw(task, ROWS[task], curriculum.size(task, shared), shared, own)
            loss, fact = objective(run.model, task, batch, run.products, run.device)
            (WEIGHTS[task] * loss).backward()
            facts.append(fact)
        log.append(run.update(torch.cat(facts)))
        for task, met in zip(TASKS, log[-1][1::2]):
            curriculum.update(task, met)
        if run.step % LOG_EVERY == 0:
            names = [f"{task} {fact}" for task in TASKS for fact in ("entropy", "met")]
            means = {name: round(float(mean), 4) for name, mean in zip(names, np.mean(log, 0))}
            run.report(means | {"level": dict(curriculum.level)})
            log = []


if __name__ == "__main__":
    start(arguments(__doc__), work)
