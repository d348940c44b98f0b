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

    Of spacings that are as frequent the largest counts, and of grids of one spacing that with the most steps. Steps off
    the grid, such as early ones spaced logarithmically, belong to no grid.

    Args:
        steps: of all checkpoints, each once; at least one.

    >>> uniform_grid([0, 1, 2, 4, 8, 1000, 2000, 3000, 4000])
    Grid(every=1000, steps=(0, 1000, 2000, 3000, 4000), missing=())
    >>> uniform_grid([5, 15, 25, 45])
    Grid(every=10, steps=(5, 15, 25, 45), missing=(35,))
    """
    ordered = sorted(steps)
    if len(ordered) == 1:
        return Grid(max(ordered[0], 1), (ordered[0],), ())
    spacings = Counter(after - before for before, after in pairwise(ordered))
    every = max(spacings, key=lambda spacing: (spacings[spacing], spacing))
    remainders = Counter(step % every for step in ordered)
    remainder = max(remainders, key=lambda each: (remainders[each], -each))
    grid = [step for step in ordered if step % every == remainder]
    there = set(grid)
    return Grid(every, tuple(grid), tuple(step for step in range(grid[0], grid[-1], every) if step not in there))
