"""The Huginn network in PyTorch, for training: parameters under the names of the published format."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-6


@dataclass(frozen=True)
class Shape:
    """Sizes of a network; the names are those of `config.json`."""

    n_embd: int = 128
    n_heads: int = 4
    intermediate_size: int = 352
    vocab_size: int = 64
    block_size: int = 256
    rope_base: float = 50_000
    prelude: int = 1
    core: int = 2
    coda: int = 1

    @property
    def head_dim(self):
        return self.n_embd // self.n_heads


def rms_norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, EPSILON)


class Product(nn.Linear):
    """A matrix without bias, applied in the dtype of what it is applied to."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width = shape.n_embd
        self.heads, self.head_dim = shape.n_heads, shape.head_dim
        self.Wqkv = Product(width, 3 * width)
        self.proj = Product(width, width)
        self.qk_bias = nn.Parameter(torch.zeros(2, 1, shape.n_heads, shape.head_dim))

    def forward(self, x, rotation, mask):
        """x [batch, positions, width] in the products' dtype; rotation: cosines and signed sines, [positions, 1, 1, head_dim]."""
        batch, positions, width = x.shape
        qkv = self.Wqkv(x).view(batch, positions, 3, self.heads, self.head_dim)
        turned = rotate(qkv[:, :, :2].float() + self.qk_bias.transpose(0, 1), rotation)
        query, key = turned.to(x.dtype).permute(2, 0, 3, 1, 4).unbind(0)
        value = qkv[:, :, 2].transpose(1, 2)
        scores = (query * self.head_dim**-0.5) @ key.transpose(-1, -2) + mask
        mixed = scores.softmax(-1, torch.float32).to(x.dtype) @ value
        return self.proj(mixed.transpose(1, 2).reshape(batch, positions, width))


class GatedMlp(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.fc = Product(shape.n_embd, 2 * shape.intermediate_size)
        self.proj = Product(shape.intermediate_size, shape.n_embd)

    def forward(self, x):
        gate, up = self.fc(x).chunk(2, -1)
        return self.proj(F.silu(gate) * up)


class SandwichBlock(nn.Module):
    """A layer: each second norm acts after the residual sum. Products in `dtype`, sums and norms in f32."""

    def __init__(self, shape):
        super().__init__()
        for index in range(1, 5):
            self.register_module(f"norm_{index}", Norm(shape.n_embd))
        self.attn = Attention(shape)
        self.mlp = GatedMlp(shape)

    def forward(self, x, rotation, mask):
        x = self.norm_2(self.attn(self.norm_1(x).to(mask.dtype), rotation, mask) + x)
        return self.norm_4(self.mlp(self.norm_3(x).to(mask.dtype)) + x)


def rotate(x, rotation):
    """Rotary embedding of adjacent pairs."""
    cosine, sine = rotation
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cosine + swapped * sine


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return rms_norm(x.float(), self.weight)


class Huginn(nn.Module):
    """The whole network. `embed` once, `iterate` as often as wanted, `read` whenever an answer is needed."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        stack = lambda count: nn.ModuleList(SandwichBlock(shape) for _ in range(count))
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(shape.vocab_size, shape.n_embd),
            "prelude": stack(shape.prelude),
            "adapter": Product(2 * shape.n_embd, shape.n_embd),
            "core_block": stack(shape.core),
            "coda": stack(shape.coda),
            "ln_f": Norm(shape.n_embd),
        })
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Random weights as the published models began: small, and smaller where a residual sum is fed."""
        deviation = math.sqrt(2 / (5 * self.shape.n_embd))
        layers = self.shape.prelude + self.shape.coda + 16 * self.shape.core
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                scale = deviation / math.sqrt(2 * layers) if name.endswith("proj.weight") else deviation
                nn.init.trunc_normal_(weight, 0, scale, -3 * scale, 3 * scale)

    def angles(self, positions, device):
        """The rotation of each position and pair of a head's dimensions, [positions, head_dim / 2]."""
        half = torch.arange(0, self.shape.head_dim, 2, device=device) / self.shape.head_dim
        return torch.arange(positions, device=device)[:, None] * self.shape.rope_base**-half

    def compile(self):
        """Makes iterating and reading faster, after a minute of compiling."""
        self.iterate = torch.compile(self.iterate, dynamic=True)
        self.read = torch.compile(self.read, dynamic=True)

    def prepare(self, positions, dtype, device):
        """What every layer needs: the rotary embedding and the causal mask, which also carries the products' dtype."""
        angles = self.angles(positions, device)
        angles = angles.repeat_interleave(2, -1)[:, None, None]
        sign = torch.tensor([-1.0, 1.0], device=device).repeat(self.shape.head_dim // 2)
        rotation = angles.cos(), sign * angles.sin()
        mask = torch.full((positions, positions), float("-inf"), dtype=dtype, device=device).triu(1)
        return rotation, mask

    def embed(self, ids, context):
        x = self.transformer.wte(ids) * math.sqrt(self.shape.n_embd)
        for block in self.transformer.prelude:
            x = block(x, *context)
        return x

    def initial_latent(self, embedding, scale, generator=None):
        if scale == 0:
            return torch.zeros_like(embedding)
        deviation = math.sqrt(2 / (5 * self.shape.n_embd)) * scale
        latent = torch.empty_like(embedding)
        nn.init.trunc_normal_(latent, 0, deviation, -3 * deviation, 3 * deviation, generator=generator)
        return latent * math.sqrt(self.shape.n_embd)

    def iterate(self, latent, embedding, context):
        x = self.transformer.adapter(torch.cat([latent, embedding], -1).to(context[1].dtype)).float()
        for block in self.transformer.core_block:
            x = block(x, *context)
        return x

    def read(self, latent, context):
        """Logits [batch, positions, vocabulary] in f32."""
        x = self.transformer.ln_f(latent)
        for block in self.transformer.coda:
            x = block(x, *context)
        head = self.transformer.wte.weight.to(context[1].dtype)
        return F.linear(self.transformer.ln_f(x).to(head.dtype), head).float()
