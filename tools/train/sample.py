"""Writes a fixed sample of puzzles with how many of them the engine gets right, for a test that asks them again."""

import argparse
import json
from pathlib import Path

from engine import Engine
from evaluate import puzzles

CELLS = {"chain": (1, 3, 6, 9), "arithmetic": (1, 4, 8, 12), "addition": (1, 3, 5, 8)}
DEPTHS = (1, 4, 8, 16, 32)
COUNT = 12


def cell(engine, task, size):
    asked = puzzles(task, size, COUNT)
    prompts, right_answers = zip(*asked)
    right = {}
    for depth in DEPTHS:
        answers = engine.answers(prompts, len(right_answers[0]) + 1, {"fixed": depth})
        right[depth] = sum(answer.text == right for answer, right in zip(answers, right_answers))
    return {"task": task, "size": size, "puzzles": asked, "right": right}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sample", type=Path, help="the JSON file to write")
    parser.add_argument("--program", required=True, help="the binary windlass")
    parser.add_argument("--model", required=True, help="folder of the recurrent model, or demo")
    options = parser.parse_args()
    with Engine(options.program, options.model) as engine:
        cells = [cell(engine, task, size) for task, sizes in CELLS.items() for size in sizes]
    options.sample.parent.mkdir(parents=True, exist_ok=True)
    options.sample.write_text("[\n" + ",\n".join(json.dumps(cell) for cell in cells) + "\n]\n")


if __name__ == "__main__":
    main()
