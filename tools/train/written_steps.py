"""The same puzzles for a transformer without recurrence, which writes its intermediate steps before the answer.

`7+5-3*2` is rewritten with one operation less until none is left, `=2-3*2=9*2=8`: so it need not count how far it is.
`ab bc xy;ax=` is answered by the way of each letter, `bc,y`.
Of an addition every digit written is a step already: the carry follows from it.
"""

import numpy as np

from tasks import NOTHING
from vocabulary import END, IDS, PAD

COMMA = IDS[","]


def continuations(task, batch):
    """What is to be written after each prompt, the end included: lists of ids."""
    if task == "addition":
        return batch.answers.tolist()
    if task == "arithmetic":
        values = batch.targets[-1][:, 4 : batch.prompt_length + 2 : 2]
        return [_rewritten(row.tolist(), after) for row, after in zip(batch.ids[:, 2 : batch.prompt_length], values.tolist())]
    asked = batch.answers.shape[1] - 1
    first = batch.prompt_length - 1 - asked
    paths, settled = batch.targets[:, :, first : first + asked], batch.settled()[:, first : first + asked]
    return [_ways(paths[:, row], settled[row]) for row in range(len(batch.ids))]


def _rewritten(rest, values):
    """`rest` is what follows the first operand, in pairs of operator and operand; `values` those after each pair."""
    written = []
    for index, value in enumerate(values, 1):
        written += [IDS["="], value, *rest[2 * index :]]
    return [*written, END]


def _ways(paths, settled):
    written = []
    for question, steps in enumerate(settled):
        written += [*paths[1 : steps + 1, question].tolist(), COMMA]
    return [*written[:-1], END]


def answer_of(task, text):
    """The answer in a written text."""
    if task == "chain":
        return "".join(way[-1:] for way in text.split(","))
    return text[-2:] if task == "arithmetic" else text


def rows(task, batch):
    """Ids [batch, positions], filled up on the right, and for each position the token to follow."""
    written = continuations(task, batch)
    length = batch.prompt_length + max(len(row) for row in written)
    ids = np.full((len(written), length), PAD)
    ids[:, : batch.prompt_length] = batch.ids[:, : batch.prompt_length]
    following = np.full_like(ids, NOTHING)
    for row, tokens in enumerate(written):
        end = batch.prompt_length + len(tokens)
        ids[row, batch.prompt_length : end] = tokens
        following[row, batch.prompt_length - 1 : end - 1] = tokens
    return ids, following
