"""Whether the weights of different layers write along the same directions, and whether the layers' increments do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64
from scipy.special import betaincinv

from learning_geometry.failures import row
from learning_geometry.geometry.increments import increments, share_within
from learning_geometry.geometry.shared_directions import (
    output_rank,
    output_subspace,
    rows_permuted,
    spectral_overlaps,
    subspace_overlaps,
)
from learning_geometry.geometry.uncertainty import interval
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {"reads": ["model", "prompts"], "pairs": {"always": 2}}
"""Of pairs: of one there is no interval."""

SETTINGS = {
    "rank": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.1,
        "description": "Dimension of every subspace, as a share of the width of the residual stream.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 1,
        "default": 2,
        "description": "Times that the entries of all weights are permuted; each costs as much as the measurement.",
    },
}

OUTPUT, DOWN = ROLES = ("output", "down")
"""W_O, which attention writes with, and W_down, which the MLP writes with."""

OVERLAPS = ("output_overlap", "spectral_overlap")
RANDOM = {"output_overlap": "random_subspaces", "spectral_overlap": "spectra_matched"}
"""Name of the null that has no preferred directions at all, of each overlap."""
PERMUTED = "rows_permuted"

NO_VARIANCE = 1e-15
"""Variance of a share up to which every draw is the same."""

Numbers = Float64[np.ndarray, " pairs"] | float


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Compare W_O and W_down of all layers, and what each layer adds with what the weights before it share.

    Where a root-mean-square norm stands between a weight and the residual stream, what is compared is diag(n) W with n
    what the norm multiplies coordinates by: the directions of what is added are those of this product.

    Rows, of part ``layers.<l>.output`` (W_O of layer l) or ``layers.<l>.down`` (W_down), in [0, 1]:

    - ``output_overlap``, data ``output`` or ``down``, index m: mean squared cosine of the principal angles between the
      top k output directions of this weight and of that weight of layer m; k = rank times the width, rounded;
    - ``spectral_overlap``, likewise: cosine of W Wᵀ and V Vᵀ as vectors, which needs no k;
    - ``mean_output_overlap`` and ``mean_spectral_overlap``: their means over the weights of all other layers (n), data
      ``output`` or ``down`` over those alone, "" over both. Layers are no sample of anything, so there is no interval.

    And of part ``layers.<l>`` from layer 1 on, data = contrast: ``increment_share``, the share of the squared norm of
    what the layer adds to the residual stream at the last token of a prompt that lies in the k directions which W_O and
    W_down of the layers before it share most; mean over all prompts of both sets. n = contrast pairs, [low, high] the
    95 % interval over them.

    Nulls, of all of them:

    - ``random_subspaces`` (of the spectral overlap: ``spectra_matched``): uniformly random directions with the same
      spectra. Mean and variance are exact, the range is that of a Beta distribution with them;
    - ``rows_permuted``: the entries of each row of all weights permuted with random signs, so that weights still write
      more to some coordinates than to others, and share no more than these. The range of two draws or few more is wide,
      and cut to [0, 1]. Permuted weights have flatter spectra, and flat spectra overlap, whatever is shared: for the
      spectral overlap this null is a high one.

    A weight that writes along fewer than k directions, such as one of zeros, has no top k, and a layer that adds
    nothing has no share: of each there is one row ``not_measured`` instead, and no other row counts it.

    Raises:
        ValueError: the model has one layer, a weight is not finite, fewer than two layers can be compared, or an MLP is
            a mixture of experts.
    """
    model = run.load()
    layers, width = model.sizes.layers, model.sizes.width
    if layers < 2:
        raise ValueError(f"{run.experiment}: its model has one layer, which shares directions with no other")
    rank = max(1, round(settings["rank"] * width))
    weights: dict[str, list[np.ndarray]] = {role: [] for role in ROLES if role == OUTPUT or model.sizes.mlp_width}
    for layer in range(layers):
        of_layer = model.layer_weights(layer)
        for role, matrices in weights.items():
            weight, norm = getattr(of_layer, role), getattr(of_layer, f"{role}_norm")
            if weight is None:
                raise ValueError(
                    f"{run.experiment}: the MLP of layer {layer} is a mixture of experts, each with a W_down of its "
                    "own, which are not compared; leave shared_directions out"
                )
            weight = weight.float() if norm is None else norm.float()[:, None] * weight.float()
            matrices.append(weight.cpu().numpy())
    del model
    written = {role: np.array([output_rank(weight) for weight in matrices]) for role, matrices in weights.items()}
    defined = {role: output_ranks >= rank for role, output_ranks in written.items()}
    if np.sum(np.any(list(defined.values()), axis=0)) < 2:
        raise ValueError(
            f"{run.experiment}: fewer than two layers have a weight that writes along {rank} directions or more; lower "
            "shared_directions.rank"
        )
    lacking = [
        row(f"layers.{layer}.{role}", f"{of_role[layer]} directions are written along, and {rank} are compared")
        for role, of_role in written.items()
        for layer in np.flatnonzero(~defined[role])
    ]
    measured, bases = compared(weights, rank, defined)
    nulls, null_bases = [], []
    for draw in range(settings["null_draws"]):
        generator = seeded("shared_directions", "rows_permuted", draw)
        permuted = {
            role: [rows_permuted(weight, generator) for weight in matrices] for role, matrices in weights.items()
        }
        of_draw, bases_of_draw = compared(permuted, rank, defined)
        nulls.append(of_draw)
        null_bases.append(bases_of_draw)
    ratios = {
        "output_overlap": {role: np.full(layers, float(rank)) for role in weights},
        "spectral_overlap": {
            role: np.array(
                [participation(each) if there else np.nan for each, there in zip(matrices, defined[role], strict=True)]
            )
            for role, matrices in weights.items()
        },
    }
    rows: list[dict[str, Any]] = []
    for quantity in OVERLAPS:
        draws = np.stack([each[quantity] for each in nulls])
        rows += _overlap_rows(quantity, measured[quantity], draws, ratios[quantity], width, defined)
    rows += _increment_rows(run, bases, null_bases, rank) + lacking
    return tidy([{"step": 0} | each for each in rows], run.experiment, 0)


