"""What `config check` refuses is what would fail in `measure()`: every measurement, task and kind of model."""

import json
from pathlib import Path

import numpy as np
import pytest

from learning_geometry import tasks
from learning_geometry.config import ConfigError, task_data, validate
from learning_geometry.config.modules import subject
from learning_geometry.discovery import load_module
from learning_geometry.files import write_table
from learning_geometry.measurements.common.run import Run
from learning_geometry.tables.tidy import tidy
from learning_geometry.tasks.dataset import make_dataset, write_dataset
from learning_geometry.training.loop import train
from tests.own import own

TASKS = {
    "copying": {
        "vocabulary": 8,
        "length": 24,
        "segment_length": [6, 7],
        "out_of_distribution_segment_length": 8,
        "test_sequences": 60,
    },
    "marker_sums": {"vocabulary": 24, "modulus": 4, "first_marker": 8, "markers": [1, 2], "test_sequences": 60},
    "binary_operations": {"prime": 7},
    "text": {"file": "python_source", "length": 24, "repeated_length": 8, "test_sequences": 60},
}
MODELS = {
    "two layers": {},
    "one layer": {"layers": 1},
    "with MLPs": {"mlp_width": 8},
    "learned positions": {"positions": "learned"},
    "read out at the last position": {"readout": "last", "final_norm": True},
    "like Llama": {
        "heads": 4,
        "key_value_heads": 1,
        "head_width": 4,
        "norm_kind": "rms_norm",
        "mlp_width": 8,
        "gated_mlp": True,
        "activation": "silu",
        "bias": False,
        "final_norm": True,
    },
    "like GPT-NeoX": {"parallel_residual": True, "rotary_width": 2, "mlp_width": 8, "activation": "gelu_tanh"},
    "norms after the sublayers": {"norm": "post", "mlp_width": 8, "bias": ["output"]},
}
SLOW = ("block_curvature", "landscape", "subspace_function", "subspace_training")
"""Of these, models of two layers and of one are measured, and of copying the last three, as of all measurements."""

SEEDS = (0, 1)
RANDOM = {"null_draws": 40}
MEASURED = {
    "attention_entropy": {"sequences": 20},
    "attention_logits": {},
    "attention_patterns": {},
    "block_curvature": {
        "every": 60,
        "moments": [1.0],
        "sequences": 5,
        "tolerance": 0.3,
        "medium": 4,
        "bridge_rank": 2,
        "noise_pairs": 2,
        "noise_sequences": 5,
        "null_draws": 2,
    },
    "bridge_energy": RANDOM | {"ranks": [2], "medium": 4, "lag_rank": 2, "lags": 2},
    "commutators": {"every": 60, "pairs": 2, "finite_pairs": 1, "null_draws": 100},
    "composition": RANDOM | {"ranks": [2], "subspace_draws": 40},
    "contrast_over_training": {"every": 60, "sequences": 20, "null_draws": 2},
    "copying_errors": {"every": 60},
    "embedding_frequencies": RANDOM | {"every": 60},
    "embedding_spectrum": RANDOM | {"every": 60, "gap_draws": 400},
    "head_scores": {"every": 60, "sequences": 20},
    "induction_circuit": RANDOM | {"every": 60, "sequences": 20, "rank": 2},
    "landscape": {
        "sequences": 6,
        "held_out": 8,
        "tolerance": 0.3,
        "smallest_tolerance": 0.3,
        "distances": [0.1],
        "density_steps": 2,
        "density_probes": 2,
        "line_points": 3,
        "slice_points": 3,
        "descent_sequences": 8,
        "descent_steps": 1,
        "descent_every": 1,
    },
    "matrix_spectra": {"every": 60, "null_draws": 40},
    "series_audit": {},
    "length_generalisation": {"every": 60, "factors": [1.0, 1.5], "test_sequences": 10},
    "rank_over_training": {"every": 60, "sequences": 20, "least_vectors_per_width": 3, "null_draws": 2},
    "routing_coordinate": RANDOM,
    "sharpness": {"every": 60, "sequences": 5, "tolerance": 0.3, "smallest_tolerance": 0.3},
    "sparse_execution": {
        "latents": 24,
        "k": 4,
        "training_sequences": 60,
        "steps": 4,
        "ablated": [1, 16],
        "random_draws": 2,
        "null_draws": 2,
        "sequences": 40,
    },
    "spectrum_over_training": {"every": 60, "sequences": 20, "least_vectors_per_width": 3, "null_draws": 2},
    "subspace_function": {"every": 60, "sequences": 10, "medium": 4, "ranks": [2], "null_draws": 2},
    "subspace_training": {"steps": 6, "sequences": 20},
    "trajectory_geometry": {"draws": 100, "windows": 2, "neighbours": False},
    "trajectory_orientation": {"ranks": [1, 3], "null_draws": 100},
}
"""Measurement of trained runs -> settings that make it cheap."""


