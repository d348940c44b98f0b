import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures.pool_threshold import draw
from learning_geometry.geometry.uncertainty import share_interval
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

SIZES = {"fresh": None, "pool_10": 10, "pool_100": 100}


def planted(transitions, seeds=5, last=None):
    """Transition step of seed s: transitions[name] + 10 s; None for never."""
    made = []
    for name, step in transitions.items():
        steps = np.arange(0, (last or {}).get(name, 1000) + 1, 50)
        for seed in range(seeds):
            after = steps >= (np.inf if step is None else step + 10 * seed)
            value = 0.95 - 0.8 * after + 0.002 * seed
            row = {"step": steps, "quantity": "running_error", "data": "out_of_distribution", "value": value}
            made.append(tidy([row | {"unit": "fraction"}], name, seed))
    tasks = {name: {"pool_size": SIZES[name], "vocabulary": 64} for name in transitions}
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    return tables, {"experiments": list(transitions), "tasks": tasks}


def dots(axes, filled):
    lines = [line for line in axes.lines if line.get_marker() == "o"]
    return [line.get_xydata() for line in lines if (line.get_markerfacecolor() != "white") == filled]


def test_every_seed_is_a_dot_and_open_without_a_transition():
    errors, _ = draw(*planted({"fresh": 300, "pool_10": None, "pool_100": 970})).axes
    # at the last step, 1000: of the pool of 100, seeds 0 to 3 just made it
    assert sorted(len(points) for points in dots(errors, True)) == [4, 5]
    assert sorted(len(points) for points in dots(errors, False)) == [1, 5]
    assert sum(len(points) for filled in (True, False) for points in dots(errors, filled)) == 15
    assert errors.get_ylabel() == "OOD error at step 1000 (fraction)"


def test_shares_have_exact_intervals():
    figure = draw(*planted({"fresh": 300, "pool_10": None, "pool_100": 970}))
    shares = figure.axes[1]
    assert {text.get_text() for text in shares.texts} == {"b", "5/5", "0/5", "4/5"}
    found = {}
    for bar in shares.containers:
        (segment,) = bar.lines[2][0].get_segments()
        found[float(bar.lines[0].get_ydata()[0])] = tuple(segment[:, 1])
    assert found == {k / 5: pytest.approx(share_interval(k, 5)) for k in (0, 4, 5)}
    labels = [text.get_text() for text in shares.get_xticklabels()]
    assert labels == ["10", "100", "∞"]


def test_runs_of_different_length_are_compared_at_the_same_step():
    tables, options = planted({"fresh": 1500, "pool_100": None}, last={"fresh": 3000})
    figure = draw(tables, options)
    assert figure.axes[0].get_ylabel() == "OOD error at step 1000 (fraction)"
    assert {text.get_text() for text in figure.axes[1].texts} == {"b", "0/5"}


@pytest.mark.parametrize("transitions", [{"fresh": 100}, {"pool_10": None}, {"pool_10": None, "pool_100": 100}])
def test_few_pools_and_one_seed(transitions):
    draw(*planted(transitions, seeds=1)).draw_without_rendering()


def test_what_is_missing_is_named():
    tables, options = planted({"fresh": 100})
    with pytest.raises(ValueError, match="running_error"):
        draw({name: table.assign(quantity="loss") for name, table in tables.items()}, options)
    with pytest.raises(ValueError, match="'tasks' is missing"):
        draw(tables, options | {"tasks": {}})


def test_share_interval():
    assert share_interval(0, 5) == (0.0, pytest.approx(1 - 0.025**0.2))
    assert share_interval(5, 5) == (pytest.approx(0.025**0.2), 1.0)
    # coverage of the exact interval is at least 95 % for any share
    counts = np.arange(11)
    bounds = np.array([share_interval(int(k), 10) for k in counts])
    for share in np.linspace(0.02, 0.98, 25):
        sample = np.random.default_rng(0).binomial(10, share, 4000)
        assert np.mean((bounds[sample, 0] <= share) & (share <= bounds[sample, 1])) > 0.94
    with pytest.raises(ValueError, match="6 of 5"):
        share_interval(6, 5)
