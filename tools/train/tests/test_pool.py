"""What the windows of training look at, over a few thousand of them."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from curriculum import LARGEST, Curriculum
from pool import DEEPEST, KEPT, STAYING, WINDOW, Pool

WINDOWS = 4000


def pool_of(task, level, own=(1, 1)):
    return Pool(task, 2, Curriculum({"level": dict.fromkeys(LARGEST, level)}), np.random.default_rng(1), np.random.default_rng(own))


def windows(level, task="arithmetic"):
    """Each window's batch, and the iterations before it."""
    pool = pool_of(task, level)
    for _ in range(WINDOWS):
        ongoing = pool.next()
        yield ongoing, ongoing.depth
        ongoing.depth += WINDOW
        pool.put_back(ongoing)
        assert max(len(pool.thinking), len(pool.staying)) <= KEPT


class Windows(unittest.TestCase):
    def test_a_task_that_is_known_is_thought_about_as_often_as_planned(self):
        thinking = np.mean([depth < ongoing.due for ongoing, depth in windows(level=15)])
        self.assertAlmostEqual(thinking, 1 - STAYING, delta=0.03)

    def test_answers_stay_until_the_deepest_iteration_and_no_longer(self):
        deepest = max(depth for _, depth in windows(level=15))
        self.assertTrue(DEEPEST - WINDOW <= deepest < DEEPEST + WINDOW, deepest)

    def test_only_what_is_known_well_has_to_stay(self):
        for level in range(1, 8):
            staying = {ongoing.due for ongoing, depth in windows(level) if depth >= ongoing.due}
            self.assertEqual(staying, set(range(2, level)))

    def test_windows_begin_at_every_iteration_up_to_the_answer(self):
        begins = {(ongoing.due, depth) for ongoing, depth in windows(level=15) if depth < ongoing.due}
        self.assertEqual(begins, {(due, depth) for due in range(2, LARGEST["arithmetic"] + 2) for depth in range(due)})

    def test_all_processes_look_at_the_same_layouts_and_not_at_the_same_puzzles(self):
        for task in LARGEST:
            pools = [pool_of(task, 6, (1, 1 + rank)) for rank in range(2)]
            for _ in range(200):
                first, second = (pool.next() for pool in pools)
                self.assertEqual(first.batch.ids.shape, second.batch.ids.shape)
                self.assertEqual((first.depth, first.scale), (second.depth, second.scale))
                self.assertFalse((first.batch.ids == second.batch.ids).all())
                for ongoing, pool in zip((first, second), pools):
                    ongoing.depth += WINDOW
                    pool.put_back(ongoing)


if __name__ == "__main__":
    unittest.main()
