"""Dictionaries that SAELens trains, judged from a config in a real run, against what SAELens says of them."""

import json
import shutil
import subprocess

import pytest
import torch

from learning_geometry.dictionaries import storage
from learning_geometry.files import read_table, write_tensors
from learning_geometry.measurements.common.dictionary_vectors import Pairs, split
from learning_geometry.measurements.common.language_run import ACTIVATIONS
from learning_geometry.models.language.cache import open_activations

from .conftest import REPOSITORY, environment

pytestmark = pytest.mark.slow

KINDS = ("topk", "standard", "jumprelu", "batchtopk")
PART = "layers.1.attention.output"


@pytest.fixture(scope="module")
def saelens():
    """Return what runs ``train_with_saelens.py`` in SAELens' own environment."""
    install = ["sh", str(REPOSITORY / "tests/install_saelens.sh")]
    installed = subprocess.run(install, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if installed.returncode:
        pytest.fail(f"SAELens is not here, so that nothing is compared with it:\n{installed.stdout}", pytrace=False)

    def run(*arguments):
        python = REPOSITORY / ".venv-saelens/bin/python"
        script = REPOSITORY / "tests/dictionaries/train_with_saelens.py"
        done = subprocess.run([python, script, *map(str, arguments)], capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def config(dictionaries):
    language_model = {
        "model": {"source": "tiny_language_model"},
        "texts": {"documentation": "python_documentation"},
        "text": {"tokens": 5120, "window": 32, "layers": [1]},
        "measurements": {
            "dictionary_sweep": {"k": 4, "steps": 10, "batch_size": 64, "start_vectors": 256}
            | {"dictionaries": dictionaries}
        },
    }
    return {"language_models": {"tiny": language_model}}


def test_dictionaries_of_saelens_are_judged_as_saelens_does(workflow_copy, saelens):
    folder, ours = workflow_copy.folder, {"ours": {"latents": 32}}
    workflow_copy.write_config(config(ours))
    workflow_copy.snakemake("--cores", "2")
    (text,) = (path.parent for path in folder.glob(f"results/tiny/**/{ACTIVATIONS}"))
    parts = split(open_activations(text / ACTIVATIONS), 0.1)
    pairs = Pairs({"documentation": parts}, (PART, PART))
    for name, stream in (("everything", pairs.everything()), ("held_out", pairs.held_out())):
        write_tensors(folder / f"{name}.safetensors", {"vectors": torch.cat([each for each, _ in stream])}, {})

    saelens("train", folder / "everything.safetensors", folder / "saes")
    folders = [folder / "saes" / kind for kind in KINDS]
    told = json.loads(saelens("judge", folder / "held_out.safetensors", *folders).splitlines()[-1])
    before = {path: path.read_bytes() for path in (folder / "saes").rglob("*") if path.is_file()}
    own = {kind: {"saelens": f"saes/{kind}"} for kind in KINDS}
    workflow_copy.write_config(config(ours | own))
    assert workflow_copy.planned() == {"measure_language_model": 1, "summarize": 1}
    workflow_copy.snakemake("--cores", "2")
    runs = read_table(folder / "results/tiny/runs.parquet")
    rows = runs[(runs["null"] == "") & (runs["part"] == PART)].set_index(["data", "quantity"])["value"]
    for kind in KINDS:
        assert told[kind]["explained_variance"] > 0.5, told
        assert rows[kind, "explained_variance"] == pytest.approx(told[kind]["explained_variance"], abs=1e-6)
        assert rows[kind, "active_latents"] == pytest.approx(told[kind]["active_latents"], rel=1e-3)
        assert 0 <= rows[kind, "dead_share"] < 1
        assert {"dictionary_loss_increase", "active_subspace_cosine"} <= set(rows[kind].index)
    assert {path: path.read_bytes() for path in (folder / "saes").rglob("*") if path.is_file()} == before
    assert "ours" in rows.index.get_level_values("data")

    # where a dictionary lies is no part of what a result is made from, what it holds is
    (folder / "saes").rename(folder / "moved")
    workflow_copy.write_config(config(ours | {kind: {"saelens": f"moved/{kind}"} for kind in KINDS}))
    assert workflow_copy.planned() == {}
    shutil.copy(folder / "moved/jumprelu/sae_weights.safetensors", folder / "moved/batchtopk/sae_weights.safetensors")
    assert workflow_copy.planned() == {"measure_language_model": 1, "summarize": 1}


def test_dictionaries_of_ours_are_found_by_hooked_transformers(workflow_copy, saelens):
    workflow_copy.write_config(config({"ours": {"latents": 32}}))
    workflow_copy.snakemake("--cores", "2")
    (saved,) = workflow_copy.folder.glob("results/tiny/**/ours-seed-0")
    assert storage.load(saved).metadata["activation"] == PART
    told = json.loads(saelens("attach", saved, workflow_copy.folder / "tiny_language_model").splitlines()[-1])
    assert told["hook_name"] == "blocks.1.hook_attn_out" and told["off"] < 1e-5
    assert "blocks.1.hook_attn_out.hook_sae_acts_post" in told["shown"]
