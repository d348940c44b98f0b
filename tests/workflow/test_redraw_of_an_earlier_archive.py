"""The archive of a run of an earlier version (commit f915796, layout 1): every figure and the ledger are redrawn."""

import subprocess
import sys

import pandas as pd
import pytest

from learning_geometry.config import read_yaml

from .conftest import REPOSITORY, copy_workflow, environment

ARCHIVE = REPOSITORY / "tests/archives/run-of-layout-1.tar.gz"


@pytest.mark.slow
def test_an_earlier_archive_is_redrawn_under_the_present_names(tmp_path):
    copy = copy_workflow(tmp_path)
    source = {"PYTHONPATH": str(copy.folder / "src")}
    unpack = [sys.executable, "-m", "learning_geometry.archive", "unpack", str(ARCHIVE), "again"]
    subprocess.run(unpack, cwd=copy.folder, env=environment() | source, check=True)
    options = ("--snakefile", "redraw.smk", "--config", "results=again", "--cores", "2")
    copy.snakemake(*options, config="again/config.yaml")
    again = copy.folder / "again"
    figures = read_yaml(again / "config.yaml")["figures"]
    assert len(figures) > 30
    for name in figures:
        assert (again / f"figures/{name}.pdf").stat().st_size and (again / f"figures/{name}.png").stat().st_size, name
    ledger = pd.read_csv(again / "claims.csv")
    assert {"orthogonal_subspaces", "execution_manifolds", "activation_geometry"} <= set(ledger["study"])
    summary = pd.read_csv(again / "tiny/summary.csv")
    assert summary["quantity"].str.contains("after_ablation").any()
    assert not summary["quantity"].str.contains("after_removal|half_change").any()
