"""A plain PyTorch loop of the arithmetic that Windlass runs, with random weights at the shape of Huginn-0125 in bf16, and what
the machine reaches at best: the bandwidth of a copy and the rate of a large product. Writes one JSON object a line.

    python tools/gpu_peer.py
"""

import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F

D, HEADS, FF, LAYERS, VOCABULARY, DEPTH = 5280, 55, 17920, (2, 4, 2), 65536, 32
HEAD_DIM = D // HEADS


class Layer:
    """A sandwich block with keys and values of one slot, as under ring(1): a static cache, written in place."""

    def __init__(self, rows, positions):
        def weight(outputs, inputs):
            return torch.randn(outputs, inputs, dtype=torch.bfloat16, device="cuda") * math.sqrt(2 / (5 * D))

        self.wqkv, self.proj = weight(3 * D, D), weight(D, D)
        self.fc, self.mlp_proj = weight(2 * FF, D), weight(D, FF)
        self.norms = [torch.ones(D, dtype=torch.bfloat16, device="cuda") for _ in range(4)]
        self.cache = torch.zeros(2, rows, HEADS, positions, HEAD_DIM, dtype=torch.bfloat16, device="cuda")

    def norm(self, x, index):
        return F.rms_norm(x, (D,), self.norms[index], 1e-6)

    def __call__(self, x, position, angles):
        rows = x.shape[0]
        q, k, v = (self.norm(x, 0) @ self.wqkv.T).view(rows, 3, HEADS, 1, HEAD_DIM).unbind(1)
        q, k = rotate(q, angles), rotate(k, angles)
        self.cache[0, :, :, position] = k[:, :, 0]
        self.cache[1, :, :, position] = v[:, :, 0]
        keys, values = self.cache[:, :, :, : position + 1]
        attended = F.scaled_dot_product_attention(q, keys, values).reshape(rows, D)
        x = self.norm(attended @ self.proj.T + x, 1)
        gate, up = (self.norm(x, 2) @ self.fc.T).chunk(2, dim=-1)
        return self.norm((F.silu(gate) * up) @ self.mlp_proj.T + x, 3)


def rotate(x, angles):
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * angles).flatten(-2).to(x.dtype)


@torch.no_grad()
def tokens_per_second(rows, tokens=4, prompt=4):
    positions = prompt + tokens
    prelude, core, coda = ([Layer(rows, positions) for _ in range(count)] for count in LAYERS)
    wte = torch.randn(VOCABULARY, D, dtype=torch.bfloat16, device="cuda") * 0.01
    adapter = torch.randn(D, 2 * D, dtype=torch.bfloat16, device="cuda") * 0.01
    final = torch.ones(D, dtype=torch.bfloat16, device="cuda")
    frequencies = 50_000.0 ** (-torch.arange(0, HEAD_DIM, 2, device="cuda").float() / HEAD_DIM)

    def step(token, position):
        angles = torch.polar(torch.ones_like(frequencies), position * frequencies)
        x = wte[token] * math.sqrt(D)
        for layer in prelude:
            x = layer(x, position, angles)
        embedding, state = x, torch.zeros_like(x)
        for _ in range(DEPTH):
            state = torch.cat([state, embedding], dim=-1) @ adapter.T
            for layer in core:
                state = layer(state, position, angles)
        y = F.rms_norm(state, (D,), final, 1e-6)
        for layer in coda:
            y = layer(y, position, angles)
        return (F.rms_norm(y, (D,), final, 1e-6) @ wte.T).argmax(-1)

    token = torch.zeros(rows, dtype=torch.long, device="cuda")
    for position in range(prompt):
        token = step(token, position)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for position in range(prompt, positions):
        token = step(token, position)
    torch.cuda.synchronize()
    return rows * tokens / (time.perf_counter() - start)


def seconds_of(operation, times=20):
    operation()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        operation()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="1,8,64,256")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU: nothing was measured")
    source = torch.zeros(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * source.numel() / seconds_of(lambda: target.copy_(source))
    del source, target
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = 2 * 8192**3 / seconds_of(lambda: a @ b)
    del a, b
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(json.dumps({**machine, "copy_bytes_per_second": copied, "bf16_operations_per_second": product}))
    for rows in map(int, arguments.rows.split(",")):
        print(json.dumps({"rows": rows, "depth": DEPTH, "tokens_per_second": tokens_per_second(rows)}), flush=True)
        torch.cuda.empty_cache()


main()