def compared(
    weights: Mapping[str, Sequence[Float[np.ndarray, "width _"]]],
    rank: int,
    defined: Mapping[str, Bool[np.ndarray, " layers"]] | None = None,
) -> tuple[dict[str, Float64[np.ndarray, "weights weights"]], dict[str, Float64[np.ndarray, "layers width rank"]]]:
    """Return both overlaps between all weights, role by role, and the output subspaces of each role.

    Args:
        weights: role -> weight of each layer.
        rank: of the subspaces.
        defined: role -> whether the weight of each layer has that many directions; all have, if it is not given. Of the
            others overlaps are NaN, and bases are zero, which spans nothing.
    """
    if defined is None:
        defined = {role: np.ones(len(matrices), bool) for role, matrices in weights.items()}
    there = np.concatenate([defined[role] for role in weights])
    every = [weight for matrices in weights.values() for weight in matrices]
    chosen = [weight for weight, is_there in zip(every, there, strict=True) if is_there]
    of_chosen = np.stack([output_subspace(weight, rank) for weight in chosen])
    every_basis = np.zeros((len(every), *of_chosen.shape[1:]))
    every_basis[there] = of_chosen
    overlaps = {}
    for quantity, between_chosen in (
        ("output_overlap", subspace_overlaps(of_chosen)),
        ("spectral_overlap", spectral_overlaps(chosen)),
    ):
        overlaps[quantity] = np.full((len(every), len(every)), np.nan)
        overlaps[quantity][np.ix_(there, there)] = between_chosen
    ends = np.cumsum([len(matrices) for matrices in weights.values()])[:-1]
    return overlaps, dict(zip(weights, np.split(every_basis, ends), strict=True))


