"""What the windows of training look at, over a few thousand of them."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from curriculum import LARGEST, Curriculum
from pool import DEEPEST, KEPT, STAYING, WINDOW, Pool

WINDOWS = 4000


def windows(level, task="arithmetic", seed=1):
    """(size, iterations before the window, whether it is thought about) of each window, and the batches it is of."""
    pool = Pool(task, 2, Curriculum({"level": dict.fromkeys(LARGEST, level)}), *map(np.random.default_rng, (seed, seed + 1)))
    for _ in range(WINDOWS):
        ongoing = pool.next()
        yield ongoing, (ongoing.size, ongoing.step, ongoing.is_thinking)
        ongoing.step += WINDOW
        pool.sort(ongoing)
        assert max(len(pool.thinking), len(pool.staying)) <= KEPT


def seen(**arguments):
    return [window for _, window in windows(**arguments)]


class Windows(unittest.TestCase):
    def test_a_task_that_is_known_is_thought_about_as_often_as_planned(self):
        thinking = np.mean([is_thinking for *_, is_thinking in seen(level=15)])
        self.assertAlmostEqual(thinking, 1 - STAYING, delta=0.03)

    def test_answers_stay_until_the_deepest_iteration_and_no_longer(self):
        deepest = max(step for _, step, _ in seen(level=15))
        self.assertTrue(DEEPEST - WINDOW <= deepest < DEEPEST + WINDOW, deepest)

    def test_only_what_is_known_well_has_to_stay(self):
        for level in range(1, 8):
            for size, step, is_thinking in seen(level=level):
                self.assertTrue(is_thinking or size + 2 < level)
                self.assertTrue(not is_thinking or step <= level + WINDOW)

    def test_windows_begin_at_every_iteration_up_to_the_answer(self):
        begins = {(size, step) for size, step, is_thinking in seen(level=15) if is_thinking}
        self.assertEqual(begins, {(size, step) for size in range(1, LARGEST["arithmetic"] + 1) for step in range(size + 2)})

    def test_a_batch_goes_on_where_it_was(self):
        last = {}
        for ongoing, (_, step, _) in windows(level=15):
            self.assertEqual(step, last.get(ongoing, step % WINDOW))
            last[ongoing] = step + WINDOW

    def test_all_processes_look_at_the_same_layouts(self):
        for task in LARGEST:
            curriculum = Curriculum({"level": dict.fromkeys(LARGEST, 6)})
            pools = [Pool(task, 2, curriculum, np.random.default_rng(1), np.random.default_rng([1, rank])) for rank in range(2)]
            for _ in range(200):
                batches = [pool.next() for pool in pools]
                self.assertEqual(*(batch.batch.ids.shape for batch in batches))
                self.assertEqual(*(batch.step for batch in batches))
                for batch, pool in zip(batches, pools):
                    batch.step += WINDOW
                    pool.sort(batch)


if __name__ == "__main__":
    unittest.main()
