"""Measurements that cannot be made of what they are given: recorded in their tables, and said at the end of every run.

A measurement may find that its data do not allow it: an activation that is not finite, a trajectory that does not move.
Run again it would find the same. So its table is written without rows, with the reason in its provenance, and
everything that does not need it is made. Whatever is not of this kind, such as a missing file, a lack of memory or a
slip in the code, fails the job as ever.
"""

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from learning_geometry import files
from learning_geometry.paths import measurement_log

NOT_MEASURED = "not_measured"
"""Quantity of the rows of runs and summaries that say what could not be measured: ``part`` is the measurement, or the
part of the model, ``data`` the reason, and the value is NaN."""

OF_THE_DATA = (ValueError, ArithmeticError, LookupError)
"""Exceptions that speak of the data; numpy's LinAlgError is one."""

LONGEST_REASON = 300


class Failure(NamedTuple):
    """A measurement that failed, of an experiment's seed, and why."""

    experiment: str
    seed: int
    measurement: str
    reason: str
    path: str
    """Of its table."""

    def __str__(self) -> str:
        place = f"{self.measurement} of {self.experiment}, seed {self.seed}"
        return f"{place}: {self.reason}; see {measurement_log(self.path)}"


def attempt(measure: Callable[[], Any]) -> tuple[Any, dict[str, str]]:
    """Return what a measurement returns and {}, or None and why it cannot be made: "error" and "message".

    The traceback goes to standard error.

    Args:
        measure: the measurement, without arguments.

    Raises:
        Exception: whatever is not of the data: what is no ``OF_THE_DATA``, or comes from reading or writing a file.

    >>> attempt(lambda: 1 + 1)
    (2, {})
    """
    try:
        return measure(), {}
    except OF_THE_DATA as error:
        if not _of_the_data(error):
            raise
        caught = error
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.linalg.LinAlgError):
            raise
        caught = error
    traceback.print_exception(caught)
    text = str(caught.args[0]) if len(caught.args) == 1 else str(caught)
    return None, {"error": type(caught).__name__, "message": " ".join(text.split())[:LONGEST_REASON]}


def _of_the_data(error: BaseException) -> bool:
    """Whether an exception was meant: of a lookup, those with a sentence; none that a file gave rise to."""
    if isinstance(error, LookupError) and " " not in str(error.args[0] if error.args else ""):
        return False
    if isinstance(error, IndexError | UnicodeError):
        return False
    return files.__name__ not in _modules(error.__traceback__)


def _modules(at: TracebackType | None) -> Iterator[str]:
    while at is not None:
        yield str(at.tb_frame.f_globals.get("__name__", ""))
        at = at.tb_next


def failures(tables: Iterable[str | Path]) -> list[Failure]:
    """Return the failures that tables of measurements record; tables that are not there or not readable have none."""
    recorded = []
    for path in tables:
        try:
            provenance = files.read_provenance(path)
        except (OSError, ValueError):
            continue
        if "failure" in provenance:
            recorded.append(failure(provenance, path))
    return recorded


def failure(provenance: dict[str, Any], path: str | Path) -> Failure:
    """Return the failure that the provenance of a measurement's table records.

    Args:
        provenance: with "failure".
        path: of the table, whose name is the measurement's.
    """
    what = provenance["failure"]
    reason = f"{what['error']}: {what['message']}"
    return Failure(what["experiment"], what["seed"], Path(path).stem, reason, str(path))


def told(failed: Iterable[Failure]) -> str:
    """Return what to say at the end of a run, or "" if nothing failed."""
    lines = [f"  {each}" for each in failed]
    if not lines:
        return ""
    measurements = "1 measurement" if len(lines) == 1 else f"{len(lines)} measurements"
    return "\n".join(
        [
            f"{measurements} could not be made, and what needs them is missing:",
            *lines,
            "They are tried again when their settings, data or code change, or after `make check REMOVE=1`.",
        ]
    )


def left_out(part: str, what: str, ranks: Iterable[int], most: int, of: str) -> list[dict[str, Any]]:
    """Return a row for each rank of which something is not measured, as it is above the most that there can be.

    Args:
        part: of the model.
        what: is not measured.
        ranks: that were asked for.
        most: the largest rank there is.
        of: what that is.

    >>> [each["data"] for each in left_out("layers.1", "subspace_match", [5, 20], 16, "the width of a head")]
    ['no subspace_match of rank 20, which is above 16, the width of a head']
    """
    reason = f"no {what} of rank {{}}, which is above {most}, {of}"
    return [row(part, reason.format(rank)) for rank in ranks if rank > most]


def row(part: str, reason: str, data: str = "") -> dict[str, Any]:
    """Return the row of a tidy table that says what could not be measured.

    Args:
        part: of the model, or the measurement.
        reason: why, and which numbers of the part are missing.
        data: the data set, of all of which alone the part could not be measured; it leads the reason.
    """
    return {
        "step": 0,
        "part": part,
        "quantity": NOT_MEASURED,
        "data": f"{data}: {reason}" if data else reason,
        "value": float("nan"),
        "n": 0,
        "unit": "1",
    }
