"""Puzzles as arrays of token ids, with what every position is to say after every iteration.

A batch has one layout, so no padding is needed. After `step` iterations too few a position that knows its value says it,
one that waits for others says so, by `?` and `.` in turn: two waiting iterations never look alike, so that no test
of whether the latent still changes takes waiting for being done. A letter of a chain says where its arrows have led so far.
"""

from dataclasses import dataclass

import numpy as np

from vocabulary import BEGIN, END, IDS, LETTER_A, ZERO, encode

WAITING = np.array([IDS["?"], IDS["."]])
NOTHING = -1  # a position of which nothing is asked
EASY = 0.1  # weight of a target that takes no thought: to wait, or to say what was said at once


@dataclass
class Batch:
    """Puzzles of one layout."""

    ids: np.ndarray  # [batch, positions]: prompt, answer, end
    targets: np.ndarray  # [steps, batch, positions]; after the last step they stay
    prompt_length: int

    @property
    def answers(self):
        """What follows the prompt, the end included, [batch, answer]."""
        return self.ids[:, self.prompt_length :]

    def weights(self):
        """How much each target counts: most of them are easy, and would drown what is to be learned, [as targets]."""
        is_easy = (self.targets == self.targets[0]) | np.isin(self.targets, WAITING)
        return np.where(self.targets == NOTHING, 0.0, np.where(is_easy, EASY, 1.0))

    def settled(self):
        """The first step at and after which a position's target stays the same, [batch, positions]."""
        differs = self.targets != self.targets[-1]
        steps = np.arange(1, len(self.targets) + 1)[:, None, None]
        return (differs * steps).max(0)


def waiting_until(values, ready):
    """Targets of positions that say `values` [batch, n] from step `ready` [n] on and wait before, [steps, batch, n]."""
    steps = np.arange(max(ready) + 1)[:, None, None]
    return np.where(steps >= np.asarray(ready), values, WAITING[steps % 2])


def assemble(prompt, tracks, answer, answer_targets):
    """A batch of prompt columns and answer columns; `tracks` has the targets of prompt positions by their index."""
    count = len(prompt[0])
    columns = [np.full(count, BEGIN), *prompt, *answer.T, np.full(count, END)]
    ids = np.stack(columns, 1)
    length = 1 + len(prompt)
    steps = max(len(track) for track in [answer_targets, *tracks.values()])
    targets = np.full((steps, *ids.shape), NOTHING)
    held = lambda track: np.concatenate([track, np.repeat(track[-1:], steps - len(track), 0)])
    for position, track in tracks.items():
        targets[:, :, position] = held(track)
    targets[:, :, length - 1 : -2] = held(answer_targets)
    targets[:, :, -2] = END
    return Batch(ids, targets, length)


def arithmetic(random, count, size):
    """`7+5-3*2` and then `=8`: from left to right, modulo 10. An operator's position says the value before it, and so does `=`."""
    value = random.integers(0, 10, count)
    prompt, values = [ZERO + value], [value]
    for _ in range(size):
        operator = random.choice(3, count, p=[0.4, 0.4, 0.2])
        digit = random.integers(0, 10, count)
        value = np.choose(operator, [value + digit, value - digit, value * digit]) % 10
        prompt += [np.array(encode("+-*"))[operator], ZERO + digit]
        values.append(value)
    told = [waiting_until(ZERO + value[:, None], [step])[:, :, 0] for step, value in enumerate(values)]
    tracks = {2 + 2 * step: track for step, track in enumerate(told[:-1])}
    equals = np.full((count, 1), IDS["="])
    result = ZERO + value[:, None]
    answer_targets = np.stack([np.full_like(told[-1], IDS["="]), told[-1]], 2)
    return assemble(prompt, tracks, np.hstack([equals, result]), answer_targets)


