"""How Snakemake learns which jobs must run: their inputs hold one file that is newer than all of their outputs.

Snakemake has no other way to force jobs from a Snakefile: the settings of the command line are not there yet when it is
read, and a forced file becomes a target. An input function is asked for the jobs of the targets alone.
"""

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

from learning_geometry.paths import AGAIN
from learning_geometry.planning.jobs import Job
from learning_geometry.planning.plan import Plan

FAR = datetime(2037, 1, 1, tzinfo=UTC).timestamp()
"""Time of the file: later than that of any output, and one that every file system can hold."""
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
        self._told: set[Job] = set()
        self._known = plan.known

    def marker(self, job: Job, reason: str) -> list[str]:
        """Return the path of the file, if the job must run though its outputs are there.

        Args:
            job: whose inputs are asked for.
            reason: why it must run; empty: it need not.
        """
        if not self._told:
            self._known.save()
        if not reason or not any(os.path.lexists(path) for path in job.outputs):
            return []
        if not self._told:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # other content each time: Snakemake passes over inputs of the content that it has recorded
            self._path.write_text(f"Not up to date in planning {secrets.token_hex(8)}:\n", encoding="utf-8")
        if job not in self._told:
            self._told.add(job)
            if len(self._told) <= SHOWN:
                self._say(f"made again: {reason}")
            elif len(self._told) == SHOWN + 1:
                self._say(f"and more are made again: see {self._path}")
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{reason}\n")
            os.utime(self._path, (FAR, FAR))
        return [str(self._path)]
