"""A training step of TopK dictionaries, against a plain torch loop and, where it is installed, SAELens."""

import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import cycle

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._timing import Case
from learning_geometry.dictionaries import topk
from learning_geometry.seeding import seeded

WIDTH, BATCH, ACTIVE, RATE = 576, 512, 32, 1e-3
SIZES = (1152, 9216)
"""Latents: the largest dictionary of the default run, and one of 16 times the width."""
BATCHES = 8
"""Batches that are drawn beforehand and used again and again."""
NEVER = 10**12
TOLERANCE = 1e-3
"""Relative difference of the losses of the first steps."""

Step = Callable[[Tensor], float]


def cases(small: bool) -> list[Case]:
    """Return the cases with batches of 512 vectors of width 576, or of 8 of width 6."""
    peers = {"a plain torch loop": plain_loop}
    if find_spec("sae_lens"):
        peers["SAELens"] = saelens
    else:
        print("sae training: SAELens is not installed, and its rows are left out", file=sys.stderr)
    width, batch, k = (6, 8, 2) if small else (WIDTH, BATCH, ACTIVE)
    all_cases = []
    for latents in (size // 96 if small else size for size in SIZES):
        vectors = correlated(BATCHES * batch, width, latents)
        batches = list(vectors.split(batch))
        start = topk.initialise(vectors, latents, seeded("start"))
        settings = topk.Settings(k=k, learning_rate=RATE)
        name = f"sae training, {latents} latents"
        for peer, make in peers.items():
            check(f"{name}: {peer}", ours(start, settings, vectors), make(start, settings, vectors), batches)
            mine, theirs = (each(start, settings, vectors) for each in (ours, make))
            all_cases.append(Case(name, peer, repeated(mine, batches), repeated(theirs, batches)))
    return all_cases


def correlated(vectors: int, width: int, latents: int) -> Tensor:
    """Return scaled vectors whose variances fall off like those of activations, at least as many as latents."""
    generator = seeded("vectors")
    drawn = generator.standard_normal((max(vectors, latents), width)) / np.sqrt(np.arange(1, width + 1))
    turn = np.linalg.qr(generator.standard_normal((width, width)))[0]
    unscaled = torch.from_numpy((drawn @ turn + 0.1).astype(np.float32))
    return unscaled * topk.scale_factor(unscaled)


def repeated(step: Step, batches: list[Tensor]) -> Callable[[], float]:
    turns = cycle(batches)
    return lambda: step(next(turns))


def ours(start: topk.Dictionary, settings: topk.Settings, vectors: Tensor) -> Step:
    training, spread = topk.begin(start, settings), topk.variance(vectors)
    return lambda batch: spread * topk.step(training, batch, batch, spread)


class PlainAutoencoder(nn.Module):
    """A TopK autoencoder as one would write it."""

    def __init__(self, latents: int, width: int, k: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.k = nn.Linear(width, latents), nn.Linear(latents, width), k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, where = self.encoder(x).topk(self.k, dim=-1)
        latents = torch.zeros(len(x), self.encoder.out_features).scatter(1, where, values)
        return self.decoder(latents), latents


def plain_loop(start: topk.Dictionary, settings: topk.Settings, vectors: Tensor) -> Step:
    """Return the same step by autograd, with what all of them count: latents that were silent."""
    latents, width = start["decoder.weight"].shape
    model = PlainAutoencoder(latents, width, settings.k)
    model.load_state_dict(start | {"decoder.weight": start["decoder.weight"].T})
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    silent = torch.zeros(latents, dtype=torch.int64)
    spread = topk.variance(vectors)

    def step(batch: Tensor) -> float:
        nonlocal silent
        reconstructed, codes = model(batch)
        loss = (batch - reconstructed).square().sum(1).mean() / spread
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            weight = model.decoder.weight
            weight.grad -= (weight.grad * weight).sum(0) * weight
            optimizer.step()
            weight /= weight.norm(dim=0)
        silent = torch.where((codes != 0).any(0), 0, silent + len(batch))
        return spread * loss.item()

    return step


def saelens(start: topk.Dictionary, settings: topk.Settings, vectors: Tensor) -> Step:
    """Return the step of SAELens' trainer, without logging; its gradients are clipped, its rows keep no norm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer
    latents, width = start["decoder.weight"].shape
    model = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=width, d_sae=latents, k=settings.k, apply_b_dec_to_input=False))
    with torch.no_grad():
        model.W_enc.copy_(start["encoder.weight"].T)
        model.b_enc.copy_(start["encoder.bias"])
        model.W_dec.copy_(start["decoder.weight"])
        model.b_dec.copy_(start["decoder.bias"])
    configuration = SAETrainerConfig(
        total_training_samples=NEVER,
        train_batch_size_samples=BATCH,
        lr=settings.learning_rate,
        lr_end=settings.learning_rate,
        dead_feature_window=NEVER,
    )
    trainer = SAETrainer(cfg=configuration, sae=model, data_provider=iter(()))
    return lambda batch: trainer.step(batch).losses["mse_loss"].item()


def check(name: str, mine: Step, theirs: Step, batches: list[Tensor]) -> None:
    """Raise ArithmeticError if the other does not start with our loss; print how far it goes on like ours."""
    losses = np.array([[step(batch) for step in (mine, theirs)] for batch in batches[:4]])
    relative = np.abs(losses[:, 1] / losses[:, 0] - 1)
    print(f"{name}: losses within {relative[0]:.1e} at first, {relative.max():.1e} in four steps", file=sys.stderr)
    if not relative[0] <= TOLERANCE:
        raise ArithmeticError(f"{name}: its first loss is {losses[0, 1]:.6g}, ours {losses[0, 0]:.6g}")
