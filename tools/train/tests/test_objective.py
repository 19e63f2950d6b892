"""A window goes on where the one before it ended. Needs torch."""

import importlib.util
import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))


@unittest.skipUnless(importlib.util.find_spec("torch"), "needs torch")
class Windows(unittest.TestCase):
    def setUp(self):
        import torch

        from network import Huginn, Shape
        from tasks import arithmetic

        torch.manual_seed(3)
        self.model, self.batch = Huginn(Shape()), arithmetic(np.random.default_rng(1), 4, 3)

    def window(self, ongoing):
        import torch

        from objective import objective

        return objective(self.model, ongoing, 0.1, torch.float32, torch.device("cpu"))

    def latent_after(self, depth):
        import torch

        with torch.no_grad():
            ids = torch.as_tensor(self.batch.ids)
            context = self.model.prepare(ids.shape[1], torch.float32, "cpu")
            embedding = self.model.embed(ids, context)
            latent = torch.zeros_like(embedding)
            for _ in range(depth):
                latent = self.model.iterate(latent, embedding, context)
            return latent

    def test_two_windows_are_eight_iterations(self):
        from pool import WINDOW, Ongoing

        for first in range(WINDOW):
            ongoing = Ongoing(self.batch, depth=first, scale=0.0)
            for count in range(1, 3):
                loss, _ = self.window(ongoing)
                self.assertTrue(loss.requires_grad and not ongoing.latent.requires_grad)
                self.assertEqual(ongoing.depth, first + count * WINDOW)
                self.assertLess((ongoing.latent - self.latent_after(ongoing.depth)).abs().max(), 1e-5)

    def test_behind_the_answer_the_last_targets_count(self):
        from pool import Ongoing

        latent = self.latent_after(40)
        facts = []
        for depth in (len(self.batch.targets) - 1, 40):
            ongoing = Ongoing(self.batch, depth=depth, scale=0.0, latent=latent)
            facts.append(self.window(ongoing)[1])
        self.assertEqual(facts[0][0], facts[1][0])
        self.assertEqual(facts[0][2], facts[1][2])


if __name__ == "__main__":
    unittest.main()