def participation(weight: Float[np.ndarray, "width inputs"]) -> float:
    r"""Participation ratio of the squared singular values, $\operatorname{tr}(W W^\top)^2 / \|W W^\top\|^2$.

    >>> participation(np.diag([2.0, 2.0, 0.0]))
    2.0
    """
    exact = weight.astype(np.float64)
    return float(np.sum(exact**2) ** 2 / np.sum((exact @ exact.T) ** 2))


def rotation_null(first: Numbers, second: Numbers, width: int) -> tuple[Numbers, Numbers]:
    r"""Mean and variance of the cosine of A and Q B Qᵀ for positive semi-definite A and B and Haar-random Q; exact.

    Symmetric matrices without trace are irreducible under rotation, with dimension (d - 1)(d + 2) / 2, so that by
    Schur's lemma $E \langle A_0, Q B_0 Q^\top \rangle^2 = 2 \|A_0\|^2 \|B_0\|^2 / ((d - 1)(d + 2))$.

    Args:
        first: participation ratio tr(A)² / ‖A‖² of A; k of the projector on k dimensions.
        second: of B.
        width: d, from 2.

    Two random lines in the plane: cos² has mean 1/2 and variance 1/8:

    >>> [round(float(value), 3) for value in rotation_null(1.0, 1.0, 2)]
    [0.5, 0.125]
    """
    one, other = first / width, second / width
    variance = 2 * (1 - one) * (1 - other) / ((width - 1) * (width + 2))
    return np.sqrt(one * other), np.maximum(variance, 0.0)


def random_row(null: str, mean: Numbers, variance: Numbers) -> dict[str, Any]:
    """Return the columns of a null row from the exact mean and variance of a share: its range is a Beta's.

    >>> row = random_row("uniform", 0.5, 1 / 12)
    >>> [round(float(row[name]), 4) for name in ("value", "low", "high")]
    [0.5, 0.025, 0.975]
    """
    spread = np.asarray(variance) > NO_VARIANCE
    size = mean * (1 - mean) / np.where(spread, variance, 1.0) - 1
    low, high = (
        np.where(spread, betaincinv(mean * size, (1 - mean) * size, share), mean)[()] for share in (0.025, 0.975)
    )
    return {"null": null, "value": mean, "low": low, "high": high}


def shares_in_earlier(
    added: Float[np.ndarray, "layers samples width"],
    bases: Mapping[str, Float[np.ndarray, "layers width _"]],
    rank: int,
) -> Float64[np.ndarray, "later samples"]:
    """Return the share of what each layer but the first adds within what the weights of all layers before it share.

    As ``increments.shares_in_previous``, with several subspaces a layer, and each projector added up once.
    """
    width = added.shape[-1]
    projectors = np.zeros((width, width))
    shares = np.empty((len(added) - 1, added.shape[1]))
    for layer in range(1, len(added)):
        for of_role in bases.values():
            projectors += of_role[layer - 1] @ of_role[layer - 1].T
        shares[layer - 1] = share_within(added[layer], np.linalg.eigh(projectors)[1][:, -rank:])
    return shares


