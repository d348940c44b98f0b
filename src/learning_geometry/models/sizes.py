"""The sizes a task imposes on a model."""

from typing import NamedTuple


class TaskSizes(NamedTuple):
    """Number of input tokens, number of output classes, and number of positions."""

    vocabulary: int
    outputs: int
    length: int
