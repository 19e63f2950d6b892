"""Trains the recurrent network, which answers at once, on all tasks together."""

import numpy as np
import torch

from objective import Window, objective
from run import LOG_EVERY, Run, arguments, start
from tasks import TASKS

ROWS = {"chain": 24, "arithmetic": 12, "addition": 16}
LARGEST = {"chain": 10, "arithmetic": 12, "addition": 10}
KNOWN_WELL = 0.95
FACTS = ("entropy", "still", "met")


class Reach:
    """How many iterations a window may skip, per task: one more whenever what is skipped is known well."""

    def __init__(self, state):
        self.limit = state.setdefault("limit", dict.fromkeys(TASKS, 1))
        self.met = state.setdefault("met", dict.fromkeys(TASKS, 0.0))

    def draw(self, task, size, random):
        done = size + 2
        if self.limit[task] > done and random.random() < 0.1:
            return int(random.integers(done, 48))
        limit = min(self.limit[task], done)
        return int(random.integers(0, limit + 1)) if random.random() < 0.7 else 0

    def update(self, task, met):
        self.met[task] += 0.1 * (met - self.met[task])
        if self.met[task] > KNOWN_WELL and self.limit[task] < LARGEST[task] + 3:
            self.limit[task] += 1
            self.met[task] = KNOWN_WELL - 0.05


def draw_layouts(reach, random):
    """Of each task a size and a window; the same in all processes, so that none waits for another."""
    layouts = {}
    for task, largest in LARGEST.items():
        size = int(random.integers(1, largest + 1))
        scale = 0.0 if random.random() < 0.2 else 1.0
        layouts[task] = size, Window(reach.draw(task, size, random), scale)
    return layouts


def make_batch(task, size, shared, own):
    """Layouts come from the shared generator, puzzles from a process's own."""
    if task != "chain":
        return TASKS[task](own, ROWS[task], size)
    others = tuple(shared.integers(1, 5, shared.integers(1, 4)))
    return TASKS[task](own, ROWS[task], size, others, int(shared.integers(1, 4)))


def work(rank, options):
    state = {}
    run = Run(options, rank, state)
    reach = Reach(state)
    seed = options.seed + 1000 * run.step
    shared, own = np.random.default_rng(seed), np.random.default_rng([seed, rank])
    log = []
    while run.progress < 1:
        still_weight = 0.1 + 0.2 * min(1, run.progress / 0.7)
        facts = []
        for task, (size, window) in draw_layouts(reach, shared).items():
            batch = make_batch(task, size, shared, own)
            loss, fact = objective(run.model, batch, window, still_weight, torch.bfloat16, run.device)
            loss.backward()
            facts.append(fact)
        log.append(run.update(torch.cat(facts)))
        for task, met in zip(TASKS, log[-1][2::3]):
            reach.update(task, met)
        if run.step % LOG_EVERY == 0:
            names = [f"{task} {fact}" for task in TASKS for fact in FACTS]
            means = {name: round(float(mean), 4) for name, mean in zip(names, np.mean(log, 0))}
            run.report(means | {"reach": dict(reach.limit)})
            log = []


if __name__ == "__main__":
    start(arguments(__doc__), work)
