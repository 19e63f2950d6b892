"""Properties of the puzzles, each checked against an answer worked out from the text alone."""

import re
import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import written_steps
from curriculum import LARGEST
from tasks import NOTHING, TASKS, WAITING
from vocabulary import END, decode

COUNT = 40


def chain_by_hand(prompt):
    graph, asked = prompt.removesuffix("=").split(";")
    edges = {edge[0]: edge[1] for edge in graph.split(" ")}
    ends = ""
    for letter in asked:
        while letter in edges:
            letter = edges[letter]
        ends += letter
    return ends


def arithmetic_by_hand(prompt):
    value, rest = int(prompt[0]), prompt[1:]
    for operator, digit in zip(rest[::2], rest[1::2]):
        value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator] % 10
    return f"={value}"


def addition_by_hand(prompt):
    columns = re.findall(r"(\d)\+(\d)([a-z])", prompt)
    first, second = (int("".join(digits)[::-1]) for digits in list(zip(*columns))[:2])
    letters = re.findall(r"[a-z]", prompt)
    return "".join(map(str.__add__, letters, str(first + second).zfill(len(letters))[::-1]))


BY_HAND = {"chain": chain_by_hand, "arithmetic": arithmetic_by_hand, "addition": addition_by_hand}


def batches():
    for index, (task, generate) in enumerate(TASKS.items()):
        for size in range(1, LARGEST[task] + 3):
            yield task, size, generate(np.random.default_rng([index, size]), COUNT, size)


class Puzzles(unittest.TestCase):
    def test_answers_are_what_one_gets_by_hand(self):
        for task, size, batch in batches():
            for ids in batch.ids:
                prompt, answer = decode(ids[: batch.prompt_length]), decode(ids[batch.prompt_length :])
                self.assertEqual(answer, BY_HAND[task](prompt), f"{task} {size} {prompt}")

    def test_the_last_targets_spell_the_answer(self):
        for task, size, batch in batches():
            self.assertTrue((batch.targets[-1][:, batch.prompt_length - 1 : -1] == batch.answers).all(), f"{task} {size}")

    def test_what_is_asked_is_asked_at_every_step(self):
        for task, size, batch in batches():
            is_asked = batch.targets != NOTHING
            self.assertTrue((is_asked == is_asked[0]).all(), f"{task} {size}")
            self.assertTrue(((batch.weights() > 0) == is_asked).all(), f"{task} {size}")

    def test_no_answer_is_known_at_the_first_step(self):
        for task, size, batch in batches():
            first = batch.targets[0][:, batch.prompt_length - 1 : -2]
            self.assertTrue((first == WAITING[0]).any(1).all(), f"{task} {size}")

    def test_waiting_never_looks_the_same_twice(self):
        for task, size, batch in batches():
            before, after = batch.targets[:-1], batch.targets[1:]
            self.assertFalse((np.isin(before, WAITING) & (before == after)).any(), f"{task} {size}")

    def test_targets_stay_from_the_step_they_settle_at(self):
        for task, size, batch in batches():
            settled = batch.settled()
            for step, targets in enumerate(batch.targets):
                self.assertTrue((targets == batch.targets[-1])[step >= settled].all(), f"{task} {size}")
            self.assertEqual(settled.max(), len(batch.targets) - 1, f"{task} {size}")

    def test_larger_puzzles_take_more_steps(self):
        steps = {}
        for task, size, batch in batches():
            self.assertGreater(len(batch.targets), steps.get(task, 0), f"{task} {size}")
            steps[task] = len(batch.targets)

    def test_the_same_seed_gives_the_same_puzzles(self):
        for generate in TASKS.values():
            first, second = (generate(np.random.default_rng(3), COUNT, 5).ids for _ in range(2))
            self.assertTrue((first == second).all())


class WrittenSteps(unittest.TestCase):
    def test_the_answer_is_found_in_what_is_written(self):
        for task, size, batch in batches():
            for written, answer in zip(written_steps.continuations(task, batch), batch.answers):
                self.assertEqual(written[-1], END)
                self.assertEqual(written_steps.answer_of(task, decode(written)), decode(answer), f"{task} {size}")

    def test_each_token_follows_the_one_before(self):
        for task, size, batch in batches():
            ids, following = written_steps.rows(task, batch)
            is_asked = following[:, :-1] != NOTHING
            self.assertTrue((ids[:, 1:] == following[:, :-1])[is_asked].all(), f"{task} {size}")
            self.assertTrue((is_asked[:, : batch.prompt_length - 1] == 0).all(), f"{task} {size}")


if __name__ == "__main__":
    unittest.main()
