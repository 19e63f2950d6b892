"""How large the puzzles are and how far into an answer the training looks: more as soon as it goes well."""

LARGEST = {"chain": 10, "arithmetic": 12, "addition": 8}
KNOWN_WELL = 0.93
AHEAD = 2  # how much larger puzzles may be than what is known well
MOST_SKIPPED = 48


class Curriculum:
    """Per task a level, which rises whenever the share of targets met is high. It lives in a run's `state`.

    Levels begin at 1, or where `first` says.
    """

    def __init__(self, state, first=None):
        self.level = state.setdefault("level", dict.fromkeys(LARGEST, 1) | (first or {}))
        self.met = state.setdefault("met", dict.fromkeys(LARGEST, 0.0))

    def size(self, task, random):
        return int(random.integers(1, min(LARGEST[task], self.level[task] + AHEAD) + 1))

    def skipped(self, task, size, random):
        """Iterations without gradient: up to the level, and now and then many, so that answers stay."""
        done = size + 2
        if self.level[task] > done and random.random() < 0.1:
            return int(random.integers(done, MOST_SKIPPED))
        return int(random.integers(0, min(self.level[task], done) + 1)) if random.random() < 0.7 else 0

    def update(self, task, met):
        self.met[task] += 0.1 * (met - self.met[task])
        if self.met[task] > KNOWN_WELL and self.level[task] < LARGEST[task] + 3:
            self.level[task] += 1
            self.met[task] = KNOWN_WELL - 0.05
