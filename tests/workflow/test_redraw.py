"""An archive alone gives every figure, ledger and report again, where nothing can train or reach the network."""

import re
import shutil
import subprocess
import sys

import pytest

from learning_geometry.archive import unpack
from learning_geometry.files import read_json

from .conftest import REPOSITORY, copy_workflow, environment

MAKES_TABLES = [
    "src/learning_geometry/training",
    "workflow/rules/training.smk",
    "workflow/rules/measurements.smk",
    "workflow/scripts/make_dataset.py",
    "workflow/scripts/train.py",
    "workflow/scripts/measure.py",
    "workflow/scripts/summarize.py",
]

# `src` is on the path of Snakemake's own scripts: Python runs this at the start of each process
FORBIDS = """
import importlib.abc, socket, sys

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError(f"a redraw connects to {address}")

socket.socket.connect = refuse

class WithoutTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ImportError("a redraw imports torch")

sys.meta_path.insert(0, WithoutTorch())
"""


OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
"""What `make test ARGS=...` sets for all that it starts, other calls of make among them."""


@pytest.fixture(scope="module")
def archived(finished, tmp_path_factory):
    """A copy of the finished run with its archive, and the path of the archive."""
    folder = tmp_path_factory.mktemp("archived") / "copy"
    shutil.copytree(finished[0].folder, folder)
    copy = type(finished[0])(folder)
    copy.snakemake("--cores", "1", "archive")
    return copy, folder / "results/archive.tar.gz"


@pytest.fixture(scope="module")
def redrawn(archived, tmp_path_factory):
    """A workflow that cannot make tables, with all that `make redraw` does run in it, and what that printed."""
    copy = copy_workflow(tmp_path_factory.mktemp("elsewhere"))
    for name in MAKES_TABLES:
        path = copy.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # nor may it need the files that a language model read
    shutil.rmtree(copy.folder / "tiny_language_model")
    for path in copy.folder.glob("harm*.txt"):
        path.unlink()
    (copy.folder / "src/sitecustomize.py").write_text(FORBIDS)
    shutil.copy(archived[1], copy.folder / "given.tar.gz")
    return copy, [redraw_line(copy, line) for line in recipe("given.tar.gz", "again")]


def recipe(archive, folder):
    """The commands of `make redraw`, with this Python."""
    done = subprocess.run(
        [
            "make",
            "--dry-run",
            "--silent",
            "--old-file=.venv/run",
            "redraw",
            f"FROM={archive}",
            f"TO={folder}",
            "CORES=2",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in environment().items() if name not in OF_MAKE},
    )
    lines = [line for line in done.stdout.splitlines() if "snakemake " in line or "learning_geometry.archive" in line]
    programs = {"python": sys.executable, "snakemake": f"{sys.executable} -m snakemake"}
    return [re.sub(r"\.venv/bin/(python|snakemake)", lambda match: programs[match[1]], line) for line in lines]


def redraw_line(copy, line):
    done = subprocess.run(
        line,
        shell=True,
        cwd=copy.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | {"PYTHONPATH": "src"},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_figure_and_ledger_is_the_same_bytes(finished, redrawn):
    original, again = finished[0].folder / "results", redrawn[0].folder / "again"
    drawn = sorted([*original.glob("figures/*"), *original.glob("claims.*"), *original.glob("*/summary.csv")])
    names = [str(path.relative_to(original)) for path in drawn]
    assert {"figures/transition_timeline.pdf", "figures/transition_timeline.png", "claims.html"} <= set(names)
    assert "tiny/summary.csv" in names
    assert [name for name in names if (again / name).read_bytes() != (original / name).read_bytes()] == []
    unpacked, _, _, compared = redrawn[1]
    assert "8 tables unpacked into again" in unpacked
    assert f"all {len(names)} figures and pages are the same bytes as in the archived run" in compared


def test_the_report_holds_what_the_report_of_the_run_holds(redrawn):
    text = (redrawn[0].folder / "again/report.html").read_text()
    for label in ("Transition timeline", "summary over seeds", "claims and verdicts"):
        assert label in text


def test_a_missing_table_is_an_error_and_never_a_training(redrawn):
    copy, _ = redrawn
    assert not (copy.folder / "results").exists() and not list(copy.folder.rglob("*.safetensors"))
    unpack(copy.folder / "given.tar.gz", copy.folder / "bare")
    (copy.folder / "bare/tiny/runs.parquet").unlink()
    arguments = ("--snakefile", "redraw.smk", "--config", "results=bare", "--dry-run")
    done = copy.snakemake(*arguments, config="bare/config.yaml", check=False)
    assert done.returncode != 0
    assert "Missing input files" in done.stdout and "bare/tiny/runs.parquet" in done.stdout


def test_the_archived_config_repeats_the_run(archived, redrawn):
    copy, _ = archived
    shutil.copy(redrawn[0].folder / "again/config.yaml", copy.folder / "archived.yaml")
    assert copy.planned("archive", config="archived.yaml") == {}


def test_the_provenance_of_every_run_is_in_the_archive(redrawn):
    made = read_json(redrawn[0].folder / "again/archive.json")["provenance"]["tiny/runs.parquet"]["tables"]
    for name in ("training_metrics", "sharpness"):
        provenance = made[f"results/tiny/seed-1/{name}.parquet"]
        assert provenance["seed"] == 1 and provenance["code"]
