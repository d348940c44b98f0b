"""The uniform grid among the steps of a series: what depends on the spacing of checkpoints is measured there alone."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Grid(NamedTuple):
    """Steps of equal spacing."""

    every: int
    """Their spacing."""
    steps: tuple[int, ...]
    """Those that there are, ascending."""
    missing: tuple[int, ...]
    """Those between the first and the last that there are not."""


def uniform_grid(steps: Iterable[int]) -> Grid:
    """Return the uniform grid: the steps that lie multiples of the most frequent spacing apart.

    A spacing counts if at least half of its steps are there, from the first to the last; so a series that is spaced
    logarithmically has no grid of spacing 1. Of spacings that are as frequent the largest counts, and of grids of one
    spacing that with the most steps. Steps off the grid, such as early ones spaced logarithmically, belong to no grid.

    Args:
        steps: of all checkpoints, each once; at least one.

    >>> uniform_grid([0, 1, 2, 4, 8, 1000, 2000, 3000, 4000])
    Grid(every=1000, steps=(0, 1000, 2000, 3000, 4000), missing=())
    >>> uniform_grid([5, 15, 25, 45])
    Grid(every=10, steps=(5, 15, 25, 45), missing=(35,))
    >>> uniform_grid([0, 1, 2, 4, 8, 16, 32])
    Grid(every=16, steps=(0, 16, 32), missing=())
    """
    ordered = sorted(steps)
    if len(ordered) == 1:
        return Grid(max(ordered[0], 1), (ordered[0],), ())
    spacings = Counter(after - before for before, after in pairwise(ordered))
    grids = (_of_spacing(every, ordered) for every in sorted(spacings, key=lambda each: (-spacings[each], -each)))
    # the largest spacing has one, of the two steps that lie so far apart
    return next(grid for grid in grids if grid is not None)


def _of_spacing(every: int, ordered: list[int]) -> Grid | None:
    """Return the grid of a spacing; None if more than half of its steps are not there."""
    remainders = Counter(step % every for step in ordered)
    remainder = max(remainders, key=lambda each: (remainders[each], -each))
    grid = [step for step in ordered if step % every == remainder]
    if 2 * len(grid) < (grid[-1] - grid[0]) // every + 1:
        return None
    there = set(grid)
    missing = tuple(step for step in range(grid[0], grid[-1], every) if step not in there)
    return Grid(every, tuple(grid), missing)
