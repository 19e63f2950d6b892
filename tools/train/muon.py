"""The Muon optimiser: momentum, then the nearest orthogonal matrix (arXiv 2502.16982), for matrices inside a network."""

import torch

MOMENTUM, DECAY = 0.95, 0.01


def orthogonal(matrix, rounds=5):
    """Newton-Schulz iteration towards the orthogonal factor of a matrix."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x if wide else x.T).float()


class Muon(torch.optim.Optimizer):
    """Each parameter group names in `parts` how many stacked matrices its parameters are."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.02, "parts": 1})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                update = weight.grad.lerp(momentum, MOMENTUM)
                for part, change in zip(weight.chunk(group["parts"]), update.chunk(group["parts"])):
                    scale = max(1, part.shape[0] / part.shape[1]) ** 0.5
                    part.mul_(1 - group["lr"] * DECAY).add_(orthogonal(change), alpha=-group["lr"] * scale)


def optimisers(model, rate):
    """Muon for the matrices of the layers, AdamW for embedding, norms and biases. Rates are set by `set_rates`."""
    inside = {name: weight for name, weight in model.named_parameters() if weight.ndim == 2 and "wte" not in name}
    parts = {"Wqkv.weight": 3, "fc.weight": 2}
    groups = {1: [], 2: [], 3: []}
    for name, weight in inside.items():
        groups[next((count for end, count in parts.items() if name.endswith(end)), 1)].append(weight)
    outside = [weight for name, weight in model.named_parameters() if name not in inside]
    muon = Muon([{"params": weights, "parts": count} for count, weights in groups.items()])
    adam = torch.optim.AdamW(outside, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    return muon, adam


def set_rates(muon, adam, rate, muon_factor=7.5):
    """One schedule for both: Muon's rate is a fixed multiple."""
    for group in muon.param_groups:
        group["lr"] = rate * muon_factor
    for group in adam.param_groups:
        group["lr"] = rate
