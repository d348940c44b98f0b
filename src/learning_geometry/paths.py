"""The one module that knows where artifacts lie."""

import re
from collections.abc import Sequence
from pathlib import Path

ARTIFACTS = {
    "dataset": "{experiment}/seed-{seed}/dataset.safetensors",
    "working": "{experiment}/seed-{seed}/training",
    "checkpoints": "{experiment}/seed-{seed}/checkpoints",
    "metrics": "{experiment}/seed-{seed}/training_metrics.parquet",
    "importing": "{experiment}/seed-{seed}/importing",
    "imported": "{experiment}/seed-{seed}/imported",
    "imported_metrics": "{experiment}/seed-{seed}/imported_metrics.parquet",
    "measurement": "{experiment}/seed-{seed}/{measurement}.parquet",
    "run_files": "{experiment}/seed-{seed}/{measurement}",
    "dequantised": "dequantised/{gguf}.safetensors",
    "text": "{experiment}/texts/{text}",
    "prompts": "{experiment}/prompts/{weights}",
    "capturing": "{experiment}/capturing/{captured}",
    "model_measurement": "{experiment}/measurements/{measurement}.parquet",
    "model_files": "{experiment}/measurements/{measurement}",
    "runs": "{experiment}/runs.parquet",
    "summary": "{experiment}/summary.parquet",
    "summary_csv": "{experiment}/summary.csv",
    "series_runs": "{experiment}/series_runs.parquet",
    "series": "{experiment}/series.parquet",
    "series_csv": "{experiment}/series.csv",
    "sweep": "{experiment}/sweep.parquet",
    "sweep_csv": "{experiment}/sweep.csv",
    "claims_csv": "claims.csv",
    "claims_markdown": "claims.md",
    "claims_page": "claims.html",
    "figure_pdf": "figures/{figure}.pdf",
    "figure_png": "figures/{figure}.png",
    "archive": "archive.tar.gz",
    "failed": "failed.txt",
    "run_log": "{experiment}/seed-{seed}/logs/{rule}.log",
    "experiment_log": "{experiment}/logs/{rule}.log",
    "log": "logs/{rule}.log",
}
"""Every artifact of a run, relative to the ``results`` directory of the config."""

CONCLUDED_FROM = ("runs", "summary")
"""The artifacts of each experiment that figures and claims are made from; an archive of a run holds these."""

KNOWN, AGAIN, RECORDS = ".known.json", ".to-be-made-again", ".made"
"""In a results folder: the cache of what is known of files, the list of what is out of date, and records."""

_OF_A_RUN = "{experiment}/seed-{seed}/"
OF_A_RUN = {
    Path(place).stem
    for place in (at.removeprefix(_OF_A_RUN).split("/")[0] for at in ARTIFACTS.values() if at.startswith(_OF_A_RUN))
    if Path(place).suffix in ("", ".parquet") and "{" not in place
}
"""Folders and tables beside those of a run's measurements, none of which may have such a name."""

RUNS_LOG = "logs/runs.csv"
"""In a results folder: what each call of Snakemake that ran jobs took, see ``planning.spent``."""

MANIFEST = "manifest.json"
"""Of a folder: what its files are, and what it was made from."""

HOLD_PROVENANCE = (".parquet", ".safetensors")
"""Suffixes of files that hold what they were made from."""


def record_path(results: str | Path, outputs: Sequence[str]) -> Path:
    """Return where the record of a job lies that makes files which hold none themselves.

    >>> record_path("results", ["results/figures/sharpness.pdf"]).as_posix()
    'results/.made/figures/sharpness.pdf.json'
    """
    return Path(results) / RECORDS / f"{Path(outputs[0]).relative_to(results).as_posix()}.json"


def recorded(outputs: Sequence[str]) -> list[str]:
    """Return those of a job's outputs, files and not folders, that do not hold what they were made from.

    >>> recorded(["results/a/checkpoints", "results/a/summary.parquet", "results/a/summary.csv"])
    ['results/a/summary.csv']
    """
    return [path for path in outputs if Path(path).suffix and not path.endswith(HOLD_PROVENANCE)]


def artifact(results: str, name: str, **wildcards: object) -> str:
    """Return the path of an artifact; wildcards that are not given stay as ``{wildcard}``.

    Raises:
        KeyError: no artifact of that name.

    >>> artifact("results", "metrics", experiment="copying", seed=0)
    'results/copying/seed-0/training_metrics.parquet'
    >>> artifact("results", "metrics", seed=0)
    'results/{experiment}/seed-0/training_metrics.parquet'
    """
    path = ARTIFACTS[name]
    for key, value in wildcards.items():
        path = path.replace(f"{{{key}}}", str(value))
    return f"{results}/{path}"


def measurement_log(table: str | Path) -> str:
    """Return the log of the job that makes a measurement's table.

    >>> measurement_log("results/copying/seed-0/sharpness.parquet")
    'results/copying/seed-0/logs/measure_sharpness.log'
    >>> measurement_log("results/smollm2/measurements/untangling.parquet")
    'results/smollm2/logs/measure_untangling.log'
    """
    table = Path(table)
    folder = table.parent.parent if table.parent.name == "measurements" else table.parent
    return (folder / "logs" / f"measure_{table.stem}.log").as_posix()


_MADE_WHOLE = {
    r"(.*seed-[0-9]+)/(training|checkpoints)": r"\1/checkpoints",
    r"(.*seed-[0-9]+)/(importing|imported)": r"\1/imported",
    r"(.*seed-[0-9]+/[a-z0-9_]+)": r"\1.parquet",
    r"(.*texts/[a-z0-9_]+)": r"\1",
    r"(.*prompts/(trained|untrained))": r"\1",
    r"(.*)capturing/text_([a-z0-9_]+)": r"\1texts/\2",
    r"(.*)capturing/prompts_(trained|untrained)": r"\1prompts/\2",
    r"(.*measurements/[a-z0-9_]+)": r"\1.parquet",
}
"""Folders that are made whole, as patterns, and what Snakemake is asked for to make them."""


def how_to_make_again(path: str | Path) -> str:
    """Return, in words, the command that makes an artifact again, or the folder of which it is a part.

    A job runs again even if Snakemake holds its results for up to date.

    >>> how_to_make_again("results/copying/seed-0/checkpoints/step-000100.safetensors")
    'run `snakemake --cores 1 --force results/copying/seed-0/checkpoints` (with the --configfile of the run)'
    """
    target = Path(path).as_posix()
    for folder, made in _MADE_WHOLE.items():
        match = re.fullmatch(f"{folder}(/.*)?", target)
        if match:
            target = match.expand(made)
            break
    return f"run `snakemake --cores 1 --force {target}` (with the --configfile of the run)"
