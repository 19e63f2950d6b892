"""Trains the recurrent network, which answers at once, on all tasks together."""

import numpy as np
import torch

from curriculum import Curriculum
from objective import Window, objective
from run import LOG_EVERY, Run, arguments, start
from tasks import TASKS

ROWS = {"chain": 24, "arithmetic": 16, "addition": 24}
FACTS = ("entropy", "still", "met")


def draw_layouts(curriculum, random):
    """Of each task a size and a window; the same in all processes, so that none waits for another."""
    layouts = {}
    for task in TASKS:
        size = curriculum.size(task, random)
        scale = 0.0 if random.random() < 0.2 else 1.0
        layouts[task] = size, Window(curriculum.skipped(task, size, random), scale)
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
    curriculum = Curriculum(state)
    seed = options.seed + 1000 * run.step
    shared, own = np.random.default_rng(seed), np.random.default_rng([seed, rank])
    mean_rows, log = sum(ROWS.values()) / len(ROWS), []
    while run.progress < 1:
        still_weight = 0.1 + 0.2 * min(1, run.progress / 0.7)
        facts = []
        for task, (size, window) in draw_layouts(curriculum, shared).items():
            batch = make_batch(task, size, shared, own)
            loss, fact = objective(run.model, batch, window, still_weight, run.products, run.device)
            (loss * ROWS[task] / mean_rows).backward()
            facts.append(fact)
        log.append(run.update(torch.cat(facts)))
        for task, met in zip(TASKS, log[-1][2::3]):
            curriculum.update(task, met)
        if run.step % LOG_EVERY == 0:
            names = [f"{task} {fact}" for task in TASKS for fact in FACTS]
            means = {name: round(float(mean), 4) for name, mean in zip(names, np.mean(log, 0))}
            run.report(means | {"level": dict(curriculum.level)})
            log = []


if __name__ == "__main__":
    start(arguments(__doc__), work)
