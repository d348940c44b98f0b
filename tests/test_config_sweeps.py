"""A sweep stands for one experiment for each combination of values; what does not fit is refused with its key."""

import re
from typing import Any

import pytest

from learning_geometry.config import ConfigError, plan, sweeps, validate
from learning_geometry.config.sweeps import _expanded

RATE = "optimizer.learning_rate"


def config(sweep: Any, **others: Any) -> dict[str, Any]:
    return {
        "experiments": {
            "before": {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 100}},
            "rates": {
                "study": "orthogonal_subspaces",
                "seeds": [0, 1],
                "task": {"name": "copying"},
                "training": {"steps": 100},
                "measurements": {"embedding_spectrum": {}},
                "sweep": sweep,
            },
        }
        | others,
        "figures": {
            "embedding_singular_values": {"experiments": ["rates"]},
            "sweep": {"experiments": ["rates"]},
            "pool_threshold": {"experiments": ["before", "rates"]},
        },
    }


def test_each_value_is_an_experiment() -> None:
    checked = validate(config({RATE: [0.001, 3]}))
    names = ["rates_learning_rate_0_001", "rates_learning_rate_3"]
    assert list(checked["experiments"]) == ["before", *names]
    assert sweeps(checked) == {"rates": {names[0]: {RATE: 0.001}, names[1]: {RATE: 3.0}}}
    first, second = (checked["experiments"][name] for name in names)
    assert first["optimizer"]["learning_rate"] == 0.001 and second["optimizer"]["learning_rate"] == 3.0
    # all else is as without a sweep
    alone = validate(config({}, rates=config({})["experiments"]["rates"] | {"sweep": {}}) | {"figures": {}})
    for section in ("task", "model", "training", "seeds", "study", "measurements"):
        assert first[section] == second[section] == alone["experiments"]["rates"][section]
    assert checked["figures"]["embedding_singular_values"]["experiments"] == names
    assert checked["figures"]["pool_threshold"]["experiments"] == ["before", *names]
    assert checked["figures"]["sweep"]["quantities"][0]["quantity"] == "running_error"
    assert "sweep rates, 2 experiments: optimizer.learning_rate 0.001 3.0" in plan(checked)


def test_a_checked_config_is_checked_again_to_the_same() -> None:
    checked = validate(config({RATE: [0.001, 0.01], "task.pool_size": [None, 10]}))
    assert validate(checked) == checked


def test_several_keys_give_their_product_in_order() -> None:
    checked = validate(config({RATE: [0.1, 0.2], "model.positions": ["rotary", "none"]}))
    assert [list(values.values()) for values in sweeps(checked)["rates"].values()] == [
        [0.1, "rotary"],
        [0.1, "none"],
        [0.2, "rotary"],
        [0.2, "none"],
    ]
    assert "rates_learning_rate_0_2_positions_none" in checked["experiments"]


def test_lists_and_names_are_values_too() -> None:
    checked = validate(config({"optimizer.betas": [[0.9, 0.98], [0.9, 0.999]], "optimizer.schedule.name": ["linear"]}))
    assert list(checked["experiments"])[1:] == [
        "rates_betas_0_9_0_98_name_linear",
        "rates_betas_0_9_0_999_name_linear",
    ]


@pytest.mark.parametrize(
    "sweep, path, says",
    [
        ({"optimizer.learning_rat": [1.0]}, "sweep.optimizer.learning_rat", "did you mean optimizer.learning_rate"),
        ({"learning_rate": [1.0]}, "sweep.learning_rate", "no key of this experiment can be swept"),
        ({"task.modulus": [5]}, "sweep.task.modulus", "no key of this experiment"),
        ({"task.name": ["copying"]}, "sweep.task.name", "no key of this experiment"),
        ({"seeds": [[0], [1]]}, "sweep.seeds", "no key of this experiment"),
        (
            {"optimizer.schedule": [{}]},
            "sweep.optimizer.schedule",
            "is a section; sweep one of its keys: optimizer",
        ),
        ({"optimizer": [{}]}, "sweep.optimizer", "is a section"),
        ({RATE: ["1e-3"]}, "sweep.optimizer.learning_rate[0]", "write 1.0e-3"),
        ({RATE: [0.1, -1]}, "sweep.optimizer.learning_rate[1]", "expected number > 0"),
        ({RATE: [0.1, 0.1]}, "sweep.optimizer.learning_rate", "0.1 is repeated"),
        ({RATE: []}, "sweep.optimizer.learning_rate", "got none"),
        ({RATE: 0.1}, "sweep.optimizer.learning_rate", "write [0.1]"),
        ([RATE], "sweep", "expected mapping"),
        ({"model.width": [9]}, None, "rates_width_9.model.heads"),
        ({"training.steps": list(range(1, 300))}, "sweep", "stands for 299 experiments, and 200"),
        ({"training.checkpoints.steps": [[1], [1, 2], [1, 2, 3]]}, None, ""),
    ],
)
def test_what_cannot_be_swept_is_named(sweep: Any, path: str | None, says: str) -> None:
    given = config(sweep)
    given["experiments"]["rates"]["model"] = {"heads": 2}
    if not says:
        validate(given)
        return
    with pytest.raises(ConfigError) as error:
        validate(given)
    wanted = f"experiments.rates.{path}: " if path else ""
    assert any(line.startswith(wanted) and says in line for line in error.value.problems), error.value.problems
    # one slip is one problem, and figures add none
    assert len(error.value.problems) == 1, error.value.problems


