"""Where a finished run's processor time went: ``python -m benchmarks.overhead [results]``, or a row of the table.

``python -m benchmarks.overhead --kinds`` prints what ``planning/order.py`` knows of the default run.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks._timing import Count
from learning_geometry.config import load
from learning_geometry.paths import RUNS_LOG
from learning_geometry.running import PROCESSOR_TIME

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


def seconds_of_kinds(results: Path, config: str) -> dict[str, float]:
    """Return the mean core-seconds of each kind of job (``planning.order.kind``) of a run; of training, of one step."""
    experiments = load(config)["experiments"]
    found: dict[str, list[float]] = {}
    for path in sorted(results.rglob("logs/*.log")):
        times = PROCESSOR_TIME.findall(path.read_text(encoding="utf-8", errors="replace"))
        if not times:
            continue
        kind, seconds = path.stem, sum(map(float, times[-1]))
        if kind == "train":
            name = path.parents[2].name
            kind, seconds = f"train {name}", seconds / experiments[name]["training"]["steps"]
        for rule in ("measure", "figure", "capture_text", "capture_prompts"):
            if kind.startswith(f"{rule}_"):
                kind = f"measure {kind.removeprefix('measure_')}" if rule == "measure" else rule
        found.setdefault(kind, []).append(seconds)
    return {kind: sum(each) / len(each) for kind, each in sorted(found.items())}


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
        for name, seconds in seconds_of_kinds(paths[0], "config/config.yaml").items():
            print(f'    "{name}": {seconds:.2g},')
    else:
        table = times(paths[0])
        start, work = table["start"].sum(), table["work"].sum()
        print(table.to_string(index=False, float_format="{:.2f}".format))
        print(f"{start + work:.0f} core-seconds, {100 * start / (start + work):.1f} % of them no useful work")
