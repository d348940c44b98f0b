"""Own runs written for other tools and read back as theirs: every measurement gives the same table."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from learning_geometry.config import validate
from learning_geometry.config.named_settings import uniform_checkpoints
from learning_geometry.discovery import load_module
from learning_geometry.export import export_run
from learning_geometry.files import write_table
from learning_geometry.measurements.common.run import Run
from learning_geometry.planning.jobs import run_settings
from learning_geometry.sources.chosen import checkpoints_of
from learning_geometry.tables.tidy import tidy
from learning_geometry.tasks.dataset import make_dataset, read_dataset, write_dataset
from learning_geometry.training.checkpoints import finish_checkpoints, read_arrays, schedule
from learning_geometry.training.importing import import_run
from learning_geometry.training.loop import train
from tests.workflow.conftest import tiny_config

SEEDS, STEPS = [0, 1, 2, 3, 4], 10
WITHOUT_BIAS_OF_READOUT = ["query_key_value", "output", "mlp"]
MODELS = {
    "nanogpt": {
        "positions": "learned",
        "mlp_width": 32,
        "final_norm": True,
        "tied_readout": True,
        "bias": WITHOUT_BIAS_OF_READOUT,
    },
    "gpt_neox": {
        "mlp_width": 32,
        "final_norm": True,
        "heads": 2,
        "rotary_width": 2,
        "parallel_residual": True,
        "bias": WITHOUT_BIAS_OF_READOUT,
    },
    "llama": {
        "mlp_width": 32,
        "final_norm": True,
        "heads": 2,
        "key_value_heads": 1,
        "norm_kind": "rms_norm",
        "gated_mlp": True,
        "activation": "silu",
        "bias": False,
    },
    "transformer_lens": {"positions": "learned", "mlp_width": 32, "final_norm": True, "heads": 2},
}
FILES = {"nanogpt": "ckpt_{step}.pt", "transformer_lens": "model_{step}.pt"}
PLAIN = "plain"
"""A state dict of the workflow's own names, with a map of the user's."""


def experiments(target, folder):
    """The native experiment of a target, and the one that reads what was exported of it."""
    tiny = tiny_config()["experiments"]["tiny_sums" if target == PLAIN else "tiny"]
    every = {"every": 1, "logarithmic": 0}
    training = {"steps": STEPS, "batch_size": 16, "evaluate_every": 1, "evaluation_sequences": 20, "checkpoints": every}
    model = tiny["model"] if target == PLAIN else {"width": 8, **MODELS[target]}
    measurements = {
        name: {key: 10 if key == "every" else value for key, value in each.items()}
        for name, each in tiny["measurements"].items()
    }
    for each in measurements.values():
        each.pop("details_every", None)
    more = {name: {} for name in ("matrix_spectra", "series_audit")} | {
        "trajectory_geometry": {"draws": 100, "windows": 2, "neighbour_draws": 2},
        "trajectory_orientation": {"ranks": [1, 3], "null_draws": 100},
        "attention_entropy": {"every": 10, "sequences": 20},
        "routing_coordinate": {"null_draws": 40},
        "commutators": {"every": 10, "pairs": 2, "finite_pairs": 1, "null_draws": 100},
        "subspace_training": {"steps": 2, "from_step": 6, "sequences": 20},
    }
    native = {
        "seeds": SEEDS,
        "task": tiny["task"],
        "model": model | {"dropout": 0.0},
        "optimizer": {"learning_rate": 3.0e-2, "weight_decay": 0.1},
        "training": training,
        "measurements": measurements | {name: measurements.get(name, settings) for name, settings in more.items()},
    }
    source = {
        "files": str(folder / "seed-{seed}" / FILES.get(target, "checkpoint-{step}")),
        "names": target,
        "unchecked": True,
        "evaluation_sequences": 20,
        "batch_size": 16,
    }
    if target == PLAIN:
        source |= {"files": str(folder / "seed-{seed}/step_{step}.pt"), "names": str(folder / "own.yaml")}
    foreign = {key: value for key, value in native.items() if key != "training"} | {"source": source}
    return native, foreign


def measurable(experiment):
    """An experiment, filled in, with those of its measurements that the config allows."""
    chosen = {}
    for name, settings in experiment["measurements"].items():
        one = copy.deepcopy(experiment) | {"measurements": {name: settings}}
        try:
            chosen |= validate({"experiments": {"e": one}})["experiments"]["e"]["measurements"]
        except ValueError as error:
            assert f"measurements.{name}" in str(error), error
    filled = validate({"experiments": {"e": copy.deepcopy(experiment) | {"measurements": {}}}})["experiments"]["e"]
    return filled | {"measurements": chosen}


def native_runs(experiment, folder):
    settings = run_settings(experiment)
    for seed in SEEDS:
        at = folder / f"seed-{seed}"
        write_dataset(at / "dataset.safetensors", make_dataset(settings["task"], seed), {})
        provenance = settings | {"name": "e", "seed": seed}
        rows = train(settings, seed, read_dataset(at / "dataset.safetensors"), at / "training", provenance)
        write_table(tidy(rows, "e", seed), at / "metrics.parquet", {})
        kept = schedule(settings["training"]["checkpoints"], STEPS)
        finish_checkpoints(at / "training/checkpoints", at / "checkpoints", kept, {})


def write_plain(native, foreign):
    """Write the native checkpoints as state dicts, with a map of the user's."""
    for seed in SEEDS:
        (foreign / f"seed-{seed}").mkdir(parents=True)
        for step in range(STEPS + 1):
            arrays = read_arrays(native / f"seed-{seed}/checkpoints", step)
            state = {f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}
            torch.save({"model_state_dict": state, "step": step}, foreign / f"seed-{seed}/step_{step}.pt")
    names = {name.replace("layers.0", "layers.{l}").replace("layers.1", "layers.{l}") for name in arrays}
    (foreign / "own.yaml").write_text(yaml.safe_dump({name: name for name in sorted(names)}))


