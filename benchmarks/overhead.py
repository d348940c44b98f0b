"""Where a finished run's processor time went: ``python -m benchmarks.overhead [results]``, or a row of the table.

``python -m benchmarks.overhead --kinds`` prints what ``planning/order.py`` knows of the default run.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks._timing import Count
from learning_geometry.config import load
from learning_geometry.paths import RUNS_LOG
from learning_geometry.planning.jobs import Job, all_jobs
from learning_geometry.planning.order import kind
from learning_geometry.planning.work import work
from learning_geometry.running import PEAK_MEMORY, PROCESSOR_TIME

RESULTS = Path("results")


def times(results: Path) -> pd.DataFrame:
    """Return the core-seconds of a run by rule: jobs, start and work; measurements are told apart.

    Further rows are Snakemake itself and ``between``: processes from their first instruction to the beginning of a job,
    the imports of the server that forks jobs, and jobs that did not end. ``work`` of the last two is 0.

    Raises:
        FileNotFoundError: no run has ended there.
    """
    if not (results / RUNS_LOG).exists():
        raise FileNotFoundError(f"{results / RUNS_LOG}: no run has ended here; `make figures` makes one")
    runs = pd.read_csv(results / RUNS_LOG)
    jobs = []
    for path in sorted(results.rglob("*.log")):
        if path.parent.name == "logs" and (
            found := PROCESSOR_TIME.findall(path.read_text(encoding="utf-8", errors="replace"))
        ):
            start, work = map(float, found[-1])
            jobs.append({"rule": path.stem, "jobs": 1, "start": start, "work": work})
    table = pd.DataFrame(jobs, columns=["rule", "jobs", "start", "work"]).groupby("rule").sum().reset_index()
    table = table.sort_values("work", ascending=False)
    main = runs["main_process"].sum()
    between = runs["all_processes"].sum() - main - table[["start", "work"]].to_numpy().sum()
    more = [["Snakemake itself", len(runs), main, 0.0], ["between", 0, between, 0.0]]
    return pd.concat([table, pd.DataFrame(more, columns=table.columns)], ignore_index=True)


def kinds(results: Path, config: str) -> pd.DataFrame:
    """Return what each kind of job (``planning.order.kind``) of a run took: mean core-seconds, work, peak memory (MB).

    What a measurement had to do is in the unit of ``planning.work``; trainings need no table (``training_seconds``).
    """
    rows = []
    for job in all_jobs(load(config)):
        text = _log(results, job)
        times, memory = PROCESSOR_TIME.findall(text), PEAK_MEMORY.findall(text)
        if times:
            seconds = sum(map(float, times[-1]))
            rows.append(
                ("train" if job.rule == "train" else kind(job), seconds, work(job), int(memory[-1]) if memory else 0)
            )
    table = pd.DataFrame(rows, columns=["kind", "seconds", "work", "memory"]).groupby("kind")
    return pd.concat([table[["seconds", "work"]].mean(), table["memory"].max()], axis=1)


def _log(results: Path, job: Job) -> str:
    """The text of a job's log, wherever it lies below the results."""
    folder = results / job.wildcards.get("experiment", "")
    folder = folder / f"seed-{job.wildcards['seed']}" if "seed" in job.wildcards else folder
    rule = "measure" if job.rule == "measure_language_model" else job.rule
    rest = [value for name, value in job.wildcards.items() if name not in ("experiment", "seed")]
    path = folder / "logs" / f"{'_'.join([rule, *rest])}.log"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def cases(small: bool) -> list[Count]:
    """Return what of the core-seconds of the run in ``results`` is not useful work, against all of them."""
    try:
        table = times(RESULTS)
    except FileNotFoundError as error:
        print(f"overhead: {error}", file=sys.stderr)
        return []
    start, work = table["start"].sum(), table["work"].sum()
    return [Count("overhead of a run", "all of its core-seconds", lambda: start, lambda: start + work, "s")]


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:] if argument != "--kinds"] or [RESULTS]
    if "--kinds" in sys.argv:
        for name, seen in kinds(paths[0], "config/config.yaml").iterrows():
            print(f'    "{name}": Seen({seen.seconds:.2g}, {seen.work:.3g}, {seen.memory:.0f}),')
    else:
        table = times(paths[0])
        start, work = table["start"].sum(), table["work"].sum()
        print(table.to_string(index=False, float_format="{:.2f}".format))
        print(f"{start + work:.0f} core-seconds, {100 * start / (start + work):.1f} % of them no useful work")
