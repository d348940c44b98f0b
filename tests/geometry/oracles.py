"""Closed forms that tests compare results with."""

from math import comb

import numpy as np

from learning_geometry.geometry.subspaces import orthonormal_basis
from learning_geometry.geometry.wishart import haar_corners


def most_patterns(units, dimension, biased=True):
    """Regions into which hyperplanes in general position cut a space (Schläfli; Cover 1965, theorem 1)."""
    if biased:
        return sum(comb(units, k) for k in range(min(units, dimension) + 1))
    return 2 * sum(comb(units - 1, k) for k in range(min(units, dimension)))


def subspace_energy(basis, projector_basis):
    """Share of a subspace that lies in another: the squared norm of the projected basis over the rank."""
    overlap = orthonormal_basis(projector_basis).T @ orthonormal_basis(basis)
    return float(np.sum(overlap**2) / basis.shape[1])


def overlap_null(width, rank, draws, generator):
    """Mean squared cosines between a fixed and uniformly random subspaces of the same rank."""
    return (haar_corners(width, rank, draws, generator) ** 2).sum((1, 2)) / rank


def spectral_overlap_mean(first, second, width):
    """Mean spectral overlap of random matrices with given singular values: both participation ratios' root, over d."""
    ratios = [(values**2).sum() / np.linalg.norm(values**2) for values in (first, second)]
    return float(ratios[0] * ratios[1] / width)