def imported_runs(experiment, folder, native):
    settings = run_settings(experiment) | {"source": experiment["source"]}
    for seed in SEEDS:
        at = folder / f"seed-{seed}"
        places = checkpoints_of(experiment["source"], [seed])[seed]
        digests = {step: f"{seed} {step}" for step in places}
        dataset = read_dataset(native / f"seed-{seed}/dataset.safetensors")
        rows = import_run(settings, places, at / "importing", digests, {}, dataset)
        write_table(tidy(rows, "e", seed), at / "metrics.parquet", {})
        finish_checkpoints(at / "importing/checkpoints", at / "checkpoints", places, {})


def run_at(folder, seed, settings, native, others=()):
    at = folder / f"seed-{seed}"
    dataset = native / f"seed-{seed}/dataset.safetensors"
    return Run("e", seed, settings, at / "checkpoints", dataset, at / "metrics.parquet", tuple(others))


def tables(experiment, folder, native, seeds):
    settings = run_settings(experiment)
    for name, measured in experiment["measurements"].items():
        wanted = getattr(load_module("measurements", name), "NEEDS", {}).get("other_seeds", "none")
        for seed in seeds:
            others = [run_at(folder, other, settings, native) for other in SEEDS if other != seed]
            chosen = {"none": [], "next": others[:1], "all": others}[wanted]
            run = run_at(folder, seed, settings, native, chosen)
            yield name, seed, load_module("measurements", name).measure(run, measured)


def equal(ours, theirs, name):
    keys = [column for column in ours.columns if column not in ("value", "low", "high")]
    pd.testing.assert_frame_equal(ours[keys], theirs[keys], obj=name)
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(theirs[column], ours[column], rtol=1e-6, atol=1e-6, equal_nan=True, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("target", [PLAIN, *MODELS])
def test_what_is_exported_measures_the_same_when_it_is_read_back(target, tmp_path):
    given, given_back = experiments(target, tmp_path / "foreign")
    native = measurable(given)
    native_runs(native, tmp_path / "native")
    if target == PLAIN:
        write_plain(tmp_path / "native", tmp_path / "foreign")
    else:
        for seed in SEEDS:
            export_run(tmp_path / f"native/seed-{seed}", target, tmp_path / f"foreign/seed-{seed}")
    foreign = measurable(given_back)
    assert list(foreign["measurements"]) == list(native["measurements"])
    assert uniform_checkpoints(foreign) == uniform_checkpoints(native) == STEPS + 1
    imported_runs(foreign, tmp_path / "imported", tmp_path / "native")
    for seed in SEEDS:
        for step in range(STEPS + 1):
            ours = read_arrays(tmp_path / f"native/seed-{seed}/checkpoints", step)
            theirs = read_arrays(tmp_path / f"imported/seed-{seed}/checkpoints", step)
            assert {name: array.tobytes() for name, array in ours.items()} == {
                name: array.tobytes() for name, array in theirs.items()
            }
    # with the same parameters of all seeds, one seed's tables tell the rest
    of_native = tables(native, tmp_path / "native", tmp_path / "native", SEEDS[:1])
    of_foreign = tables(foreign, tmp_path / "imported", tmp_path / "native", SEEDS[:1])
    for (name, seed, ours), (_, _, theirs) in zip(of_native, of_foreign, strict=True):
        equal(ours, theirs, f"{name} of seed {seed}")