def _overlap_rows(
    quantity: str,
    overlaps: Float64[np.ndarray, "weights weights"],
    draws: Float64[np.ndarray, "draws weights weights"],
    ratios: Mapping[str, Float64[np.ndarray, " layers"]],
    width: int,
    defined: Mapping[str, Bool[np.ndarray, " layers"]],
) -> list[dict[str, Any]]:
    """Rows of one overlap, pair by pair and its means, each with its nulls."""
    rows: list[dict[str, Any]] = []
    layers = len(next(iter(ratios.values())))
    every = np.concatenate(list(ratios.values()))
    owner = np.tile(np.arange(layers), len(ratios))
    role_of = np.repeat(list(ratios), layers)
    there = np.concatenate([defined[role] for role in ratios])
    for this, (layer, role) in enumerate(zip(owner.tolist(), role_of.tolist(), strict=True)):
        if not there[this]:
            continue
        part = f"layers.{layer}.{role}"
        for data in ratios:
            others = np.flatnonzero(there & (role_of == data) & (np.arange(len(every)) != this))
            if not len(others):
                continue
            columns = {"part": part, "quantity": quantity, "data": data, "index": owner[others]}
            mean, variance = rotation_null(every[this], every[others], width)
            rows += [
                columns | {"value": overlaps[this, others]},
                columns | random_row(RANDOM[quantity], mean, variance),
                columns | _permuted(draws[:, this, others]),
            ]
        for data in ("", *ratios):
            others = np.flatnonzero(there & (owner != layer) & ((role_of == data) | (data == "")))
            if not len(others):
                continue
            columns = {"part": part, "quantity": f"mean_{quantity}", "data": data}
            # rotated independently, overlaps with one weight are uncorrelated
            mean, variance = rotation_null(every[this], every[others], width)
            rows += [
                columns | {"value": float(overlaps[this, others].mean()), "n": len(others)},
                columns | random_row(RANDOM[quantity], float(np.mean(mean)), float(np.mean(variance)) / len(others)),
                columns | _permuted(draws[:, this, others].mean(1)),
            ]
    return rows


def _permuted(draws: Float64[np.ndarray, "draws *pairs"]) -> dict[str, Any]:
    columns = central_range(draws, PERMUTED)
    return columns | {end: np.clip(columns[end], 0.0, 1.0) for end in ("low", "high")}


def _increment_rows(
    run: LanguageRun,
    bases: Mapping[str, Float64[np.ndarray, "layers width rank"]],
    null_bases: Sequence[Mapping[str, Float64[np.ndarray, "layers width rank"]]],
    rank: int,
) -> list[dict[str, Any]]:
    names = [name for name in run.prompt_names() if name.endswith(".residual_pre")]
    names.append(f"layers.{len(names) - 1}.residual_post")
    added = increments(np.stack([run.prompt_states("trained", name) for name in names]))
    width = added.shape[-1]
    shares = shares_in_earlier(added, bases, rank)
    permuted = np.stack([shares_in_earlier(added, of_draw, rank) for of_draw in null_bases])
    norms = np.linalg.norm(added, axis=-1)
    least = norms.max() * np.finfo(np.float32).eps
    written = np.cumsum(np.sum([np.abs(each).sum((1, 2)) for each in bases.values()], axis=0)) > 0
    rows: list[dict[str, Any]] = []
    for contrast, (first, second) in run.contrasts.items():
        pairs = (shares[:, first] + shares[:, second]) / 2
        both = np.r_[first, second]
        for layer in range(1, len(added)):
            if not written[layer - 1] or norms[layer, both].min() <= least:
                reason = "it adds nothing to some prompt" if written[layer - 1] else "no layer before it writes"
                rows.append(row(f"layers.{layer}", reason, contrast))
                continue
            columns = {"part": f"layers.{layer}", "quantity": "increment_share", "data": contrast}
            mean_share = interval(pairs[layer - 1])
            rows.append(
                columns
                | {"value": mean_share.estimate, "low": mean_share.low, "high": mean_share.high, "n": mean_share.n}
            )
            directions = added[layer, both]
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            # of the mean projector on the increments, which has trace 1
            of_directions = 1 / float(np.mean((directions @ directions.T) ** 2))
            mean, variance = rotation_null(of_directions, float(rank), width)
            scale = np.sqrt(rank / of_directions)
            rows.append(columns | random_row("random_subspaces", mean * scale, variance * scale**2))
            rows.append(columns | _permuted(permuted[:, layer - 1, both].mean(1)))
    return rows