def addition(random, count, size):
    """`7+5a4+8bc=a2b3c1`: 47 + 85 = 132, column by column, ones first, each column before the letter of its place.

    A letter's position in the prompt says its digit of the sum after the letter before; while it waits, every other step
    it says the sum of its own digits without a carry. The answer looks letters up. In a quarter of the puzzles many pairs
    sum to 9, so that carries travel far.
    """
    first, other = random.integers(0, 10, (2, count, size))
    is_nine = random.random((count, size)) < random.choice([0, 0, 0, 0.5], (count, 1))
    second = np.where(is_nine, 9 - first, other)
    carry, digits = np.zeros(count, int), []
    for place in range(size):
        total = first[:, place] + second[:, place] + carry
        digits.append(total % 10)
        carry = total // 10
    sum_digits = ZERO + np.stack([*digits, carry], 1)
    fixed = lambda token: np.full(count, token)
    prompt, tracks = [], {}
    told = waiting_until(sum_digits, range(size + 1))
    pairs = np.pad((first + second) % 10, ((0, 0), (0, 1)))
    told = np.where(told == WAITING[1], ZERO + pairs, told)
    for place in range(size + 1):
        if place < size:
            prompt += [ZERO + first[:, place], fixed(IDS["+"]), ZERO + second[:, place]]
        prompt.append(fixed(LETTER_A + place))
        tracks[len(prompt)] = told[:, :, place]
    prompt.append(fixed(IDS["="]))
    looked_up = waiting_until(sum_digits, range(1, size + 2))
    return assemble(prompt, tracks, _placed(sum_digits), np.stack([_placed(step) for step in looked_up]))


def _placed(digits):
    """Digits [batch, n] behind the letters of their places, [batch, 2 n]."""
    letters = np.broadcast_to(LETTER_A + np.arange(digits.shape[1]), digits.shape)
    return np.stack([letters, digits], 2).reshape(len(digits), -1)


def chain(random, count, size, others=(4, 3), asked=None):
    """`yz cd ab xy de bc;axc=`: for each letter after the semicolon the end of its chain of edges.

    The longest chain has `size` edges and is that of the last letter asked for. Every letter of the graph is a question
    too: where the edges before it lead.
    """
    lengths = [size, *(min(size, other) for other in others)]
    asked = asked or int(random.integers(1, 4))
    letters = np.argsort(random.random((count, 26)), 1)
    starts = np.cumsum([0, *(length + 1 for length in lengths)])[:-1]
    sources = np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths)])
    distance = np.concatenate([length - np.arange(length) for length in lengths])
    order = np.argsort(random.random((count, len(sources))), 1)
    rows = np.arange(count)[:, None]
    source, target = letters[rows, sources[order]], letters[rows, sources[order] + 1]
    wanted = random.integers(1, size + 1, (count, asked))
    wanted[:, -1] = size
    preference = random.random((count, asked, len(sources))) - 9.0 * (distance != wanted[:, :, None])
    questions = letters[rows, sources[preference.argmax(-1)]]
    return _chain_batch(source, target, questions, size)


def _chain_batch(source, target, questions, size):
    count, edges = source.shape
    rows, fixed = np.arange(count), lambda character: np.full(count, IDS[character])
    follow = np.tile(np.arange(26), (count, 1))

    def walk(letter):
        path = [letter]
        for _ in range(size):
            path.append(follow[rows, path[-1]])
        return LETTER_A + np.stack(path)

    prompt, tracks = [], {}
    for edge in range(edges):
        for letter in (source[:, edge], target[:, edge]):
            tracks[1 + len(prompt)] = walk(letter)
            prompt.append(LETTER_A + letter)
        prompt.append(fixed(" " if edge + 1 < edges else ";"))
        follow[rows, source[:, edge]] = target[:, edge]
    paths = np.stack([walk(letter) for letter in questions.T], 2)
    for index in range(questions.shape[1]):
        tracks[1 + len(prompt)] = paths[:, :, index]
        prompt.append(LETTER_A + questions[:, index])
    prompt.append(fixed("="))
    waiting = np.full_like(paths[:1], WAITING[0])
    return assemble(prompt, tracks, paths[-1], np.concatenate([waiting, paths]))


TASKS = {"chain": chain, "arithmetic": arithmetic, "addition": addition}


def draw(task, rows, size, shared, own):
    """A batch whose layout comes from the generator that all processes share, and whose puzzles from a process's own."""
    if task != "chain":
        return TASKS[task](own, rows, size)
    others = tuple(shared.integers(1, 5, shared.integers(1, 4)))
    return chain(own, rows, size, others, int(shared.integers(1, 4)))
