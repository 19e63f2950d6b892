"""Trains the recurrent network, which answers at once, on all tasks together."""

import numpy as np
import torch

from curriculum import Curriculum
from objective import objective
from pool import Pool
from run import LOG_EVERY, Run, arguments, start
from tasks import TASKS

ROWS = {"chain": 32, "arithmetic": 32, "addition": 24}
FACTS = ("entropy", "still", "met")


def work(rank, options):
    state = {}
    run = Run(options, rank, state)
    curriculum = Curriculum(state)
    seed = options.seed + 1000 * run.step
    shared, own = np.random.default_rng(seed), np.random.default_rng([seed, rank])
    pools = {task: Pool(task, ROWS[task], curriculum, shared, own) for task in TASKS}
    log = []
    while run.progress < 1:
        still_weight = 0.1 + 0.2 * min(1, run.progress / 0.7)
        facts, thinking = [], []
        for task, pool in pools.items():
            ongoing = pool.next()
            thinking.append(ongoing.is_thinking)
            loss, fact = objective(run.model, ongoing, still_weight, run.products, run.device)
            loss.backward()
            pool.sort(ongoing)
            facts.append(fact)
        log.append(run.update(torch.cat(facts)))
        for task, met, counts in zip(TASKS, log[-1][2::3], thinking):
            if counts:
                curriculum.update(task, met)
        if run.step % LOG_EVERY == 0:
            names = [f"{task} {fact}" for task in TASKS for fact in FACTS]
            means = {name: round(float(mean), 4) for name, mean in zip(names, np.mean(log, 0))}
            run.report(means | {"level": dict(curriculum.level)})
            log = []


if __name__ == "__main__":
    start(arguments(__doc__), work)
