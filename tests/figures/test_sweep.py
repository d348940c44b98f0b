import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures.sweep import draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

RATE, POSITIONS = "optimizer.learning_rate", "model.positions"


def planted(values, seeds=3, late=()):
    """Loss 1 + place of the value in two data sets, a null of .5, an event at step 10 that late ones do not see."""
    made = []
    for place, name in enumerate(values):
        for seed in range(seeds):
            rows = [
                {
                    "step": step,
                    "quantity": "running_loss",
                    "data": data,
                    "unit": "nats",
                    "value": 1 + place + seed / 10 + shift,
                }
                for step in (0, 20 + 10 * place)
                for data, shift in (("inside", 0.0), ("outside", step / 100))
            ]
            null = {"low": 0.4, "high": 0.6, "n": 100, "null": "constant_prediction", "value": 0.5, "unit": "nats"}
            rows += [{"step": 20 + 10 * place, "quantity": "running_loss", "data": "inside"} | null]
            event = {"quantity": "first_step_below_0.5", "unit": "steps", "step": 30}
            rows += [event | ({"value": 30, "censored": True} if name in late and seed else {"value": 10 + seed})]
            rows += [{"step": 30, "quantity": "score", "index": head, "value": 0.1} for head in (0, 1)]
            made.append(tidy(rows, name, seed))
    options = {
        "experiments": list(values),
        "swept": {name: {"name": "tried", "values": each} for name, each in values.items()},
        "quantities": [{"quantity": "running_loss"}],
        "along": None,
    }
    return {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}, options


def rates(*values):
    return {f"tried_{place}": {RATE: value} for place, value in enumerate(values)}


def squares(axes):
    return [container.lines[0].get_xydata() for container in axes.containers]


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_means_stand_at_their_values_with_intervals_seeds_and_null():
    tables, options = planted(rates(0.001, 0.003, 0.01))
    (axes,) = draw(tables, options).axes
    inside, outside = squares(axes)
    assert inside[:, 0].tolist() == [0.001, 0.003, 0.01]
    np.testing.assert_allclose(inside[:, 1], [1.1, 2.1, 3.1])
    # the last step of each: 20, 30, 40
    np.testing.assert_allclose(outside[:, 1], [1.3, 2.4, 3.5])
    (bars,) = axes.containers[0].lines[2]
    measured = tables["summary"].query("data == 'inside' and `null` == '' and step > 0")
    np.testing.assert_allclose([bar[:, 1] for bar in bars.get_segments()], measured[["low", "high"]])
    assert axes.get_xscale() == "log" and axes.get_xlabel() == RATE and "nats" in axes.get_ylabel()
    assert labels(axes) == ["inside, n = 3", "outside, n = 3", "null: constant prediction, inside"]
    low, high = axes.get_ylim()
    assert low < measured["low"].min() and high > measured["high"].max()
    dots = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() == "o"])
    assert len(dots) == 2 * 3 * 3
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.003", "0.01"]


def test_values_spaced_by_differences_have_a_linear_axis_and_names_one_place_each():
    assert draw(*planted(rates(1, 2, 3))).axes[0].get_xscale() == "linear"
    assert draw(*planted(rates(0.0, 0.1, 1.0))).axes[0].get_xscale() == "linear"
    for values, shown in (((None, 10), ["null", "10"]), (("b", "a"), ["b", "a"]), ((True, False), ["true", "false"])):
        axes = draw(*planted(rates(*values))).axes[0]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == shown
        assert squares(axes)[0][:, 0].tolist() == [0.0, 1.0]


def test_other_swept_keys_have_lines_of_their_own():
    values = {
        f"tried_{i}_{p}": {POSITIONS: p, RATE: r} for i, r in enumerate((0.1, 0.2, 0.4)) for p in ("rotary", "none")
    }
    tables, options = planted(values)
    options["quantities"] = [{"quantity": "running_loss", "data": "outside"}]
    axes = draw(tables, options).axes[0]
    assert axes.get_xlabel() == RATE and len(squares(axes)) == 2
    assert labels(axes)[:2] == ["outside, positions rotary, n = 3", "outside, positions none, n = 3"]
    axes = draw(tables, options | {"along": POSITIONS}).axes[0]
    assert axes.get_xlabel() == POSITIONS and len(squares(axes)) == 3


def test_events_that_did_not_happen_are_open_dots_without_a_mean():
    tables, options = planted(rates(0.1, 0.2), late=("tried_1",))
    options["quantities"] = [{"quantity": "first_step_below_0.5"}]
    axes = draw(tables, options).axes[0]
    assert np.isnan(squares(axes)[0][:, 1]).tolist() == [False, True]
    opened = [
        line.get_xydata() for line in axes.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]
    assert np.concatenate(opened).tolist() == [[0.2, 30.0], [0.2, 30.0]]
    assert "open: not by the last step" in labels(axes)


def test_a_panel_for_each_quantity_and_a_column_for_each_sweep():
    tables, options = planted(rates(0.1, 0.2, 0.4, 0.8))
    options["quantities"] = [{"quantity": "running_loss", "step": 0}, {"quantity": "score", "index": 1}]
    for name in ("tried_2", "tried_3"):
        options["swept"][name]["name"] = "other_sweep"
    figure = draw(tables, options)
    assert len(figure.axes) == 4
    assert [axes.get_title("right") for axes in figure.axes[:2]] == ["tried", "other sweep"]
    np.testing.assert_allclose(squares(figure.axes[0])[1][:, 1], [1.1, 2.1])
    figure.draw_without_rendering()


def test_one_seed_and_one_value():
    draw(*planted(rates(0.1), seeds=1)).draw_without_rendering()


@pytest.mark.parametrize(
    "change, says",
    [
        ({"quantities": [{"quantity": "score"}]}, "experiment tried: .*of several: index 0, 1; name one"),
        ({"quantities": [{"quantity": "absent"}]}, "quantity='absent'"),
        (
            {"quantities": [{"quantity": "running_loss", "step": 20}]},
            "experiment='tried_1'|step=20|step takes the values",
        ),
        ({"along": POSITIONS}, "along is model.positions, and tried sweeps optimizer.learning_rate"),
        ({"swept": {}}, "tried_0 is no experiment of a sweep"),
    ],
)
def test_what_is_missing_is_named(change, says):
    tables, options = planted(rates(0.1, 0.2))
    with pytest.raises(ValueError, match=says):
        draw(tables, options | change)


def test_nulls_alone_are_named():
    tables, options = planted(rates(0.1))
    nulls = {name: table[(table["quantity"] == "score") | (table["null"] != "")] for name, table in tables.items()}
    with pytest.raises(ValueError, match="tried_0 holds of quantity running_loss nulls alone"):
        draw(nulls, options)
    # at the last step alone
    nulls = {name: table[(table["step"] == 0) | (table["null"] != "")] for name, table in tables.items()}
    draw(nulls, options)
    with pytest.raises(ValueError, match="the summaries hold of quantity running_loss, step 20 nulls alone"):
        draw(nulls, options | {"quantities": [{"quantity": "running_loss", "step": 20}]})
