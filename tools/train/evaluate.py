"""Asks the engine puzzles the training has not fixed, and writes what came out as one JSON file.

Puzzles come from the generators of the training with a seed of their own; small ones it will have seen.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import written_steps
from curriculum import LARGEST
from engine import Engine
from tasks import TASKS
from vocabulary import decode

SIZES = {"chain": (1, 2, 4, 6, 8, 10, 12, 14), "arithmetic": (1, 2, 4, 8, 12, 14, 16, 20), "addition": (1, 2, 4, 6, 8, 10)}
DEPTHS = (1, 2, 4, 8, 12, 16, 24, 32, 64, 128)
FULL = 32
ADAPTIVE = {"adaptive": {"criterion": "latent-diff", "threshold": 0.03, "max": FULL}}
CONTEXT = 256  # positions of a sequence, its begin included
SEED = 20_000
ENDS, CORE = 2, 2  # layers a position passes once, and in each iteration


def puzzles(task, size, count):
    """(prompt, answer) pairs; what is asked of a chain is always three letters."""
    random = np.random.default_rng([SEED, list(TASKS).index(task), size])
    batch = TASKS[task](random, count, size, asked=3) if task == "chain" else TASKS[task](random, count, size)
    return [(decode(ids[: batch.prompt_length]), decode(ids[batch.prompt_length :])) for ids in batch.ids]


def share(answers, asked):
    return sum(answer.text == right for answer, (_, right) in zip(answers, asked, strict=True)) / len(asked)


def work(answers, iterations_of_prompt):
    """Layer applications per puzzle. The last token generated is never read, so it costs nothing."""
    layers = 0
    for answer in answers:
        iterations = answer.prompt_tokens * iterations_of_prompt + sum(answer.depths[1:])
        layers += ENDS * (answer.prompt_tokens + len(answer.depths) - 1) + CORE * iterations
    return layers / len(answers)


def recurrent_cell(engine, asked):
    """All that is measured of one task and size."""
    prompts = [prompt for prompt, _ in asked]
    ask = lambda depth, **fields: engine.answers(prompts, len(asked[0][1]) + 1, depth, **fields)
    fixed = {depth: ask({"fixed": depth}) for depth in DEPTHS}
    adaptive, zero = ask(ADAPTIVE), ask({"fixed": FULL}, init_scale=0)
    later = [depth for answer in adaptive for depth in answer.depths[1:]] or [FULL]
    deepest = [max(answer.depths[1:], default=FULL) for answer in adaptive]
    return {
        "accuracy": {depth: share(answers, asked) for depth, answers in fixed.items()},
        "work": {depth: work(answers, depth) for depth, answers in fixed.items()},
        "zero_latent": share(zero, asked),
        "adaptive": {
            "accuracy": share(adaptive, asked),
            "mean_depth": float(np.mean(later)),
            "deepest_depth": float(np.mean(deepest)),
            "saved": 1 - float(np.mean(later)) / FULL,
            "work": work(adaptive, FULL),
        },
    }


def plain_cell(engine, task, asked):
    prompts = [prompt for prompt, _ in asked]
    answers = engine.answers(prompts, CONTEXT - 1 - len(prompts[0]), {"fixed": 1})
    lengths = [len(answer.depths) for answer in answers]
    cost = work(answers, 1)
    for answer in answers:
        answer.text = written_steps.answer_of(task, answer.text)
    return {"accuracy": share(answers, asked), "work": cost, "written": float(np.mean(lengths))}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="the JSON file to write")
    parser.add_argument("--program", required=True, help="the binary windlass")
    parser.add_argument("--model", type=Path, required=True, help="folder of the recurrent model")
    parser.add_argument("--plain", type=Path, required=True, help="folder of the plain baseline")
    parser.add_argument("--puzzles", type=int, default=64, help="per task and size")
    options = parser.parse_args()
    cells = {task: {size: puzzles(task, size, options.puzzles) for size in sizes} for task, sizes in SIZES.items()}
    results = {"puzzles": options.puzzles, "full": FULL, "trained": LARGEST}
    with Engine(options.program, options.model) as engine:
        results["recurrent"] = {
            task: {size: recurrent_cell(engine, asked) for size, asked in sizes.items()} for task, sizes in cells.items()
        }
    with Engine(options.program, options.plain) as engine:
        results["plain"] = {
            task: {size: plain_cell(engine, task, asked) for size, asked in sizes.items()}
            for task, sizes in cells.items()
        }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
