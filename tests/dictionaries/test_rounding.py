"""Vectors that only rounding tells apart do not vary, whatever kernel they were captured with."""

import numpy as np
import pytest
import torch

from learning_geometry.dictionaries import sweep, topk


def equal_but_for(size, dtype, vectors=64, width=16):
    """Equal vectors of norm 1 with errors of some size, relative to the norm."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(width, generator=generator, dtype=torch.float64)
    common /= common.norm()
    errors = size / width**0.5 * torch.randn(vectors, width, generator=generator, dtype=torch.float64)
    return (common + errors).to(dtype)


DECIDE = [
    topk.variance,
    lambda vectors: topk.initialise(vectors, 8, np.random.default_rng(0)),
    lambda vectors: topk.explained_variance(vectors, vectors),
    lambda vectors: sweep.evaluate(dictionary(vectors), [vectors[:32], vectors[32:]], 2),
]


def dictionary(vectors):
    weight = torch.eye(vectors.shape[1], dtype=vectors.dtype)
    zero = torch.zeros(vectors.shape[1], dtype=vectors.dtype)
    return {"encoder.weight": weight, "encoder.bias": zero, "decoder.weight": weight, "decoder.bias": zero}


@pytest.mark.parametrize("decide", DECIDE)
@pytest.mark.parametrize(
    ("size", "dtype"), [(0.0, torch.float32), (1e-7, torch.float32), (0.0, torch.float64), (1e-16, torch.float64)]
)
def test_vectors_that_differ_by_rounding_are_refused(decide, size, dtype):
    with pytest.raises(ValueError, match="all equal"):
        decide(equal_but_for(size, dtype))


@pytest.mark.parametrize("decide", DECIDE)
@pytest.mark.parametrize(("size", "dtype"), [(1e-5, torch.float32), (1e-6, torch.float64)])
def test_small_differences_are_there(decide, size, dtype):
    decide(equal_but_for(size, dtype))
