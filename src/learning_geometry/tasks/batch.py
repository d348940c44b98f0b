"""What every task hands to training."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

IGNORED = -100
"""Target value of a position that carries no loss."""


class Batch(NamedTuple):
    """Token sequences and, per position, the token to predict (or ``IGNORED``)."""

    tokens: Int64[np.ndarray, "batch position"]
    targets: Int64[np.ndarray, "batch position"]