def experiment(**swept: Any) -> dict[str, Any]:
    return {"seeds": [0], "task": {"name": "copying"}, "training": {"steps": 100}} | swept


@pytest.mark.parametrize(
    "others, says",
    [
        ({"rates_learning_rate_0_5": experiment()}, "rates.sweep: rates_learning_rate_0_5 is the name of another"),
        (
            {"one": experiment(swept={"name": "before", "values": {RATE: 0.001}})},
            "one.swept: its sweep has the name of another entry, experiments.before",
        ),
        (
            {"one": experiment(swept={"name": "own", "values": {RATE: 0.002}})},
            "one.swept.values.optimizer.learning_rate: is 0.002, and the experiment has 0.001",
        ),
        (
            {"one": experiment(swept={"name": "own", "values": {"optimizer.rate": 0.002}})},
            "one.swept.values.optimizer.rate: is no key",
        ),
        (
            {
                "one": experiment(swept={"name": "own", "values": {RATE: 0.001}}),
                "two": experiment(swept={"name": "own", "values": {RATE: 0.001}}),
            },
            "two.swept.values: another experiment of the sweep own has the same values",
        ),
        (
            {
                "one": experiment(swept={"name": "own", "values": {RATE: 0.001}}),
                "two": experiment(swept={"name": "own", "values": {"training.steps": 100}}),
            },
            "two.swept.values: has other keys than one",
        ),
        (
            {"one": experiment(swept={"name": "own", "values": {RATE: 0.001}}, sweep={RATE: [0.1]})},
            "one.sweep: an experiment of a sweep cannot sweep again",
        ),
        ({"x" * 90: experiment(sweep={RATE: [0.1]})}, "characters, and 100 are the most; shorten"),
    ],
)
def test_names_and_members_that_clash_are_refused(others: Any, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(config({RATE: [0.5]}, **others))
    assert says in "\n".join(error.value.problems), error.value.problems


def test_values_whose_names_are_one_are_refused() -> None:
    problems: Any = {}
    given = {"task": {"text": ""}}
    assert list(_expanded("tried", given, {"task.text": ["a b", "A-B"]}, problems)) == ["tried_text_a_b"]
    assert list(problems.values()) == [
        "two of its experiments would have the name tried_text_a_b; change one of their values"
    ]


def test_a_sweep_has_a_name_of_its_own() -> None:
    given = config({RATE: [0.5]})
    given["language_models"] = {"rates": {"texts": {"a": "python_source"}, "measurements": {"activation_ranks": {}}}}
    with pytest.raises(ConfigError, match=re.escape("language_models.rates; rename")):
        validate(given, files=False)
    given = config({RATE: [0.5]})
    given["experiments"]["logs"] = given["experiments"].pop("rates")
    given["figures"] = {}
    with pytest.raises(ConfigError, match="has a folder logs for the logs"):
        validate(given)


def test_the_figure_shows_sweeps_and_what_they_sweep() -> None:
    given = config({RATE: [0.5]})
    given["figures"]["sweep"]["experiments"] = ["before", "rates"]
    with pytest.raises(ConfigError, match=r'figures.sweep.experiments\[0\]: "before" is no sweep'):
        validate(given)
    given["figures"]["sweep"] = {"experiments": ["rates"], "along": "model.layers"}
    with pytest.raises(ConfigError, match=r"figures\.sweep\.along: .*not swept by rates.*use one of optimizer\.l"):
        validate(given)
    given["figures"]["sweep"] = {"experiments": ["rates"], "quantity": "loss"}
    with pytest.raises(ConfigError, match=r"figures\.sweep\.quantity: unknown key; did you mean quantities"):
        validate(given)
