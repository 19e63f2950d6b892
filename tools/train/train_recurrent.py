"""Trains the recurrent network, which answers at once, on all tasks together."""

import numpy as np
import torch

from curriculum import Curriculum
from objective import objective
from pool import Pool
from run import LOG_EVERY, Run, arguments, start
from tasks import TASKS

ROWS = 32  # of each task


def work(rank, options):
    state = {}
    run = Run(options, rank, state)
    curriculum = Curriculum(state)
    seed = options.seed + 1000 * run.step
    shared, own = np.random.default_rng(seed), np.random.default_rng([seed, 1 + rank])
    pools = {task: Pool(task, ROWS, curriculum, shared, own) for task in TASKS}
    log = {task: Log() for task in TASKS}
    while run.progress < 1:
        still_weight = 0.1 + 0.2 * min(1, run.progress / 0.7)
        facts, thinking = [], []
        for pool in pools.values():
            ongoing = pool.next()
            thinking.append(ongoing.is_thinking)  # before the window, which may end it
            loss, fact = objective(run.model, ongoing, still_weight, run.products, run.device)
            loss.backward()
            pool.put_back(ongoing)
            facts.append(fact)
        means = np.reshape(run.update(torch.cat(facts)), (len(TASKS), -1)).tolist()
        for task, mean, is_thinking in zip(TASKS, means, thinking):
            log[task].add(mean, is_thinking)
            if is_thinking:
                curriculum.update(task, mean[-1])
        if run.step % LOG_EVERY == 0:
            line = {f"{task} {name}": value for task in TASKS for name, value in log[task].means().items()}
            run.report(line | {"level": dict(curriculum.level)})
            log = {task: Log() for task in TASKS}


class Log:
    """What is reported of a task: the share of targets met while it is thought about, and `kept` once the answer was due."""

    def __init__(self):
        self.facts = {True: [], False: []}

    def add(self, fact, is_thinking):
        self.facts[is_thinking].append(fact)

    def means(self):
        entropy, still, _ = np.mean(self.facts[True] + self.facts[False], 0)
        named = {"entropy": entropy, "still": still}
        for name, facts in zip(("met", "kept"), (self.facts[True], self.facts[False])):
            if facts:
                named[name] = np.mean(facts, 0)[-1]
        return {name: round(float(value), 4) for name, value in named.items()}


if __name__ == "__main__":
    start(arguments(__doc__), work)
