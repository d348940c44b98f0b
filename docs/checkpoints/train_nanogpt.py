"""A small run with the names and checkpoints of nanoGPT, a file for each evaluation; run it in a folder of its own.

python train_nanogpt.py 0      # the seed; writes out-0/ckpt_0.pt, ckpt_10.pt, ... and check.safetensors
"""

import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.ln_1, self.ln_2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.attn["c_attn"](self.ln_1(x)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.attn["c_proj"](mixed)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self, vocabulary, length, width=32, heads=2, layers=2):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, width),
                "wpe": nn.Embedding(length, width),
                "h": nn.ModuleList(Block(width, heads) for _ in range(layers)),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        for name, parameter in self.named_parameters():
            scale = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=scale)

    def forward(self, tokens):
        x = self.transformer["wte"](tokens) + self.transformer["wpe"].weight[: tokens.shape[1]]
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def main(seed, steps=100, every=10, length=32):
    torch.manual_seed(seed)
    text = torch.tensor(list(("the cat sat on the mat and the dog sat on the log. " * 40).encode())) - 32
    model = GPT(96, length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    out = Path(f"out-{seed}")
    out.mkdir(exist_ok=True)
    for step in range(steps + 1):
        if step % every == 0:
            arguments = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": length, "bias": True, "vocab_size": 96}
            checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "model_args": arguments}
            torch.save(checkpoint | {"iter_num": step}, out / f"ckpt_{step}.pt")
        starts = torch.randint(len(text) - length - 1, (16, 1))
        tokens = text[starts + torch.arange(length + 1)]
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if step < steps:
            optimizer.step()
    if seed == 0:
        with torch.no_grad():
            save_file({"tokens": tokens[:4, :-1].clone(), "logits": model(tokens[:4, :-1])}, "check.safetensors")
        test = text[torch.randint(len(text) - length - 1, (200, 1)) + torch.arange(length + 1)]
        test_set = {"in_distribution/tokens": test[:, :-1].clone(), "in_distribution/targets": test[:, 1:].clone()}
        save_file(test_set, "test_sets.safetensors")


if __name__ == "__main__":
    main(int(sys.argv[1]))
