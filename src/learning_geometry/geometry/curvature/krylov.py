"""A growing Krylov space of a symmetric matrix from any number of starts, with full reorthogonalisation."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.geometry.curvature.guard import check_symmetric, rounding_of
from learning_geometry.geometry.curvature.products import Product


class Krylov:
    """An orthonormal basis, the matrix's products with part of it, and what follows: Ritz values and residuals.

    Band Lanczos (Ruhe 1979, "Implementation aspects of band Lanczos algorithms"): the first `size` basis vectors have
    been multiplied, the further `pending` ones not yet. Every product lies in the span of all of them, so residuals
    follow from coefficients alone. Unlike there, each next vector to be multiplied may be any direction among the
    pending ones, so that products go where the residual is large, and vectors can be added at any time.

    Attributes:
        size: Products so far, the dimension of the space of Ritz vectors.
        pending: Dimension of the directions that were reached but not multiplied.
        spread: Estimate of the matrix's norm, from its coefficients.
    """

    def __init__(self, product: Product, dimension: int, dtype: torch.dtype, device: torch.device | str):
        self.product, self.dimension = product, dimension
        self.size, self.pending, self.spread = 0, 0, 0.0
        self.rounding = torch.finfo(dtype).eps
        self.basis = torch.empty(min(dimension, 16), dimension, dtype=dtype, device=device)
        # coefficients[i, j]: component along basis vector i of the product with basis vector j
        self.coefficients = np.zeros((len(self.basis), len(self.basis)))

    def add(self, vector: Float[Tensor, " dimension"]) -> Float[np.ndarray, " pending"] | None:
        """Let a vector be reached; return its direction among the pending ones, None if the space has it already."""
        vector = vector / torch.linalg.vector_norm(vector)
        parts, rest, length = self._split(vector)
        if length > 100 * self.rounding:
            self._append(rest / length)
            parts = np.append(parts, length)
        direction = parts[self.size :]
        norm = float(np.linalg.norm(direction))
        return direction / norm if norm > 100 * self.rounding else None

    def expand(self, direction: Float[np.ndarray, " pending"]) -> Float[np.ndarray, " next"]:
        """Multiply one pending direction; return the direction among the new pending ones in which the product went.

        The direction returned has the product's length: zero if the product stays in the space.

        Raises:
            ValueError: If the product is not finite, or the matrix not symmetric.
        """
        self._turn_first(direction)
        vector = self.basis[self.size]
        # a copy: the product may return its argument, or a view of it
        image = self.product(vector).clone()
        parts, rest, length = self._split(image)
        parts[self.size] = float(torch.dot(vector.double(), image.double()))
        if not (np.isfinite(parts).all() and np.isfinite(length)):
            raise ValueError(f"product: it is not finite at product {self.size + 1}; check the loss and its parameters")
        self.coefficients[: len(parts), self.size] = parts
        self.spread = max(self.spread, float(np.hypot(np.linalg.norm(parts), length)))
        if self.size:
            mirrored = self.coefficients[self.size, : self.size]
            worst = int(np.abs(parts[: self.size] - mirrored).argmax())
            seen = float(mirrored[worst]), float(parts[worst])
            check_symmetric(*seen, self.spread, self.rounding, rounding_of(self.product))
        if length > 10 * self.rounding * self.spread and len(parts) < self.dimension:
            self._append(rest / length)
            self.coefficients[len(parts), self.size] = length
        self.size += 1
        self.pending -= 1
        return self.coefficients[self.size : self.size + self.pending, self.size - 1].copy()

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values, ascending, their vectors' weights and residuals, one per column.

        Weights are those of the multiplied basis vectors; residuals H v - value v are given by their components along
        the pending ones.
        """
        projected = self.coefficients[: self.size, : self.size]
        values, weights = np.linalg.eigh((projected + projected.T) / 2)
        outside = self.coefficients[self.size : self.size + self.pending, : self.size]
        return values, weights, outside @ weights

    def vector(self, weights: Float[np.ndarray, " size"]) -> Float[Tensor, " dimension"]:
        """Return the unit vector of these weights."""
        found = torch.from_numpy(weights).to(self.basis) @ self.basis[: self.size]
        return found / torch.linalg.vector_norm(found)

    def _split(self, vector: Tensor) -> tuple[np.ndarray, Tensor, float]:
        """Return the components along the basis, the rest, and the rest's length."""
        known = self.basis[: self.size + self.pending]
        parts = torch.zeros(len(known), dtype=vector.dtype, device=vector.device)
        # twice is enough (Parlett 1998, section 6.9)
        for _ in range(2):
            along = known @ vector
            vector = vector - known.T @ along
            parts += along
        return parts.double().cpu().numpy(), vector, float(torch.linalg.vector_norm(vector, dtype=torch.float64))

    def _append(self, vector: Tensor) -> None:
        known = self.size + self.pending
        if known == len(self.basis):
            self.basis = torch.cat([self.basis, torch.empty_like(self.basis)])
            self.coefficients = np.pad(self.coefficients, (0, known))
        self.basis[known] = vector
        self.pending += 1

    def _turn_first(self, direction: np.ndarray) -> None:
        """Reflect the pending vectors among themselves so that the first is the direction, or its opposite."""
        if self.pending < 2:
            return
        normal = direction / np.linalg.norm(direction)
        # the sign without cancellation
        normal[0] += np.copysign(1.0, normal[0])
        normal /= np.linalg.norm(normal)
        rows = slice(self.size, self.size + self.pending)
        turned = torch.from_numpy(normal).to(self.basis)
        self.basis[rows] -= 2 * torch.outer(turned, turned @ self.basis[rows])
        self.coefficients[rows] -= 2 * np.outer(normal, normal @ self.coefficients[rows])
