"""How Snakemake learns which jobs must run: their inputs hold one file that is newer than their outputs.

Snakemake has no other way to force jobs from a Snakefile: the settings of the command line are not there yet when it is
read, and a forced file becomes a target. An input function is asked for the jobs of the targets alone. The file bears a
time long past, for Snakemake refuses outputs older than an input, and outputs that are not up to date an earlier one.
"""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from learning_geometry.ownership import check_ours
from learning_geometry.paths import AGAIN
from learning_geometry.planning.jobs import Job
from learning_geometry.planning.plan import Plan

OLD, OLDER = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2001, 2000))
"""Times of the file, and of outputs that are not up to date."""
SHOWN = 10


class Reruns:
    """What must run in this planning, told once."""

    def __init__(self, plan: Plan, say: Callable[[str], None]):
        """Begin.

        Args:
            plan: of the config.
            say: shows a line on the terminal.
        """
        self._path, self._say = plan.results / AGAIN, say
        self._told: dict[Job, str] = {}
        self._known = plan.known

    def marker(self, job: Job, reason: str) -> list[str]:
        """Return the path of the file, if the job must run though some of its outputs are there.

        Args:
            job: whose inputs are asked for.
            reason: why it must run; empty: it need not.

        Raises:
            NotOursError: something lies at the place of an output that the workflow did not make.
        """
        if not self._told:
            self._known.save()
        if not reason:
            return []
        if job not in self._told:
            # Snakemake deletes what lies there before a job begins
            check_ours([*job.outputs, *filter(None, [job.leaves, job.works_in])])
        if not any(os.path.lexists(path) for path in job.outputs):
            return []
        if job not in self._told:
            self._told[job] = reason
            self._write()
            for path in job.outputs:
                _make_old(Path(path))
            if len(self._told) <= SHOWN:
                self._say(f"made again: {reason}")
            elif len(self._told) == SHOWN + 1:
                self._say(f"and more are made again: see {self._path}")
        return [str(self._path)]

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{AGAIN}.{secrets.token_hex(4)}")
        # other content each time: Snakemake passes over inputs of the content that it has recorded
        lines = [f"Not up to date in planning {secrets.token_hex(8)}:", *self._told.values()]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.utime(temporary, (OLD, OLD))
        temporary.replace(self._path)


def _make_old(path: Path) -> None:
    """Give an output an old time; that of a folder is that of Snakemake's file in it."""
    # where times cannot be set nothing can be made either
    with suppress(OSError):
        os.utime(path, (OLDER, OLDER))
        os.utime(path / ".snakemake_timestamp", (OLDER, OLDER))
