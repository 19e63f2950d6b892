"""The puzzles under way: each batch goes on where its last window left it, so few iterations are computed only to get somewhere."""

from dataclasses import dataclass

from tasks import Batch, draw

WINDOW = 4  # iterations of a window
KEPT = 4  # batches of each kind
STAYING = 0.4  # the part of windows behind the answer
ENDS = 0.06  # the chance that a staying batch ends after a window
DEEPEST = 160  # iterations after which it ends in any case
ZERO_LATENT = 0.2  # the part of batches that begin with it
OFFSET = 0.7  # the part of batches whose first window begins at any of the first iterations


@dataclass(eq=False)
class Ongoing:
    """A batch, and how far the network has come with it: the tensor `latent` after `depth` iterations.

    Of a new batch there is none; its first window begins after `depth` iterations from an initial latent of this `scale`.
    """

    batch: Batch
    depth: int
    scale: float
    latent: object = None

    @property
    def due(self):
        """The iterations after which all is answered."""
        return len(self.batch.targets)

    @property
    def is_thinking(self):
        return self.depth < self.due


class Pool:
    """One task's batches: some that are thought about, and some that are done and have to stay as they are.

    Which goes on is drawn from the `shared` generator, so that no process waits for another with a longer batch. Batches
    are not part of a checkpoint: a run that is resumed begins with new ones.
    """

    def __init__(self, task, rows, curriculum, shared, own):
        self.task, self.rows, self.curriculum, self.shared, self.own = task, rows, curriculum, shared, own
        self.thinking, self.staying = [], []

    def next(self):
        """The batch to take through a window, and to `put_back` then."""
        if self.staying and self.shared.random() < STAYING:
            return self._drawn(self.staying)
        if len(self.thinking) < KEPT:
            self.thinking.append(self._new())
            return self.thinking[-1]
        return self._drawn(self.thinking)

    def put_back(self, ongoing):
        """A batch is thought about until its answer is due; then it stays, if such sizes are known well and there is room."""
        if ongoing in self.staying:
            if ongoing.depth >= DEEPEST or self.shared.random() < ENDS:
                self.staying.remove(ongoing)
        elif not ongoing.is_thinking:
            self.thinking.remove(ongoing)
            if ongoing.due < self.curriculum.level[self.task] and len(self.staying) < KEPT:
                self.staying.append(ongoing)

    def _drawn(self, some):
        return some[int(self.shared.integers(len(some)))]

    def _new(self):
        size = self.curriculum.size(self.task, self.shared)
        scale = 0.0 if self.shared.random() < ZERO_LATENT else 1.0
        batch = draw(self.task, self.rows, size, self.shared, self.own)
        depth = int(self.shared.integers(min(WINDOW, len(batch.targets)))) if self.shared.random() < OFFSET else 0
        return Ongoing(batch, depth, scale)
