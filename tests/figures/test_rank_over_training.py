import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.rank_over_training import EVENT, LINES, PARTS, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

STEPS = np.arange(0, 1001, 100)
SETS = {"copying": ("in_distribution", "out_of_distribution"), "grokking": ("held_out_pairs", "training_pairs")}
LAYERS = {"copying": 2, "grokking": 1}
OPTIONS = {"experiments": ["copying", "grokking"]}
OUTPUT = "attention.output"


def rows_of(seed, experiment):
    """The attention output's dimensions fall halfway; copying has no MLP, and its transition is that of errors."""
    noise = np.random.default_rng([seed, len(experiment)])
    rows = []
    for layer in range(LAYERS[experiment]):
        for order, data in enumerate(SETS[experiment]):
            for level, part in enumerate(PARTS):
                if part == "mlp.output" and experiment == "copying":
                    continue
                for quantity in ("directions_99", "effective_rank"):
                    value = 0.3 + 0.12 * level + 0.03 * order + noise.normal(0, 0.01, len(STEPS))
                    value -= 0.2 * (STEPS > 450) if part == OUTPUT else 0
                    row = {"step": STEPS, "part": f"layers.{layer}.{part}", "quantity": quantity, "data": data}
                    row |= {"unit": "fraction", "n": 900}
                    rows.append(row | {"value": value})
                    first = np.full(len(STEPS), value[0])
                    rows.append(row | {"null": "untrained", "value": first, "low": first, "high": first})
                    one = np.full(len(STEPS), 0.98)
                    rows.append(row | {"null": "isotropic", "value": one, "low": one - 0.01, "high": one + 0.01})
                event = {"step": 1000, "part": f"layers.{layer}.{part}", "quantity": EVENT, "data": data}
                never = part != OUTPUT
                rows.append(event | {"value": 1000.0 if never else 500.0, "censored": never, "unit": "steps"})
    if experiment == "copying":
        transition = {"quantity": "first_step_below_0.5", "data": "out_of_distribution"}
    else:
        transition = {"quantity": "grok_step"}
    return [*rows, transition | {"step": 1000, "value": 600.0, "unit": "steps"}]


@pytest.fixture(scope="module")
def tables():
    runs = [tidy(rows_of(seed, name), name, seed) for name in SETS for seed in range(3)]
    return {"summary": summarize(runs), "runs": pd.concat(runs, ignore_index=True)}


@pytest.fixture(scope="module")
def figure(tables):
    figure = draw(tables, OPTIONS)
    figure.draw_without_rendering()
    return figure


def means(axes, color):
    """Mean lines of a part, one for each test set."""
    found = [line for line in axes.lines if line.get_zorder() == 3 and line.get_color() == color]
    return {line.get_linestyle(): line.get_ydata() for line in found}


def test_a_column_for_every_layer_with_both_dimensions(figure, tables):
    assert len(figure.axes) == 2 * 3
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes[::2]]
    assert titles == ["copying, layer 1, n = 3", "copying, layer 2, n = 3", "grokking, layer 1, n = 3"]
    summary = tables["summary"][tables["summary"]["null"] == ""]
    for place, quantity in enumerate(("directions_99", "effective_rank")):
        for part, (_, color) in PARTS.items():
            for line, data in zip(LINES, SETS["grokking"], strict=False):
                of_part = summary[(summary["part"] == f"layers.0.{part}") & (summary["experiment"] == "grokking")]
                rows = of_part[(of_part["quantity"] == quantity) & (of_part["data"] == data)]
                np.testing.assert_allclose(means(figure.axes[4 + place], color)[line], rows["estimate"])
    # copying has no MLP
    assert not means(figure.axes[0], PARTS["mlp.output"][1])


def test_seeds_nulls_and_events(figure):
    color = PARTS[OUTPUT][1]
    for upper in figure.axes[::2]:
        seeds = [line for line in upper.lines if line.get_zorder() == 1]
        assert [line.get_color() for line in seeds] == [color] * 3
        (isotropic,) = (line for line in upper.lines if line.get_color() == style.NULL_GREY)
        np.testing.assert_allclose(isotropic.get_ydata(), 0.98)
        (untrained,) = (line for line in upper.lines if line.get_linestyle() == "-." and line.get_color() == color)
        assert untrained.get_ydata()[0] == pytest.approx(means(upper, color)["-"][0])
        (ticks,) = (line for line in upper.lines if line.get_marker() == "|")
        assert ticks.get_xdata().tolist() == [500.0] * 3
        (transition,) = (line for line in upper.lines if line.get_color() == style.BLACK and line.get_zorder() == 0)
        assert transition.get_xdata()[0] == 600.0
    assert all(axes.get_ylim() == (0.0, 1.03) for axes in figure.axes)


def test_the_legend_names_test_sets_once_for_each_kind_of_line(figure):
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    parts = [label for label, _ in PARTS.values()]
    assert texts[: len(parts)] == parts
    assert {"in distribution, held out pairs", "out of distribution, training pairs"} <= set(texts)
    assert "transition, mean" in texts


def test_nothing_overlaps(figure):
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    assert not any(box.overlaps(legend) for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_what_does_not_vary_and_what_never_happened_is_left_out(tables):
    def change(table):
        table = table[(table["experiment"] == "grokking") & (table["quantity"] != "grok_step")].copy()
        column = "value" if "value" in table else "estimate"
        table.loc[(table["part"] == "layers.0.residual_pre") & (table["null"] == ""), column] = np.nan
        return table.assign(censored=table["censored"].where(table["quantity"] != EVENT, other=True))

    figure = draw({name: change(table) for name, table in tables.items()}, {"experiments": ["grokking"]})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert PARTS["residual_pre"][0] not in texts and PARTS[OUTPUT][0] in texts
    assert not any("first crossing" in text or "transition" in text for text in texts)


def test_what_is_missing_is_named(tables):
    with pytest.raises(ValueError, match="'experiments'"):
        draw(tables, {"experiments": []})
    lacking = {name: table[table["quantity"] != "directions_99"] for name, table in tables.items()}
    with pytest.raises(ValueError, match="directions_99"):
        draw(lacking, OPTIONS)
