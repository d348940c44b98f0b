"""config/schema.json, by which editors complete and check config files."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from learning_geometry.config import editors, settings_schema, subject, validate
from learning_geometry.config.__main__ import main
from learning_geometry.config.editors import editor_schema, editor_text
from tests.test_config import valid

from .own import own, own_summaries

CONFIG = Path(__file__).parents[1] / "config"
VALIDATOR = jsonschema.Draft7Validator(json.loads((CONFIG / "schema.json").read_text(encoding="utf-8")))


def problems(config: Any) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(config)]


def test_the_file_is_in_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # files of a user's own, which are not in git, are none of the file's
    monkeypatch.setattr(editors, "available", own_summaries)
    written = (CONFIG / "schema.json").read_text(encoding="utf-8")
    assert written == editor_text(), "run: python -m learning_geometry.config schema > config/schema.json"
    assert main(["schema"]) == 0 and capsys.readouterr().out == written
    jsonschema.Draft7Validator.check_schema(editor_schema())


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml"])
def test_the_shipped_configs_name_it_and_pass(name: str) -> None:
    text = (CONFIG / name).read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert problems(yaml.safe_load(text)) == []


def test_a_filled_in_config_passes() -> None:
    assert problems(valid()) == []
    assert problems(validate(valid())) == []


@pytest.mark.parametrize(
    "path, value",
    [
        ("experimentz", {}),
        ("experiments.copying.seed", [0]),
        ("experiments.copying.seeds", []),
        ("experiments.copying.task.vocabularies", 8),
        ("experiments.copying.task.modulus", 8),  # of another task
        ("experiments.copying.task.vocabulary", "8"),
        ("experiments.copying.task.name", "copyin"),
        ("experiments.copying.task", {"vocabulary": 8}),
        ("experiments.copying.model.layer", 2),
        ("experiments.copying.model.name", "transfomer"),
        ("experiments.copying.optimizer.schedule.warmup", 5),
        ("experiments.copying.optimizer.name", "adam"),
        ("experiments.copying.training", {"batch_size": 3}),
        ("experiments.copying.training.checkpoints.evry", 3),
        ("experiments.copying.measurements.head_score", {}),
        ("experiments.copying.measurements.head_scores.evry", 3),
        ("experiments.copying.measurements.activation_ranks", {}),  # of language models
        ("experiments.copying.measurements.head_scores", None),  # there is nothing below to remove it from
        ("experiments.copying.sweep", {"optimizer.learning_rat": [0.1]}),
        ("experiments.copying.sweep", {"optimizer.learning_rate": ["0.1"]}),
        ("experiments.copying.sweep", {"task.pool_size": []}),
        ("experiments.Copying!", {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 1}}),
        ("language_models.embedded.measurements.untangling", {"fold": 3}),
        ("language_models.embedded.measurements.head_scores", {}),
        ("language_models.embedded.model.sourc", "x"),
        ("figures.embedding_singular_value", {"experiments": ["copying"]}),
        ("figures.embedding_singular_values", {}),
        ("figures.embedding_singular_values.quantities", []),
        ("figures.sweep", {"experiments": ["copying"], "quantities": [{"quantiti": "running_loss"}]}),
    ],
)
def test_what_the_check_refuses_by_itself_is_marked(path: str, value: Any) -> None:
    config: Any = valid()
    *above, last = path.split(".")
    section = config
    for part in above:
        section = section.setdefault(part, {})
    section[last] = value
    with pytest.raises(ValueError):
        validate(config)
    assert problems(config), path


def test_every_setting_of_every_module_takes_its_default_and_refuses_another_name() -> None:
    for name in own("measurements"):
        of_runs = subject(name) == "runs"
        config = valid()
        section, entry = ("experiments", "copying") if of_runs else ("language_models", "embedded")
        settings = {key: each["default"] for key, each in settings_schema("measurements", name)["properties"].items()}
        config[section][entry]["measurements"] = {name: settings}
        assert problems(config) == [], name
        config[section][entry]["measurements"] = {name: {"no_such_setting": 1}}
        assert problems(config) == [f"$.{section}.{entry}.measurements.{name}"]
    for name in own("tasks"):
        config = valid()
        properties = settings_schema("tasks", name)["properties"]
        config["experiments"]["copying"]["task"] = {"name": name} | {
            key: properties[key]["default"] for key in properties
        }
        assert problems(config) == [], name


def test_an_overlay_may_leave_out_and_remove() -> None:
    overlay = {
        "extends": "config/config.yaml",
        "experiments": {
            "copying": {"task": {"pool_size": 10}, "training": {"steps": 100}, "measurements": {"landscape": None}},
            "grokking_addition": None,
        },
        "language_models": {"smollm2_texts": {"texts": {"source_code": None}}},
        "figures": {"landscape": None},
    }
    assert problems(overlay) == []
    assert problems({key: value for key, value in overlay.items() if key != "extends"})
    overlay["experiments"]["copying"]["task"] = {"pool_sise": 10}  # type: ignore[index]
    assert problems(overlay) == ["$.experiments.copying.task"]
