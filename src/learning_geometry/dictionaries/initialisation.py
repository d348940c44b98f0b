r"""Where the training of a dictionary starts: {centred or not} × {subspace of its directions} × {tied or not}.

Decoder rows are unit vectors, uniform on the sphere of a subspace, times one norm: the whole space, the *active*
subspace of the data (spanned by its leading principal components), or a random subspace of the same dimension, which
tells what the active one owes to its dimension alone. ``active`` with everything else at its default is the published
recipe; ``none`` with norm 1 is :func:`topk.initialise`.

Source: Wang et al. 2025, "Attention layers add into low-dimensional residual subspaces" (arXiv:2508.16929). Two
differences: the norm is searched with the biases of the start, theirs with an encoder bias of 0 that is set afterwards;
and in training rows keep the norm (see :mod:`topk`), theirs may change it. That centring alone might do, and the
predictor γ, are of Simon, Adams and Zou 2026 (arXiv:2605.31518). That the inner product of a latent's encoder and
decoder row should be kept at 1 is of arXiv:2605.18629; what :func:`topk.train` does follows its abstract, which does
not say how the rows are parametrised.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.dictionaries import topk

NONE, ACTIVE, RANDOM = SUBSPACES = ("none", "active", "random")

COARSE_NORMS = np.arange(1, 11) / 10
"""Norms of decoder rows that are tried first."""
FINE_NORMS = np.arange(-9, 11) / 100
"""And then: these around the best."""


class Options(NamedTuple):
    """How a dictionary starts."""

    latents: int
    subspace: str = NONE
    """``none`` (the whole space), ``active`` or ``random``."""
    dimension: int | None = None
    """Of the subspace; None if there is none. Published: about half the width."""
    centred: bool = True
    """Whether the biases start from the means (see :func:`draw`), or at 0."""
    tied: bool = True
    """Whether the encoder starts as the decoder, or as other random directions of the whole space."""
    norm: float | None = None
    """Of rows; None: the best one for the initial error of an autoencoder of the targets that is tied. (An encoder
    that knows nothing of its decoder has the smallest error with norm 0.)"""
    aligned: bool = False
    """Whether encoder rows are moved along their decoder rows to where their inner product is 1 (arXiv:2605.18629).
    Rows of the decoder have norm 1 then, and none is searched: it would change no reconstruction of a tied start."""


def draw(
    batch: Float[Tensor, "vectors inputs"],
    options: Options,
    k: int,
    generator: np.random.Generator,
    targets: Float[Tensor, "vectors outputs"] | None = None,
) -> topk.Dictionary:
    r"""Draw a dictionary for the data of a batch.

    Decoder rows are $s u_i$ with random unit vectors $u_i$ of the subspace; encoder rows the same, or $s$ times
    other unit vectors. Centred: $b_D$ is the mean of the targets, and $b_E = -W_E \bar x$, so that pre-activations have
    mean 0.

    Args:
        batch: vectors, scaled (see :func:`topk.scale_factor`); thousands, and more than the subspace has dimensions.
        options: see there.
        k: latents kept for every vector, for the search of the norm.
        generator: source of all directions, and of nothing else.
        targets: what is to be reconstructed, if it is not the vectors themselves (a transcoder); the subspace is
            theirs.

    Raises:
        ValueError: a subspace that is not known, whose dimension is missing, or does not fit; a tied or an aligned
            transcoder of two widths, or an aligned start with a norm; or as :func:`topk.encode` and
            :func:`topk.variance`.
    """
    expected = batch if targets is None else targets
    topk.variance(expected)
    inputs, outputs = batch.shape[1], expected.shape[1]
    if options.tied and inputs != outputs:
        raise ValueError(f"tied: an encoder of width {inputs} cannot be a decoder of width {outputs}; use tied=False")
    if options.aligned and (inputs != outputs or options.norm is not None):
        raise ValueError(
            f"aligned: from width {inputs} to {outputs} with norm {options.norm}; it takes one width, and norm None"
        )
    basis = _basis(expected, options, generator)
    rows = _unit_rows(options.latents, outputs if basis is None else basis.shape[1], generator)
    decoder = rows if basis is None else rows @ basis.T
    encoder = decoder if options.tied else _unit_rows(options.latents, inputs, generator)
    if options.aligned:
        rows_of_both = {"encoder.weight": encoder.clone(), "decoder.weight": decoder}
        topk.align(rows_of_both)
        return _with_biases(rows_of_both["encoder.weight"], decoder, batch, expected, options.centred)
    unit = _with_biases(encoder, decoder, batch, expected, options.centred)
    norm = options.norm
    if norm is None:
        norm = best_norm(_with_biases(decoder, decoder, expected, expected, options.centred), expected, k)
    return {name: value if name == "decoder.bias" else norm * value for name, value in unit.items()}


def active_subspace(vectors: Float[Tensor, "vectors width"], dimension: int) -> Float[Tensor, "width dimension"]:
    """Return the leading principal directions of vectors minus their mean: orthonormal columns, in float64.

    Raises:
        ValueError: as many directions are not to be had from these vectors.

    >>> vectors = torch.tensor([[1.0, 5.0], [3.0, 5.0], [-4.0, 5.0]])
    >>> active_subspace(vectors, 1).abs()
    tensor([[1.],
            [0.]], dtype=torch.float64)
    """
    most = min(vectors.shape[1], len(vectors) - 1)
    if not 1 <= dimension <= most:
        raise ValueError(
            f"dimension: {len(vectors)} vectors of width {vectors.shape[1]} have no active subspace of {dimension} "
            f"dimensions; use 1 to {most}"
        )
    centred = vectors.double() - vectors.double().mean(0)
    # ascending eigenvalues
    return torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -dimension:].flip(1)


def random_subspace(width: int, dimension: int, generator: np.random.Generator) -> Float[Tensor, "width dimension"]:
    """Return an orthonormal basis of a random subspace, uniform over all of its dimension, in float64.

    Raises:
        ValueError: more dimensions than the width.
    """
    if not 1 <= dimension <= width:
        raise ValueError(f"dimension: no subspace of {dimension} dimensions in {width}; use 1 to {width}")
    return torch.from_numpy(np.linalg.qr(generator.standard_normal((width, dimension)))[0])


def best_norm(dictionary: topk.Dictionary, vectors: Float[Tensor, "vectors width"], k: int) -> float:
    r"""Return the norm of rows with which a tied autoencoder has the smallest error, in steps of .01 from .01 to 1.1.

    A coarse search over .1, .2, … 1, then a fine one around the best. A norm s multiplies all but the decoder's bias.
    It changes no ranking of latents, so the error is $E\|x - b_D - s^2 y\|^2$ with the same y for all s, and one
    encoding does.

    Args:
        dictionary: with rows of norm 1, the same in encoder and decoder.
        vectors: what is encoded and reconstructed.
        k: latents kept.
    """
    codes = topk.strongest(dictionary, vectors, k)
    modelled = (topk.reconstruct(dictionary, codes) - dictionary["decoder.bias"]).double()
    wanted = vectors.double() - dictionary["decoder.bias"].double()
    inner, square = float((wanted * modelled).sum()), float(modelled.square().sum())

    def best(norms: Float[np.ndarray, " norms"]) -> float:
        squared = norms**2
        return float(norms[np.argmin(squared**2 * square - 2 * squared * inner)])

    return best(best(COARSE_NORMS) + FINE_NORMS)


def mean_over_spread(vectors: Float[Tensor, "vectors width"]) -> float:
    r"""Return $\gamma = \|\mu\| / \|\sigma\|$, with mean and standard deviation of every coordinate, in float64.

    Above 1 the mean decides more about pre-activations of random directions than what varies: latents that point away
    from it are never active.

    Raises:
        ValueError: the vectors do not vary.

    >>> mean_over_spread(torch.tensor([[3.0, 1.0], [3.0, -1.0]]))
    3.0
    """
    exact = vectors.double()
    return float(exact.mean(0).norm()) / topk.variance(exact) ** 0.5


def _basis(
    vectors: Float[Tensor, "vectors width"], options: Options, generator: np.random.Generator
) -> Float[Tensor, "width dimension"] | None:
    if options.subspace not in SUBSPACES:
        raise ValueError(f"subspace: {options.subspace!r} is not known; use one of {', '.join(SUBSPACES)}")
    if options.subspace == NONE:
        return None
    if options.dimension is None:
        raise ValueError(f"dimension: {options.subspace} needs one, about half the width of {vectors.shape[1]}")
    if options.subspace == ACTIVE:
        return active_subspace(vectors, options.dimension)
    return random_subspace(vectors.shape[1], options.dimension, generator)


def _with_biases(
    encoder: Float[Tensor, "latents inputs"],
    decoder: Float[Tensor, "latents outputs"],
    vectors: Float[Tensor, "vectors inputs"],
    targets: Float[Tensor, "vectors outputs"],
    centred: bool,
) -> topk.Dictionary:
    """Return a dictionary in the precision of the vectors, with tensors of its own."""
    mean, wanted = (each.double().mean(0) * centred for each in (vectors, targets))
    exact = {
        "encoder.weight": encoder,
        "encoder.bias": -encoder @ mean,
        "decoder.weight": decoder,
        "decoder.bias": wanted,
    }
    return {name: value.to(vectors.dtype, copy=True) for name, value in exact.items()}


def _unit_rows(rows: int, width: int, generator: np.random.Generator) -> Float[Tensor, "rows width"]:
    drawn = torch.from_numpy(generator.standard_normal((rows, width)))
    return drawn / drawn.norm(dim=1, keepdim=True)
