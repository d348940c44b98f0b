"""The interval of a share; needs no table and no other module of the package."""

from scipy import special


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of which ``successes`` in ``n`` units were seen.

    Args:
        successes: Units that show it, 0 to n.
        n: Units there are, at least 1.

    Raises:
        ValueError: there are no units, or more successes than units.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits".

    >>> share_interval(0, 5)[1].__round__(4)  # 1 − .025 ** (1 / 5): all five fail with probability .025
    0.5218
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes and n: {successes} of {n} is no share; pass 0 to n successes of at least one unit")
    low = float(special.betaincinv(successes, n - successes + 1, 0.025)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, n - successes, 0.975)) if successes < n else 1.0
    return low, high
