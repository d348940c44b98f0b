r"""Spreading variance evenly over directions before a dictionary is trained, and putting that into its weights.

The mean is not subtracted: whether centring helps, and whether an even spread does, can then be asked apart from each
other. Source of the question: arXiv:2605.31518, by which centring fails where variance sits in few directions.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.dictionaries import topk

LEAST_VARIANCE = 1e-6
"""Directions with less than this share of the largest variance are multiplied like those that have it: what is there
may be rounding of float32."""


class Whitening(NamedTuple):
    """A linear map of vectors, as rows, and its inverse; in float64."""

    forward: Float[Tensor, "width width"]
    backward: Float[Tensor, "width width"]

    def apply(self, vectors: Float[Tensor, "vectors width"]) -> Float[Tensor, "vectors width"]:
        """Return the vectors whitened, in their own precision."""
        return (vectors.double() @ self.forward).to(vectors.dtype)


def whitening(vectors: Float[Tensor, "vectors width"]) -> Whitening:
    r"""Return the map $c\, C^{-1/2}$ with the covariance C of vectors, and c such that the mean norm is √width.

    Raises:
        ValueError: no more vectors than the width, or vectors that do not vary.

    >>> white = whitening(torch.tensor([[9.0, 1.0], [-9.0, 1.0], [0.0, 2.0], [0.0, 0.0]])).apply(torch.eye(2))
    >>> (white[0, 0] / white[1, 1]).round(decimals=4)  # variances 40.5 and .5
    tensor(0.1111)
    """
    exact = vectors.double()
    width = exact.shape[1]
    if len(exact) <= width:
        raise ValueError(
            f"vectors: {len(exact)} of width {width} do not vary in all directions; whiten by more than {width}"
        )
    topk.variance(vectors)
    centred = exact - exact.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(exact))
    roots = variances.clamp_min(LEAST_VARIANCE * float(variances[-1])).sqrt()
    forward = (directions / roots) @ directions.T
    scale = topk.scale_factor(exact @ forward)
    return Whitening(scale * forward, (directions * roots) @ directions.T / scale)


def unwhitened(dictionary: topk.Dictionary, of: Whitening) -> topk.Dictionary:
    """Return the dictionary of vectors as they are that has the latents of this one, which is of whitened vectors.

    With the symmetric map M rows are M e of the encoder and M⁻¹ d of the decoder.
    """
    dtype = dictionary["encoder.weight"].dtype
    exact = {name: value.double() for name, value in dictionary.items()}
    mapped = {
        "encoder.weight": exact["encoder.weight"] @ of.forward,
        "encoder.bias": exact["encoder.bias"],
        "decoder.weight": exact["decoder.weight"] @ of.backward,
        "decoder.bias": exact["decoder.bias"] @ of.backward,
    }
    return {name: value.to(dtype) for name, value in mapped.items()}


def evenness(covariance: Float[Tensor, "width width"]) -> float:
    r"""Return how evenly variance is spread over directions: $(\sum\lambda)^2 / (d \sum\lambda^2)$ of its eigenvalues.

    1 if it is the same in all directions, 1 / d if it sits in one.

    >>> evenness(torch.eye(4)), evenness(torch.diag(torch.tensor([5.0, 0.0])))
    (1.0, 0.5)
    """
    exact = covariance.double()
    return float(exact.trace() ** 2 / (len(exact) * exact.square().sum()))
