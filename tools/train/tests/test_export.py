"""The engine computes from an exported folder what PyTorch computes. Needs torch, and WINDLASS_PROGRAM."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
PROGRAM = os.environ.get("WINDLASS_PROGRAM")
PROMPT = "ab bc;axc="


@unittest.skipUnless(PROGRAM and importlib.util.find_spec("torch"), "needs torch and WINDLASS_PROGRAM")
class Exported(unittest.TestCase):
    def test_the_engine_agrees_with_the_training(self):
        import torch

        from export import write_folder
        from network import Huginn, Shape
        from vocabulary import BEGIN, encode

        torch.manual_seed(3)
        model = Huginn(Shape())
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name or "ln_f" in name or "qk_bias" in name:
                    weight.add_(0.1 * torch.randn_like(weight))
                weight.copy_(weight.bfloat16())
        ids = torch.tensor([[BEGIN, *encode(PROMPT)]])
        for depth in (1, 5):
            with torch.no_grad():
                context = model.prepare(ids.shape[1], torch.float32, "cpu")
                embedding = model.embed(ids, context)
                latent = model.initial_latent(embedding, 0)
                for _ in range(depth):
                    latent = model.iterate(latent, embedding, context)
                expected = model.read(latent, context)[0, -1]
            with tempfile.TemporaryDirectory() as folder:
                write_folder(Path(folder), Shape(), dict(model.named_parameters()))
                actual = torch.tensor(logits_of(folder, depth))
            self.assertLess((actual - expected).abs().max(), 1e-4 * expected.abs().max())


def logits_of(folder, depth):
    arguments = ["generate", "--model", folder, "--prompt", PROMPT, "--depth", f"fixed:{depth}", "--init-scale", "0"]
    command = [PROGRAM, *arguments, "--max-tokens", "1", "--logits"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["logits"]


if __name__ == "__main__":
    unittest.main()
