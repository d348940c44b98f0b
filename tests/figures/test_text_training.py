import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures.text_training import draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["text"]}
STEPS = np.array([0, 1, 3, 10, 30, 100, 200, 300])
LAST = 300
LAYERS = 2


def rows_of(seed, mlp=True, happened=True):
    """A run in which everything rises at step 50."""
    noise = np.random.default_rng(seed)
    rise = STEPS / (STEPS + 50.0)
    rows = []

    def add(quantity, values, nulls=(), **where):
        values = np.broadcast_to(values, len(STEPS)) + noise.normal(0, 0.01, len(STEPS))
        row = {"step": STEPS, "quantity": quantity} | where
        rows.append(row | {"value": values})
        for null in nulls:
            rows.append(row | {"null": null, "value": 0.3 + 0 * rise, "low": 0.25 + 0 * rise, "high": 0.35 + 0 * rise})

    for data in ("held_out", "repeated"):
        add("running_loss", 6 - 3 * rise, data=data)
        add("running_error", 1 - 0.5 * rise, data=data)
    add("loss_saved_by_repetition", rise, data="repeated")
    for part in ("attention.output", *(["mlp.output"] if mlp else []), "final_stream"):
        add("effective_rank_of_variances", 0.5 * rise, ("isotropic", "untrained"), part=part, data="held_out")
        add("power_law_exponent", 2 - rise, ("isotropic", "planted_power_law"), part=part, data="held_out")
    for quantity in ("effective_rank_of_variances", "power_law_exponent"):
        row = {"step": LAST, "part": "final_stream", "quantity": f"{quantity}_phase_step", "data": "held_out"}
        rows.append(row | {"index": [0, 1], "value": [10.0, 200.0]})
    for score in ("induction", "previous_token"):
        nulls = ("uniform_attention", "untrained")
        add(f"largest_{score}_score", 0.6 * rise, nulls, data="repeated")
        row = {"step": LAST, "quantity": f"{score}_score_rise_step", "data": "repeated", "index": 50}
        rows.append(row | {"value": 60.0 + seed if happened else float(LAST), "censored": not happened})
    add("circuit_match_rms_cosine", 0.3 + 0.3 * rise, ("random_subspaces", "other_heads"), index=10)
    for layer in range(LAYERS):
        add("participating_heads", 3 + rise, part=f"layers.{layer}", data="held_out")
        for head in range(2):
            add("head_participation_ratio", 5 + head + layer, part=f"layers.{layer}.heads.{head}", data="held_out")
    return rows


def planted(seeds=5, **options):
    runs = [tidy(rows_of(seed, **options), "text", seed) for seed in range(seeds)]
    return {"summary": summarize(runs), "runs": pd.concat(runs, ignore_index=True)}


@pytest.fixture(scope="module")
def drawn():
    tables = planted()
    figure = draw(tables, OPTIONS)
    figure.draw_without_rendering()
    return figure, tables


def entries(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_nine_panels_show_what_the_summary_holds(drawn):
    figure, tables = drawn
    assert len(figure.axes) == 9
    loss, _, saved, rank, exponent, scores, match, writing, dimensions = figure.axes
    assert entries(loss)[0] == "text held out, n = 5"
    summary = tables["summary"][tables["summary"]["null"] == ""].sort_values("step")
    for axes, quantity in ((saved, "loss_saved_by_repetition"), (match, "circuit_match_rms_cosine")):
        rows = summary[summary["quantity"] == quantity]
        (line,) = [line for line in axes.lines if line.get_zorder() == 3]
        np.testing.assert_array_equal(line.get_ydata(), rows["estimate"])
    assert entries(rank)[:3] == ["attention outputs", "MLP outputs", "last layer's stream"]
    vertical = [line.get_xdata()[0] for line in rank.lines if line.get_linestyle() == "-."]
    assert vertical == [10.0, 200.0]
    assert "null: planted power law" in entries(exponent) and "null: isotropic" in entries(rank)
    ticks = [line for line in scores.lines if line.get_marker() == "|"]
    assert [sorted(line.get_xdata()) for line in ticks] == [[60.0, 61.0, 62.0, 63.0, 64.0]] * 2
    assert entries(writing) == entries(dimensions) == ["layer 1", "layer 2"]
    means = [line.get_ydata() for line in dimensions.lines]
    assert [round(float(np.mean(mean)), 1) for mean in means] == [5.5, 6.5]


def test_nothing_overlaps(drawn):
    figure, _ = drawn
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other.get_window_extent()) for other in figure.axes if other is not axes)


def test_without_an_mlp_a_rise_or_other_heads_the_rest_is_drawn():
    tables = planted(1, mlp=False, happened=False)
    tables = {name: table[table["null"] != "other_heads"] for name, table in tables.items()}
    figure = draw(tables, OPTIONS)
    assert "MLP outputs" not in entries(figure.axes[3])
    assert not any(line.get_marker() == "|" for line in figure.axes[5].lines)
    assert entries(figure.axes[6])[1:] == ["null: random subspaces"]


@pytest.mark.parametrize("quantity", ["circuit_match_rms_cosine", "power_law_exponent", "participating_heads"])
def test_what_is_missing_is_named(quantity):
    tables = {name: table[table["quantity"] != quantity] for name, table in planted(1).items()}
    with pytest.raises(ValueError, match=quantity):
        draw(tables, OPTIONS)
