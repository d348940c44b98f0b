"""The execution basis of a run: the directions in which training has moved its attention matrices so far.

A basis is a dictionary from the names of attention matrices to orthonormal columns (entries, directions); together
they span the direct sum of the subspaces. Arrays of a matrix's shape are read row by row as vectors of its entries.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np
from jaxtyping import Float

from learning_geometry.geometry.nulls import haar_subspace
from learning_geometry.geometry.trajectories import principal_directions
from learning_geometry.measurements.common.run import Run
from learning_geometry.training.checkpoints import parameter_shapes, read_trajectory

ATTENTION_MATRIX = re.compile(r"layers\.\d+\.attention\.(query|key|value|output)\.weight")

TOGETHER = {"model", "matrices", "attention_matrices"}
"""What parts are called that are many parameters together."""

Basis = Mapping[str, Float[np.ndarray, "entries directions"]]


def attention_matrices(names: Iterable[str]) -> list[str]:
    """Return the names that are those of attention matrices, in their order.

    >>> attention_matrices(["embedding.weight", "layers.0.attention.key.weight", "layers.0.attention.key.bias"])
    ['layers.0.attention.key.weight']
    """
    return [name for name in names if ATTENTION_MATRIX.fullmatch(name)]


def part_names(names: Iterable[str]) -> dict[str, str]:
    """Return what a parameter alone is called as a part, by its name: the name without ``.weight``.

    Where that is the name of another parameter, of a layer or of one of ``TOGETHER`` it is said what is meant.

    >>> list(part_names(["h.0.weight", "h.1", "h.1.q.weight", "model", "w", "w.weight"]).values())
    ['h.0', 'h.1 (alone)', 'h.1.q', 'model (alone)', 'w', 'w (weight)']
    """
    short = {name: name.removesuffix(".weight") for name in names}
    # a weight is not several because its bias bears its name
    several = TOGETHER | {part.rpartition(".")[0] for part in short.values() if not part.endswith(".bias")}
    called = {}
    for name, part in short.items():
        is_weight = part != name
        free = part not in several and not (is_weight and part in short)
        called[name] = part if free else f"{part} ({'weight' if is_weight else 'alone'})"
    return called


def followed_matrices(
    shapes: Mapping[str, tuple[int, ...]], pattern: str | None, where: str
) -> tuple[dict[str, str], str]:
    """Return the matrices whose trajectories are followed, and what the mean over them is called.

    Args:
        shapes: of all parameters, by name.
        pattern: which matrices, by name, ``*`` standing for anything; None: the attention matrices of the workflow's
            transformer, or all matrices if none has such a name.
        where: run, for the message.

    Returns:
        Part (see :func:`part_names`) -> name, sorted by name; ``attention_matrices``, or ``matrices``.

    Raises:
        ValueError: there is none.
    """
    matrices = sorted(name for name, shape in shapes.items() if len(shape) == 2)
    attention = attention_matrices(matrices)
    named = [name for name in matrices if pattern is not None and fnmatchcase(name, pattern)]
    chosen = attention or matrices if pattern is None else named
    if not chosen:
        raise ValueError(f"{where}: no matrix is called {pattern or '*'}; there are {', '.join(matrices) or 'none'}")
    called = part_names(shapes)
    return {called[name]: name for name in chosen}, "attention_matrices" if chosen == attention else "matrices"


def execution_basis(run: Run, until: int, directions: int = 3) -> dict[str, np.ndarray]:
    """Return the directions of largest variance of each attention matrix's trajectory up to step ``until``, included.

    Args:
        run: the run.
        until: last step whose checkpoint counts; only those on the uniform grid do.
        directions: how many per matrix.

    Returns:
        Name of each attention matrix (with ``.weight``) -> orthonormal columns (entries, directions), float64, the
        largest variance first.

    Raises:
        ValueError: there are fewer than directions + 2 checkpoints so far, no attention matrices, a matrix has fewer
            entries than directions, or its trajectory spans fewer directions.
    """
    steps = run.uniform_steps(until)
    if len(steps) < directions + 2:
        raise ValueError(
            f"{run.experiment}, seed {run.seed}: {len(steps)} checkpoints on the uniform grid up to step {until} are "
            f"too few for {directions} directions; start at a later step, or lower training.checkpoints.every"
        )
    names = attention_matrices(sorted(parameter_shapes(run.checkpoints, steps[0])))
    if not names:
        raise ValueError(f"{run.experiment}: no attention matrices (layers.<l>.attention.query.weight, ...) to follow")
    basis = {}
    for name in names:
        snapshots = read_trajectory(run.checkpoints, steps, name).reshape(len(steps), -1)
        try:
            basis[name] = principal_directions(snapshots, directions)
        except ValueError as error:
            raise ValueError(f"{run.experiment}, seed {run.seed}: {name} up to step {until}: {error}") from error
    return basis


def random_basis(basis: Basis, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return uniformly random (Haar) orthonormal columns of the same shapes, within the same matrices.

    >>> random_basis({"a": np.eye(4)[:, :2]}, np.random.default_rng(0))["a"].shape
    (4, 2)
    """
    return {name: haar_subspace(len(columns), columns.shape[1], generator) for name, columns in basis.items()}


def coordinates(basis: Basis, vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the coordinates (directions,) of each vector along the columns of its matrix; others are left out.

    Raises:
        ValueError: a vector is missing, or has not as many entries as the columns.
    """
    return {name: columns.T @ _flat(name, vectors, columns) for name, columns in basis.items()}


def inside(basis: Basis, vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the squared norm of each vector inside the subspace of its matrix; vectors of no matrix are left out.

    The sum of the values is the squared norm inside of all vectors taken as one.

    Args:
        basis: orthonormal columns by name.
        vectors: arrays of the parameters' shapes, such as a gradient, at least those of the basis.

    Raises:
        ValueError: a vector is missing, or has not as many entries as the columns.

    >>> inside({"a": np.eye(4)[:, :2]}, {"a": np.array([[3.0, 4.0], [5.0, 6.0]]), "b": np.ones(7)})
    {'a': 25.0}
    """
    return {name: float(along @ along) for name, along in coordinates(basis, vectors).items()}


def project(basis: Basis, vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each vector's part inside the subspace of its matrix, in its own shape; vectors of no matrix are left out.

    What lies outside is the rest: the vector minus this, and all of a vector of no matrix.

    Raises:
        ValueError: a vector is missing, or has not as many entries as the columns.

    >>> project({"a": np.eye(4)[:, :2]}, {"a": np.array([[3.0, 4.0], [5.0, 6.0]])})
    {'a': array([[3., 4.],
           [0., 0.]])}
    """
    return {
        name: (basis[name] @ along).reshape(vectors[name].shape) for name, along in coordinates(basis, vectors).items()
    }


def _flat(name: str, vectors: Mapping[str, np.ndarray], columns: np.ndarray) -> np.ndarray:
    if name not in vectors:
        raise ValueError(
            f"vectors: none for {name}; pass one for each of {len(columns)} entries of the basis's matrices"
        )
    vector = vectors[name].reshape(-1)
    if len(vector) != len(columns):
        raise ValueError(
            f"vectors: {name} has {len(vector)} entries, its basis {len(columns)}; pass those of one model"
        )
    return vector
