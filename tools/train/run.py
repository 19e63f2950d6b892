"""A training run: a folder with `checkpoint.pt` and `log.jsonl`. Started again it goes on where it was."""

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing

from muon import optimisers, set_rates
from network import Huginn, Shape

WARM_UP_STEPS, CLIP = 100, 1.0
AVERAGE = 0.998
SAVE_EVERY_S, LOG_EVERY = 120, 25


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--seconds", type=float, default=5400, help="length of the whole run")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each; they average their gradients")
    parser.add_argument("--rate", type=float, default=2e-3, help="of AdamW; Muon's is a fixed multiple")
    parser.add_argument("--fall", type=float, default=0.6, help="the part of the run, at its end, over which the rate falls")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def start(options, work):
    """Calls `work(rank, options)` in every process of the run."""
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "rendezvous").unlink(missing_ok=True)
    if options.processes == 1:
        _process(0, options, work)
    else:
        multiprocessing.spawn(_process, args=(options, work), nprocs=options.processes)


def _process(rank, options, work):
    torch.set_num_threads(1)
    if options.processes > 1:
        store = f"file://{(options.run / 'rendezvous').absolute()}"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=options.processes)
    work(rank, options)


def product_dtype(device):
    """bf16, except on processors that would multiply it slower than f32."""
    is_fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if is_fast else torch.float32


class Run:
    """Model, optimisers, averaged weights and progress. `state` is what else a kind of training has to remember."""

    def __init__(self, options, rank, state):
        self.options, self.rank, self.state = options, rank, state
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.products = product_dtype(self.device)
        torch.manual_seed(options.seed)
        self.model = Huginn(Shape()).to(self.device)
        self.weights = dict(self.model.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.muon, self.adam = optimisers(self.model, options.rate)
        self.step, self.spent_s, self.path = 0, 0.0, options.run / "checkpoint.pt"
        if self.path.exists():
            self.restore(torch.load(self.path, map_location=self.device))
        self.started, self.saved = time.time() - self.spent_s, time.time()
        torch.manual_seed(options.seed + 1000 * self.step + 1 + rank)
        self.model.compile()

    def restore(self, saved):
        self.model.load_state_dict(saved["model"])
        for name, average in self.average.items():
            average.copy_(saved["average"][name])
        self.muon.load_state_dict(saved["muon"])
        self.adam.load_state_dict(saved["adam"])
        self.step, self.spent_s = saved["step"], saved["spent_s"]
        self.state.update(saved["state"])

    def save(self):
        saved = {
            "model": self.model.state_dict(),
            "average": self.average,
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
            "state": self.state,
            "seed": self.options.seed,
            "processes": self.options.processes,
        }
        torch.save(saved, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)
        self.saved = time.time()

    @property
    def progress(self):
        """From 0 to 1, the same in all processes."""
        return min(1, self.spent_s / self.options.seconds)

    def rate(self):
        """Rises, stays, and falls to nothing over the last part of the run."""
        fall = (1 - self.progress) / self.options.fall
        return self.options.rate * min(1, (self.step + 1) / WARM_UP_STEPS, max(0.01, fall))

    def update(self, facts):
        """Takes one step along the gradients; returns the facts [count] as means over the processes."""
        spent_s = torch.tensor([time.time() - self.started], device=self.device)
        *facts, self.spent_s = self._exchange(torch.cat([facts, spent_s])).tolist()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), CLIP)
        set_rates(self.muon, self.adam, self.rate())
        for optimiser in (self.muon, self.adam):
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        keep = min(AVERAGE, self.step / (self.step + 20))
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight.detach(), 1 - keep)
        if self.rank == 0 and (time.time() - self.saved > SAVE_EVERY_S or self.progress == 1):
            self.save()
        return facts

    def _exchange(self, facts):
        if self.options.processes == 1:
            return facts
        gradients = [weight.grad for weight in self.weights.values()]
        flat = torch.cat([facts, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        flat /= self.options.processes
        rest = flat[len(facts) :].split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, rest):
            gradient.copy_(mean.view_as(gradient))
        return flat[: len(facts)]

    def report(self, facts):
        """Writes a line of the log, from process 0."""
        if self.rank == 0:
            line = {"step": self.step, "seconds": round(self.spent_s), "rate": round(self.rate(), 6)} | facts
            print(json.dumps(line), flush=True)
            with open(self.options.run / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
