"""Columns of values known up to an error: eigenvalues with their bounds, means with their intervals."""

from typing import Any

from learning_geometry.geometry.curvature.lanczos import Eigenpair
from learning_geometry.geometry.curvature.trace import Estimate
from learning_geometry.measurements.common.run import Run


def bounds(value: float, error: float) -> dict[str, float]:
    """Return the columns of a value known up to an error."""
    return {"value": value, "low": value - error, "high": value + error}


def fraction(estimate: Estimate, **columns: Any) -> dict[str, Any]:
    """Return the columns of a fraction; Student's t of few probes would reach beyond 0 and 1."""
    row = estimate_row(estimate, unit="fraction", **columns)
    return row | clipped(row["low"], row["high"])


def clipped(low: float, high: float) -> dict[str, float]:
    """Return the columns of the interval of a fraction."""
    return {"low": max(low, 0.0), "high": min(high, 1.0)}


def estimate_row(estimate: Estimate, **columns: Any) -> dict[str, Any]:
    """Return the columns of a Monte Carlo mean with its 95 % interval, and others."""
    low, high = estimate.interval()
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n} | columns


def check_converged(pair: Eigenpair, run: Run, step: int, name: str, remedy: str) -> None:
    """Stop the measurement if the iteration for an eigenvalue gave up.

    Args:
        pair: what the iteration returned.
        run: the run that is measured.
        step: its checkpoint.
        name: which eigenvalue it is.
        remedy: settings to raise.

    Raises:
        ArithmeticError: it did not converge; names all of these.
    """
    if not pair.converged:
        raise ArithmeticError(
            f"{run.experiment} seed {run.seed} step {step}: {name} did not converge in {pair.products} products "
            f"(error bound {pair.error:.2g} of {pair.value:.4g}); raise {remedy}"
        )
