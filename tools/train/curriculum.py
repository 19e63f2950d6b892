"""How large the puzzles are: larger as soon as it goes well."""

LARGEST = {"chain": 10, "arithmetic": 12, "addition": 8}
KNOWN_WELL = 0.93
SPARE = 3  # levels above the largest size, so that its answers are due before the level too (pool.py)
AHEAD = 2  # how much larger puzzles may be than what is known well


class Curriculum:
    """Per task a level, which rises whenever the share of targets met is high. It lives in a run's `state`.

    Levels begin at 1, or where `first` says.
    """

    def __init__(self, state, first=None):
        self.level = state.setdefault("level", dict.fromkeys(LARGEST, 1) | (first or {}))
        self.met = state.setdefault("met", dict.fromkeys(LARGEST, 0.0))

    def size(self, task, random):
        return int(random.integers(1, min(LARGEST[task], self.level[task] + AHEAD) + 1))

    def update(self, task, met):
        self.met[task] += 0.1 * (met - self.met[task])
        if self.met[task] > KNOWN_WELL and self.level[task] < LARGEST[task] + SPARE:
            self.level[task] += 1
            self.met[task] = KNOWN_WELL - 0.05
