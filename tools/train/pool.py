"""The puzzles under way: each batch is gone on with where the last window left it, so no iteration is computed only to get somewhere."""

from dataclasses import dataclass

from tasks import Batch, draw

WINDOW = 4  # iterations between two looks at a batch
KEPT = 4  # batches of each kind
STAYING = 0.4  # the part of windows behind the answer
ENDS, DEEPEST = 0.06, 160  # the chance after each of these that a batch ends, and the iterations after which it does
ZERO_LATENT = 0.2  # the part of batches that begin with it


@dataclass(eq=False)
class Ongoing:
    """A batch, and how far the network has come with it: the tensor `latent` after `step` iterations, or none before the first."""

    batch: Batch
    size: int
    step: int
    scale: float  # of the initial latent
    latent: object = None

    @property
    def due(self):
        """The iterations after which all is answered."""
        return self.size + 2

    @property
    def is_thinking(self):
        return self.step < self.due


class Pool:
    """One task's batches: some that are thought about, and some that are done and have to stay as they are.

    Which goes on is drawn from the `shared` generator, so that no process waits for another with a longer batch.
    """

    def __init__(self, task, rows, curriculum, shared, own):
        self.task, self.rows, self.curriculum, self.shared, self.own = task, rows, curriculum, shared, own
        self.thinking, self.staying = [], []

    def next(self):
        if self.staying and self.shared.random() < STAYING:
            return self._drawn(self.staying)
        if len(self.thinking) < KEPT:
            self.thinking.append(self._begin())
            return self.thinking[-1]
        return self._drawn(self.thinking)

    def sort(self, ongoing):
        """Finds the place of a batch after its window. It is thought about until its answer is due, or until it is deeper than
        the task is known; then it stays if its size is known well and there is room."""
        level = self.curriculum.level[self.task]
        if ongoing in self.staying:
            if ongoing.step >= DEEPEST or self.shared.random() < ENDS:
                self.staying.remove(ongoing)
        elif not ongoing.is_thinking or ongoing.step > level + WINDOW:
            self.thinking.remove(ongoing)
            if ongoing.due < level and len(self.staying) < KEPT:
                self.staying.append(ongoing)

    def _drawn(self, some):
        return some[int(self.shared.integers(len(some)))]

    def _begin(self):
        """A new batch. Most begin some iterations in, so that windows end anywhere."""
        size = self.curriculum.size(self.task, self.shared)
        scale = 0.0 if self.shared.random() < ZERO_LATENT else 1.0
        step = int(self.shared.integers(min(WINDOW, size + 2))) if self.shared.random() < 0.7 else 0
        return Ongoing(draw(self.task, self.rows, size, self.shared, self.own), size, step, scale)
