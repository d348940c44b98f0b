"""A tiny version of config/text.yaml, as a user runs it, and the command that fills docs/text.md from a run."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from learning_geometry.claims.document import BEGIN, END
from learning_geometry.claims.text_models import CLAIMS
from learning_geometry.files import read_table, read_tensors

from .conftest import REPOSITORY, Copy, copy_workflow, environment

WORDS = ("measure", "tensor", "layer", "head", "stream", "token", "rank", "seed")


def tiny_text_config():
    """The shipped experiment, on a text of some words, with a model that learns it for seconds."""
    config = yaml.safe_load((REPOSITORY / "config/text.yaml").read_text())
    experiment = config["experiments"]["text"]
    experiment["seeds"] = [0, 1]
    experiment["task"] |= {"file": "words/*.txt", "vocabulary": 300, "length": 32, "repeated_length": 12}
    experiment["task"] |= {"test_sequences": 40}
    experiment["model"] |= {"layers": 2, "heads": 2, "width": 24, "mlp_width": 24}
    experiment["optimizer"]["schedule"]["warmup_steps"] = 5
    experiment["training"] |= {"steps": 40, "evaluate_every": 20, "evaluation_sequences": 20}
    experiment["training"]["checkpoints"] = {"every": 10, "logarithmic": 2}
    shared = {"test_sets": ["held_out"], "every": 20, "sequences": 40, "null_draws": 2}
    experiment["measurements"] = {
        "copying_errors": {"every": 40},
        "spectrum_over_training": shared,
        "rank_over_training": shared,
        "induction_circuit": {"every": 10, "sequences": 20, "null_draws": 40},
        "trajectory_geometry": {"draws": 100, "windows": 0, "neighbours": False},
    }
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Copy:
    copy = copy_workflow(tmp_path_factory.mktemp("text"))
    generator = np.random.default_rng(0)
    (copy.folder / "words").mkdir()
    for number in range(12):
        (copy.folder / f"words/{number:02}.txt").write_text(" ".join(generator.choice(WORDS, 1500)))
    copy.write_config(tiny_text_config())
    copy.snakemake("--cores", "2")
    return copy


@pytest.mark.slow
def test_a_tiny_run_of_the_text_config(run):
    results = run.folder / "results/text"
    with Image.open(results / "figures/text_training.png") as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(maxcolors=2**24)) > 20
    ledger = pd.read_csv(results / "claims.csv")
    assert set(ledger["claim"]) == {claim.name for claim in CLAIMS}
    assert set(ledger["verdict"]) <= {"inconclusive", "not supported"} and (ledger["n"] <= 2).all()
    drawn = [read_tensors(results / f"text/seed-{seed}/dataset.safetensors") for seed in (0, 1)]
    assert all(np.array_equal(array, drawn[1][name]) for name, array in drawn[0].items())
    summary = read_table(results / "text/summary.parquet")
    measured = summary[summary["null"] == ""]
    loss = measured[(measured["quantity"] == "running_loss") & (measured["data"] == "held_out")].sort_values("step")
    assert loss["estimate"].iloc[-1] < loss["estimate"].iloc[0]
    # all is up to date, and a changed file of the text is not
    assert run.planned() == {}
    file = run.folder / "words/03.txt"
    file.write_text(file.read_text()[::-1])
    planned = run.planned()
    assert planned["make_dataset"] == planned["train"] == 2

    document = run.folder / "text.md"
    document.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    command = [sys.executable, "-m", "learning_geometry.claims.document", str(results), "--into", str(document)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment() | {"PYTHONPATH": str(run.folder / "src")}
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = document.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "\nold\n" not in text
    assert all(claim.statement in text for claim in CLAIMS)
    shown = f"{loss['estimate'].iloc[-1]:.2f}"
    # of all sequences, and so near to that of the first ones
    assert "| loss on text held out (nats) | " in text and shown[:2] in text
