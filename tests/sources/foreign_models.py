"""Models of other tools, written here by what their tools do, not by what a map says."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """As nanoGPT's: fused rows of query, key and value."""

    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width, bias=bias)
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(width, 3 * width, bias=bias), "c_proj": nn.Linear(width, width, bias=bias)}
        )
        self.ln_2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width, bias=bias), "c_proj": nn.Linear(4 * width, width, bias=bias)}
        )

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.attn["c_attn"](self.ln_1(x)).split(width, dim=2)
        q, k, v = (each.view(batch, length, self.heads, -1).transpose(1, 2) for each in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class NanoGPT(nn.Module):
    """As nanoGPT's GPT: names, a tied head, and ``bias`` for norms and linear layers together."""

    def __init__(self, vocabulary=16, length=12, width=8, heads=2, layers=2, bias=True):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, width),
                "wpe": nn.Embedding(length, width),
                "h": nn.ModuleList([Block(width, heads, bias) for _ in range(layers)]),
                "ln_f": nn.LayerNorm(width, bias=bias),
            }
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, tokens):
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](torch.arange(tokens.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def hooked_state(layers=2, heads=2, width=8, head_width=4, hidden=32, vocabulary=16, length=12, seed=0, rotary=False):
    """Names and shapes of TransformerLens 2's HookedTransformer, drawn at random."""
    shapes = {"embed.W_E": (vocabulary, width)}
    if not rotary:
        shapes["pos_embed.W_pos"] = (length, width)
    for layer in range(layers):
        name = f"blocks.{layer}"
        for norm in ("ln1", "ln2"):
            shapes |= {f"{name}.{norm}.w": (width,), f"{name}.{norm}.b": (width,)}
        for role in "QKV":
            shapes |= {
                f"{name}.attn.W_{role}": (heads, width, head_width),
                f"{name}.attn.b_{role}": (heads, head_width),
            }
        shapes |= {f"{name}.attn.W_O": (heads, head_width, width), f"{name}.attn.b_O": (width,)}
        shapes |= {f"{name}.mlp.W_in": (width, hidden), f"{name}.mlp.b_in": (hidden,)}
        shapes |= {f"{name}.mlp.W_out": (hidden, width), f"{name}.mlp.b_out": (width,)}
    shapes |= {"ln_final.w": (width,), "ln_final.b": (width,)}
    shapes |= {"unembed.W_U": (width, vocabulary), "unembed.b_U": (vocabulary,)}
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    for layer in range(layers):
        state[f"blocks.{layer}.attn.mask"] = torch.ones(length, length).tril().bool()
        state[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-math.inf)
    return state


def hooked_forward(state, tokens, layers=2, rotary=False):
    """HookedTransformer's forward pass, by einsum over heads as it is written there."""

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.w"] + state[f"{name}.b"]

    length = tokens.shape[1]
    x = state["embed.W_E"][tokens]
    if not rotary:
        x = x + state["pos_embed.W_pos"][:length]
    for layer in range(layers):
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        y = norm(x, f"blocks.{layer}.ln1")
        q, k, v = (
            torch.einsum("bpd,hde->bphe", y, state[f"{attn}.W_{role}"]) + state[f"{attn}.b_{role}"] for role in "QKV"
        )
        if rotary:
            q, k = halves_turned(q), halves_turned(k)
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(q.shape[-1])
        scores = torch.where(state[f"{attn}.mask"][:length, :length], scores, state[f"{attn}.IGNORE"])
        z = torch.einsum("bhqk,bkhe->bqhe", scores.softmax(-1), v)
        x = x + torch.einsum("bqhe,hed->bqd", z, state[f"{attn}.W_O"]) + state[f"{attn}.b_O"]
        hidden = F.gelu(norm(x, f"blocks.{layer}.ln2") @ state[f"{mlp}.W_in"] + state[f"{mlp}.b_in"])
        x = x + hidden @ state[f"{mlp}.W_out"] + state[f"{mlp}.b_out"]
    return norm(x, "ln_final") @ state["unembed.W_U"] + state["unembed.b_U"]


def halves_turned(x, base=10_000.0):
    """Rotary positions on pairs (j, j + width / 2), of (batch, position, head, width)."""
    width = x.shape[-1]
    angles = torch.arange(x.shape[1])[:, None] * base ** (-torch.arange(0, width, 2) / width)
    sine, cosine = angles.sin()[:, None], angles.cos()[:, None]
    low, high = x[..., : width // 2], x[..., width // 2 :]
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)
