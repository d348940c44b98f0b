"""Configs that say only what differs from another, and what is refused of them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from learning_geometry.config import ConfigError, load, read_config
from learning_geometry.config.__main__ import main

ROOT = Path(__file__).parents[1]

BASE: dict[str, Any] = {
    "results": "kept",
    "experiments": {
        "first": {
            "seeds": [0, 1],
            "task": {"name": "copying", "vocabulary": 24, "pool_size": 10},
            "model": {"layers": 2, "width": 32},
            "optimizer": {"learning_rate": 0.01, "clip_norm": 1.0},
            "training": {"steps": 1000, "checkpoints": {"every": 100}},
            "measurements": {"embedding_spectrum": {"every": 200}, "head_scores": {}},
        },
        "second": {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 100}},
        "third": {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 100}},
    },
    "figures": {
        "embedding_singular_values": {"experiments": ["first"]},
        "pool_threshold": {"experiments": ["second", "first", "third"]},
        "grokking_timeline": {"experiments": ["second"]},
    },
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))

    def written(update: Any, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(update if isinstance(update, str) else yaml.safe_dump(update))
        return path

    return written


def extended(write: Any, **update: Any) -> dict[str, Any]:
    return read_config([write({"extends": "base.yaml", **update})])


def test_a_file_that_says_nothing_else_is_the_file_below(write: Any, tmp_path: Path) -> None:
    assert extended(write) == BASE
    assert load(write({"extends": "base.yaml", "figures": {"grokking_timeline": None}})) == load(
        write(BASE | {"figures": {k: v for k, v in BASE["figures"].items() if k != "grokking_timeline"}}, "whole.yaml")
    )


def test_mappings_are_merged_and_all_else_is_replaced(write: Any) -> None:
    update = {"first": {"seeds": [5], "model": {"layers": 3}, "optimizer": {"clip_norm": None}}}
    first = extended(write, experiments=update)["experiments"]["first"]
    assert first["seeds"] == [5] and first["model"] == {"layers": 3, "width": 32}
    # where names are not the user's own null is a value
    assert first["optimizer"] == {"learning_rate": 0.01, "clip_norm": None}
    assert first["task"] == BASE["experiments"]["first"]["task"]


def test_null_removes_experiments_measurements_and_figures(write: Any) -> None:
    config = extended(
        write,
        experiments={"first": {"measurements": {"head_scores": None}}, "third": None},
        figures={"embedding_singular_values": None},
    )
    assert list(config["experiments"]) == ["first", "second"]
    assert list(config["experiments"]["first"]["measurements"]) == ["embedding_spectrum"]
    assert config["figures"] == {
        "pool_threshold": {"experiments": ["second", "first"]},
        "grokking_timeline": {"experiments": ["second"]},
    }


def test_a_figure_goes_with_the_last_of_its_experiments(write: Any) -> None:
    config = extended(write, experiments={"second": None})
    assert config["figures"] == {
        "embedding_singular_values": {"experiments": ["first"]},
        "pool_threshold": {"experiments": ["first", "third"]},
    }


def test_a_figure_given_anew_must_name_what_there_is(write: Any) -> None:
    path = write(
        {
            "extends": "base.yaml",
            "experiments": {"third": None},
            "figures": {"pool_threshold": {"experiments": ["third"]}, "grokking_timeline": None},
        }
    )
    with pytest.raises(ConfigError, match=r'figures.pool_threshold.experiments\[0\]: no experiment "third"'):
        load(path)


def test_a_figure_that_lacks_what_it_reads_is_refused(write: Any) -> None:
    update = {"experiments": {"first": {"measurements": {"embedding_spectrum": None}}}}
    with pytest.raises(ConfigError, match="first lacks what the figure reads: embedding_spectrum; add it"):
        load(write({"extends": "base.yaml", "figures": {"grokking_timeline": None}, **update}))


def test_another_task_starts_from_its_own_defaults(write: Any) -> None:
    task = {"name": "marker_sums", "modulus": 5}
    assert extended(write, experiments={"first": {"task": task}})["experiments"]["first"]["task"] == task
    # the name of the default model is the same model
    model = extended(write, experiments={"first": {"model": {"name": "transformer"}}})["experiments"]["first"]["model"]
    assert model == {"layers": 2, "width": 32, "name": "transformer"}


def test_paths_are_relative_to_the_file_and_may_chain(write: Any, tmp_path: Path, monkeypatch: Any) -> None:
    write({"extends": "../base.yaml", "experiments": {"third": None}}, "own/middle.yaml")
    top = write({"extends": "own/middle.yaml", "results": "elsewhere"}, "top.yaml")
    config = read_config([top])
    assert config["results"] == "elsewhere" and list(config["experiments"]) == ["first", "second"]
    monkeypatch.chdir(tmp_path / "own")
    assert read_config(["../top.yaml"]) == config
    assert read_config([top], {"results": "here", "experiments": {"second": None}})["experiments"].keys() == {"first"}


def test_several_files_are_laid_over_each_other(write: Any) -> None:
    first = write({"extends": "base.yaml", "experiments": {"third": None}})
    second = write({"experiments": {"second": None, "first": {"seeds": [9]}}}, "second.yaml")
    config = read_config([first, second])
    assert list(config["experiments"]) == ["first"] and config["experiments"]["first"]["seeds"] == [9]


@pytest.mark.parametrize(
    "update, says",
    [
        ({"extends": "nowhere.yaml"}, r"nowhere\.yaml: no such file.*\(extends of .*mine\.yaml\)"),
        ({"extends": "mine.yaml"}, r"mine\.yaml: extends: mine\.yaml extends this file in turn"),
        ({"extends": "other.yaml"}, r"other\.yaml: extends: mine\.yaml .*in turn \(.*mine.*other.*mine"),
        ({"extends": ["base.yaml"]}, r'mine\.yaml: extends: \["base.yaml"\] is a list; give the path'),
        ({"extends": None}, r"extends: null is nothing; give the path"),
        ({"extends": ""}, r'extends: "" .*give the path'),
        ({"extends": "~/base.yaml"}, r"~ is not expanded"),
        ({"extends": "broken.yaml"}, r"broken\.yaml, line 1: .*extends of .*mine\.yaml"),
        (
            {"extends": "base.yaml", "experiments": {"frist": None}},
            r"mine\.yaml: experiments\.frist: null removes it, and there is none; did you mean first\? there are: ",
        ),
        (
            {"extends": "base.yaml", "experiments": {"first": {"measurements": {"sharpness": None}}}},
            r"experiments\.first\.measurements\.sharpness: null removes it",
        ),
        ({"extends": "base.yaml", "figures": {"landscape": None}}, r"figures\.landscape: null removes it"),
    ],
)
def test_what_cannot_be_laid_over_is_refused_with_its_file(write: Any, update: Any, says: str) -> None:
    write({"extends": "mine.yaml"}, "other.yaml")
    write("a: [", "broken.yaml")
    with pytest.raises(ConfigError) as error:
        read_config([write(update)])
    assert re.search(says, str(error.value)), error.value


def test_only_the_first_of_several_files_extends(write: Any) -> None:
    mine = write({"extends": "base.yaml"})
    with pytest.raises(ConfigError, match=r"mine\.yaml: extends may stand in the first"):
        read_config([mine, mine])


def test_misspelt_keys_of_an_overlay_are_named(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write({"extends": "base.yaml", "experiments": {"first": {"optimiser": {}}}})
    assert main(["check", str(path)]) == 1
    assert "experiments.first.optimiser: unknown key; did you mean optimizer?" in capsys.readouterr().err


def test_the_example_of_the_readme_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "config/README.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "extends:" in block]
    assert len(blocks) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(blocks[0].replace("config/config.yaml", str(ROOT / "config/config.yaml")))
    config, default = load(path), load(ROOT / "config/config.yaml")
    assert "longer" in config["experiments"] and "grokking_addition" not in config["experiments"]
    assert config["experiments"]["marker_sums"] == default["experiments"]["marker_sums"]
    assert config["experiments"]["copying"]["model"]["width"] == 64