def experiment(task, model, measurement, settings, changed=None):
    """An experiment of the config with one measurement, filled in."""
    sections = {
        "seeds": list(SEEDS),
        "task": {"name": task} | TASKS[task] | (changed or {}),
        "model": {"width": 8, "heads": 2} | MODELS[model],
        "training": {
            "steps": 60,
            "batch_size": 5,
            "evaluate_every": 30,
            "evaluation_sequences": 20,
            "checkpoints": {"every": 10, "logarithmic": 0},
        },
        "measurements": {measurement: settings} if measurement else {},
    }
    return validate({"experiments": {"tiny": sections}})["experiments"]["tiny"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function that trains the two seeds of a task and a model, once, and returns the first run."""
    kept = {}

    def of(task, model):
        if (task, model) not in kept:
            settings = experiment(task, model, "", {})
            runs = [_train(tmp_path_factory.mktemp("run"), settings, seed) for seed in SEEDS]
            kept[task, model] = Run(*(getattr(runs[0], name) for name in FIELDS), others=(runs[1],))
        return kept[task, model]

    return of


FIELDS = ("experiment", "seed", "settings", "checkpoints", "dataset_file", "metrics_file")


def _train(folder: Path, settings, seed):
    dataset = make_dataset(settings["task"], seed)
    write_dataset(folder / "dataset.safetensors", dataset, {})
    run = {section: settings[section] for section in ("task", "model", "optimizer", "training")}
    rows = train(run, seed, dataset, folder / "work", {})
    write_table(tidy(rows, "tiny", seed), folder / "metrics.parquet", {})
    files = (folder / "work/checkpoints", folder / "dataset.safetensors", folder / "metrics.parquet")
    return Run("tiny", seed, run, *files)


def measured(run, name, settings):
    """Measure, with settings that are not checked, filled in; returns the error, or nothing."""
    module = load_module("measurements", name)
    settings = {key: entry["default"] for key, entry in module.SETTINGS.items()} | settings
    try:
        table = module.measure(run, settings)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        return error
    assert len(table)
    return None


def refused(task, model, name, settings):
    """What the check says, nothing if it lets the measurement pass."""
    try:
        experiment(task, model, name, settings)
    except ConfigError as error:
        assert all(line.startswith(f"experiments.tiny.measurements.{name}") for line in error.problems), error
        return str(error)
    return ""


def agree(trained, task, model, name, settings):
    said, failed = refused(task, model, name, settings), measured(trained(task, model), name, settings)
    assert bool(said) == (failed is not None), f"the check says {said!r}, and measure() raises {failed!r}"


def test_every_measurement_of_runs_is_in_the_table():
    assert set(MEASURED) == {name for name in own("measurements") if subject(name) == "runs"}
    # nothing is trained on sequences of a file
    assert {*TASKS, "given_test_sets"} == set(own("tasks"))


@pytest.mark.parametrize("name", sorted(MEASURED))
@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_check_refuses_exactly_what_fails(trained, task, name):
    models = [model for model in MODELS if not (task in ("copying", "text") and MODELS[model].get("readout") == "last")]
    others = models[-3:] if task == "copying" or (name == "sparse_execution" and task != "text") else []
    # of text one model alone, as what is asked of models is the same for all tasks
    first = models[:1] if task == "text" and name != "induction_circuit" else models[: 2 if name in SLOW else -3]
    for model in [*first, *others]:
        agree(trained, task, model, name, MEASURED[name])


CASES = [
    ("copying", "attention_entropy", {"sequences": 60}, {"sequences": 61}),
    ("copying", "attention_entropy", {"test_sets": ["in_distribution"]}, {"test_sets": ["held_out"]}),
    ("binary_operations", "attention_entropy", {"sequences": 24}, {"sequences": 25}),
    ("copying", "attention_patterns", {"sequence": 59}, {"sequence": 60}),
    ("copying", "landscape", {"held_out": 46}, {"held_out": 47}),
    ("copying", "bridge_energy", {"layer": 1}, {"layer": 2}),
    ("copying", "bridge_energy", {"medium": 6}, {"medium": 7}),
    ("copying", "composition", {"writing_layer": 0}, {"writing_layer": 1}),
    ("copying", "subspace_function", {"medium": 6}, {"medium": 7}),
    ("copying", "contrast_over_training", {"place": "first_start"}, {"place": "start"}),
    ("copying", "contrast_over_training", {"offset": 6}, {"offset": 7}),
    ("copying", "contrast_over_training", {"place": None}, {"place": "tokens"}),
    ("marker_sums", "contrast_over_training", {"first": "markers_1", "second": "markers_2", "place": None},
     {"first": "markers_1", "second": "markers_2", "place": "marker_positions"}),
    ("marker_sums", "contrast_over_training", {"first": "markers_1", "second": "markers_2", "place": None},
     {"first": "markers_1", "second": "markers_1", "place": None}),
    ("copying", "length_generalisation", {"factors": [0.75]}, {"factors": [0.7]}),
    ("copying", "length_generalisation", {"factors": [0.75], "scale_segments": True},
     {"factors": [0.5], "scale_segments": True}),
    ("copying", "rank_over_training", {"least_vectors_per_width": 57.5}, {"least_vectors_per_width": 57.6}),
    ("copying", "rank_over_training", {"sequences": None}, {"sequences": None, "least_vectors_per_width": 173}),
    ("binary_operations", "commutators", {"batch_size": 23}, {"batch_size": 24}),
    ("copying", "commutators", {"every": None, "steps": [60]}, {"every": None, "steps": []}),
    ("copying", "commutators", {"every": None, "steps": [60]}, {"every": None, "steps": [55]}),
    ("copying", "subspace_training", {"from_step": 40}, {"from_step": 30}),
    ("copying", "subspace_training", {"steps": 18}, {"steps": 21}),
    ("copying", "subspace_training", {"steps": 6}, {"steps": 7}),
    ("copying", "subspace_training", {"directions": 4}, {"directions": 6}),
    ("copying", "trajectory_geometry", {"windows": 2}, {"windows": 3}),
    ("copying", "trajectory_orientation", {"ranks": [6]}, {"ranks": [7]}),
    ("marker_sums", "sparse_execution", {"k": 24}, {"k": 25}),
]  # fmt: skip
"""Task, measurement, settings that just pass, settings that just do not."""


@pytest.mark.parametrize(("task", "name", "passes", "fails"), CASES, ids=range(len(CASES)))
def test_settings_are_refused_from_where_they_fail(trained, task, name, passes, fails):
    for settings, says in ((passes, False), (fails, True)):
        settings = MEASURED[name] | settings
        assert bool(refused(task, "two layers", name, settings)) == says, settings
        agree(trained, task, "two layers", name, settings)


def test_all_that_landscape_counts_together_is_named():
    assert refused("copying", "two layers", "landscape", MEASURED["landscape"] | {"held_out": 47}) == (
        "experiments.tiny.measurements.landscape: sequences + held_out + descent_sequences is 6 + 47 + 8 = 61, more "
        "than the task's 60 test_sequences; lower them"
    )


@pytest.mark.parametrize(
    ("name", "passes", "fails"),
    [
        # one key head of 4 in a stream of 8, in which 4 query heads mix 16 numbers
        ("block_curvature", {"bridge_rank": 4}, {"bridge_rank": 5}),
        ("bridge_energy", {"lag_rank": 4}, {"lag_rank": 5}),
        ("rank_over_training", {"least_vectors_per_width": 28.7}, {"least_vectors_per_width": 28.8}),
        ("subspace_training", {"directions": 4}, {"directions": 6}),
    ],
)
def test_settings_are_refused_from_where_heads_of_another_width_fail(trained, name, passes, fails):
    for settings, says in ((passes, False), (fails, True)):
        settings = MEASURED[name] | settings
        assert bool(refused("copying", "like Llama", name, settings)) == says, settings
        if name != "bridge_energy":  # which leaves out what was asked for
            agree(trained, "copying", "like Llama", name, settings)


def test_ranks_above_that_of_all_keys_are_refused_where_asked_for():
    settings = MEASURED["subspace_function"]
    assert "5 is above the width of all keys, 4; lower it" in refused(
        "copying", "like Llama", "subspace_function", settings | {"ranks": [5]}
    )
    assert not refused("copying", "like Llama", "subspace_function", settings | {"ranks": [4]})


@pytest.mark.parametrize("rank", [8, 9])
def test_ranks_that_would_be_left_out_are_refused_where_asked_for(rank):
    """No failure in `measure()`, which leaves them out: who asks for one would miss it."""
    assert refused("copying", "two layers", "subspace_function", MEASURED["subspace_function"] | {"ranks": [2, rank]})
    assert not refused("copying", "two layers", "subspace_function", MEASURED["subspace_function"] | {"ranks": [10]})


def test_a_task_without_a_target_at_the_last_position_is_not_read_out_there_alone(tmp_path):
    with pytest.raises(ConfigError, match=r"tiny\.model\.readout: the task has nothing to learn .* \(last\); use all$"):
        experiment("copying", "read out at the last position", "", {})
    settings = experiment("copying", "two layers", "", {})
    settings["model"]["readout"] = "last"
    # the first evaluation divides by the number of positions that count
    with pytest.raises(RuntimeWarning, match="invalid value"):
        _train(tmp_path, settings, 0)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_literals_of_a_task_are_true(task):
    module = tasks.load({"name": task})
    variants = {"copying": [{"pool_size": 3}], "marker_sums": [{"distractors": "any"}]}.get(task, [])
    for change in [{}, *variants, {}]:
        settings = experiment(task, "two layers", "", {}, change)["task"]
        given = json.dumps(settings, sort_keys=True)
        drawn = make_dataset(settings, 1).test_sets
        assert task_data.sizes(given) == {name: len(arrays["tokens"]) for name, arrays in drawn.items()}
        for name, arrays in drawn.items():
            assert task_data.arrays(given, name) == set(arrays) == set(getattr(module, "ARRAYS", arrays))
            assert {len(array) for array in arrays.values()} == {task_data.sizes(given)[name]}
            predictions = np.zeros_like(arrays["targets"])
            assert task_data.errors(given) == set(module.errors(predictions, arrays)) == set(module.ERRORS)
            assert ("all" in module.READOUTS) == bool((arrays["targets"] >= 0).any(1).all())
        last = [bool((arrays["targets"][:, -1] >= 0).all()) for arrays in drawn.values()]
        assert ("last" in module.READOUTS) == all(last)


def test_what_a_task_does_not_say_is_drawn(monkeypatch):
    """A task of the user's own needs no literal: one sequence of each test set is looked at."""
    module = tasks.load({"name": "marker_sums"})
    for literal in ("test_set_sizes", "ARRAYS", "ERRORS", "READOUTS"):
        monkeypatch.delattr(module, literal)
    monkeypatch.setattr(task_data, "module_literal", missing)
    given = json.dumps(experiment("marker_sums", "two layers", "", {}, {"test_sequences": 61})["task"])
    assert task_data.sizes(given) == dict.fromkeys(
        [f"markers_{m}{kind}" for m in (1, 2) for kind in ("", "_any_distractors")], 61
    )
    assert task_data.arrays(given, "markers_1") == {"tokens", "targets", "marker_positions", "values"}
    assert task_data.errors(given) == {"error"}
    assert task_data.readouts(given) is None


def missing(kind, name, literal):
    raise KeyError(literal)
