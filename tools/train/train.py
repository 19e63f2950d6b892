"""Trains the recurrent network, in a number of single-threaded processes that average their gradients.

A run is a folder with `checkpoint.pt` and `log.jsonl`; starting it again goes on where it was. `--seconds` is the
length of the whole run: the learning rate falls to nothing at its end.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing

from muon import optimisers, set_rates
from network import Huginn, Shape
from objective import WINDOW, Window, objective
from tasks import TASKS

RATE, WARM_UP, CLIP = 2e-3, 100, 1.0
AVERAGE = 0.998
ROWS = {"chain": 24, "arithmetic": 12, "addition": 16}
LARGEST = {"chain": 10, "arithmetic": 12, "addition": 10}
SAVE_EVERY_S, LOG_EVERY = 120, 25


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--seconds", type=float, default=5400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class Reach:
    """How many iterations a window may skip, per task: one more whenever what is skipped is known well."""

    def __init__(self):
        self.limit = dict.fromkeys(TASKS, 1)
        self.met = dict.fromkeys(TASKS, 0.0)

    def draw(self, task, size, random):
        done = size + 2
        if self.limit[task] > done and random.random() < 0.1:
            return int(random.integers(done, 48))
        limit = min(self.limit[task], done)
        return int(random.integers(0, limit + 1)) if random.random() < 0.7 else 0

    def update(self, task, met):
        self.met[task] += 0.1 * (met - self.met[task])
        if self.met[task] > 0.95 and self.limit[task] < LARGEST[task] + 3:
            self.limit[task] += 1
            self.met[task] = 0.9


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


class Trainer:
    def __init__(self, options, rank):
        self.options, self.rank = options, rank
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(options.seed)
        self.model = Huginn(Shape()).to(self.device)
        self.average = [weight.detach().clone() for weight in self.model.parameters()]
        self.muon, self.adam = optimisers(self.model, RATE)
        self.reach, self.step, self.spent_s, self.path = Reach(), 0, 0.0, options.run / "checkpoint.pt"
        if self.path.exists():
            self.restore(torch.load(self.path, map_location=self.device, weights_only=False))
        self.model.compile()
        seed = options.seed + 1000 * self.step
        self.shared = np.random.default_rng(seed)
        self.own = np.random.default_rng([seed, rank])
        torch.manual_seed(seed + 1 + rank)

    def restore(self, saved):
        self.model.load_state_dict(saved["model"])
        for average, name in zip(self.average, dict(self.model.named_parameters())):
            average.copy_(saved["average"][name])
        self.muon.load_state_dict(saved["muon"])
        self.adam.load_state_dict(saved["adam"])
        self.reach, self.step, self.spent_s = saved["reach"], saved["step"], saved["spent_s"]

    def save(self):
        names = dict(self.model.named_parameters())
        state = {
            "model": self.model.state_dict(),
            "average": dict(zip(names, self.average)),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "reach": self.reach,
            "step": self.step,
            "spent_s": self.spent_s,
        }
        torch.save(state, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)

    def rate(self):
        progress = min(1, self.spent_s / self.options.seconds)
        return RATE * min(1, (self.step + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def run(self):
        log, started, saved = [], time.time() - self.spent_s, time.time()
        while self.spent_s < self.options.seconds:
            facts = self.one_step(time.time() - started)
            log.append(facts)
            if self.rank == 0 and self.step % LOG_EVERY == 0:
                self.report(np.mean(log, 0))
                log = []
            if self.rank == 0 and time.time() - saved > SAVE_EVERY_S:
                saved = time.time()
                self.save()
        if self.rank == 0:
            self.save()

    def one_step(self, spent_s):
        still_weight = 0.1 + 0.2 * min(1, self.spent_s / self.options.seconds / 0.7)
        facts = []
        for task, (size, window) in draw_layouts(self.reach, self.shared).items():
            batch = make_batch(task, size, self.shared, self.own)
            loss, fact = objective(self.model, batch, window, still_weight, torch.bfloat16, self.device)
            loss.backward()
            facts.append(fact)
        facts = self.exchange(torch.cat([*facts, torch.tensor([spent_s], device=self.device)]))
        for task, met in zip(TASKS, facts[2:-1:3]):
            self.reach.update(task, met)
        self.spent_s = facts[-1]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        set_rates(self.muon, self.adam, self.rate())
        for optimiser in (self.muon, self.adam):
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        keep = min(AVERAGE, self.step / (self.step + 20))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.model.parameters()], 1 - keep)
        return facts[:-1]

    def exchange(self, facts):
        """Averages gradients and facts over the processes."""
        if self.options.processes == 1:
            return facts.tolist()
        gradients = [weight.grad for weight in self.model.parameters()]
        flat = torch.cat([facts, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        flat /= self.options.processes
        rest = flat[len(facts) :].split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, rest):
            gradient.copy_(mean.view_as(gradient))
        return flat[: len(facts)].tolist()

    def report(self, facts):
        names = [f"{task} {fact}" for task in TASKS for fact in ("entropy", "still", "met")]
        line = {"step": self.step, "seconds": round(self.spent_s), "rate": round(self.rate(), 6)}
        line |= {name: round(float(fact), 4) for name, fact in zip(names, facts)} | {"reach": self.reach.limit}
        print(json.dumps(line), flush=True)
        with open(self.options.run / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def process(rank, options):
    torch.set_num_threads(1)
    if options.processes > 1:
        store = f"file://{(options.run / 'rendezvous').absolute()}"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=options.processes)
    Trainer(options, rank).run()


def main():
    options = arguments()
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "rendezvous").unlink(missing_ok=True)
    if options.processes == 1:
        process(0, options)
    else:
        multiprocessing.spawn(process, args=(options,), nprocs=options.processes)


if __name__ == "__main__":
    main()
