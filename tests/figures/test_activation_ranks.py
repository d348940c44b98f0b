import functools
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest

from learning_geometry.failures import row
from learning_geometry.figures import style
from learning_geometry.figures.activation_ranks import COUNTERFACTUALS, PARTS, draw
from learning_geometry.tables.tidy import tidy

LAYERS, VECTORS, WIDTH = 6, 8128, 576
COUNTS = (2032, 4064, VECTORS)
LEVELS = {
    "attention.output": 0.45,
    "mlp.output": 0.8,
    "residual_pre": 0.7,
    "attention.z": 0.75,
    "residual_mid": 0.72,
}
UNDONE = {"white_input": 0.15, "random_reading": -0.02, "random_writing": 0.1, "orthogonal_writing": 0.5}
OPTIONS = {"experiments": ["tiny_model"]}


def rank_rows(text, noise, layers):
    last = f"layers.{layers - 1}.residual_post"
    parts = {f"layers.{layer}.{part}": level for layer in range(layers) for part, level in LEVELS.items()}
    rows = []
    for part, level in (parts | {last: 0.65}).items():
        value = level + noise.uniform(-0.05, 0.05)
        for quantity, shift in (("directions_99", 0.0), ("effective_rank", -0.03)):
            for index in (0, *COUNTS):
                row = {"step": 0, "part": part, "quantity": quantity, "data": text, "index": index}
                few = 0.03 * (index == COUNTS[0])
                rows.append(row | {"value": value + shift - few, "n": index or VECTORS})
                null = 0.98 + shift - few
                rows.append(row | {"null": "isotropic", "value": null, "low": null - 0.01, "high": null + 0.01})
    return rows


def projection_rows(text, noise, layers, names):
    rows = []
    for layer in range(layers):
        at = {"step": 0, "data": text}
        z, output = 0.92, 0.45 + noise.uniform(-0.05, 0.05)
        rows.append(at | {"part": f"layers.{layer}.attention.z", "quantity": "white_z_directions_99", "value": z})
        row = at | {"part": f"layers.{layer}.attention.output", "quantity": "projected_directions_99"}
        rows.append(row | {"value": output})
        rows.append(row | {"null": "random_weight", "value": 0.72 + 0.01 * layer})
        for name in names:
            share = UNDONE[name] + noise.uniform(-0.1, 0.1)
            rows.append(row | {"null": name, "value": output + share * (z - output)})
            # a layer without a drop
            share = np.nan if layer == 1 else share
            rows.append(at | {"part": f"layers.{layer}.{name}", "quantity": "drop_explained", "value": share})
    return rows


def loss_rows(text):
    rows = []
    for part, level in (("attention.output", 1.0), ("mlp.output", 0.9), ("layers.2.mlp.output", 3.0)):
        for k in (72, 144):
            row = {"step": 0, "part": part, "quantity": "loss_recovered", "data": text, "index": k}
            value = level - 10 / k
            rows.append(row | {"value": value, "low": value - 0.03, "high": value + 0.05, "n": 300})
            rows.append(row | {"null": "random_subspace", "value": 0.003 * k})
    return rows


@functools.cache
def tables(texts=("documentation", "source_code"), layers=LAYERS, names=tuple(UNDONE), with_loss=True, other=False):
    rows = []
    for number, text in enumerate(texts):
        noise = np.random.default_rng(number)
        rows += rank_rows(text, noise, layers) + projection_rows(text, noise, layers, names)
        if with_loss and number == 0:
            rows += loss_rows(text)
    runs = [tidy(rows, "tiny_model", 0)]
    if other:
        runs.append(runs[0].assign(experiment="other", value=0.5))
    table = pd.concat(runs, ignore_index=True)
    return {"runs": table, "summary": table}


@pytest.fixture(scope="module")
def figure():
    return draw(tables(), OPTIONS)


def values(quantity, part, text="documentation", null="", index=0):
    rows = tables()["runs"]
    where = {"quantity": quantity, "data": text, "null": null, "index": index}
    rows = rows[np.logical_and.reduce([rows[name] == value for name, value in where.items()])]
    return [rows[rows["part"] == f"layers.{layer}.{part}"]["value"].item() for layer in range(LAYERS)]


def drawn(axes, color, linestyle="-", points=None):
    """The one line of that colour and style, with that many points if given."""
    found = [
        line
        for line in axes.lines
        if line.get_color() == color
        and line.get_linestyle() == linestyle
        and len(line.get_xdata()) > 1
        and (points is None or len(line.get_xdata()) == points)
    ]
    (line,) = found
    return line.get_xydata()


def test_every_activation_of_every_text_by_layer(figure):
    shares, effective = figure.axes[:2]
    for part, (_, color) in PARTS.items():
        for text, linestyle in (("documentation", "-"), ("source_code", "--")):
            for axes, quantity in ((shares, "directions_99"), (effective, "effective_rank")):
                line = drawn(axes, color, linestyle)
                np.testing.assert_allclose(line[:LAYERS, 1], values(quantity, part, text))
                # the stream that leaves the last layer is the last of the residual stream
                assert line[:, 0].tolist() == list(range(LAYERS + (part == "residual_pre")))
    published = [line for line in shares.lines if line.get_marker() == "<" and len(line.get_xdata())]
    assert {(line.get_color(), float(line.get_ydata()[0])) for line in published} == {
        (style.BLUE, 0.6),
        (style.VERMILION, 0.9),
    }


def test_the_null_and_the_number_of_tokens_are_there(figure):
    shares, _, curve = figure.axes[:3]
    nulls = [line for line in shares.lines if line.get_color() == style.NULL_GREY]
    np.testing.assert_allclose(nulls[0].get_ydata(), 0.98)
    assert shares.get_title(loc="left") == "tiny model, 8 128 tokens"
    line = drawn(curve, style.BLUE)
    assert line[:, 0].tolist() == list(COUNTS)
    for count, mean in line:
        assert mean == pytest.approx(np.mean(values("directions_99", "attention.output", index=int(count))))
    null = next(line for line in curve.lines if line.get_color() == style.NULL_GREY)
    np.testing.assert_allclose(null.get_ydata(), [0.95, 0.98, 0.98])


def test_without_a_curve_the_point_of_all_vectors_is_drawn():
    found = {
        name: table[table["index"] * (table["quantity"] != "loss_recovered") == 0] for name, table in tables().items()
    }
    curve = draw(found, OPTIONS).axes[2]
    (point,) = (line for line in curve.lines if line.get_color() == style.BLUE and line.get_linestyle() == "-")
    assert point.get_xdata().tolist() == [VECTORS]
    assert point.get_ydata()[0] == pytest.approx(np.mean(values("directions_99", "attention.output")))


def test_counterfactuals_of_the_first_text_and_the_share_each_undoes(figure):
    projected, shares = figure.axes[3:5]
    np.testing.assert_allclose(drawn(projected, style.PURPLE)[:, 1], 0.92)
    np.testing.assert_allclose(
        drawn(projected, style.BLUE)[:, 1], values("projected_directions_99", "attention.output")
    )
    np.testing.assert_allclose(
        drawn(projected, style.NULL_GREY, ":")[:, 1],
        values("projected_directions_99", "attention.output", null="random_weight"),
    )
    for place, (name, (label, color)) in enumerate(COUNTERFACTUALS.items()):
        np.testing.assert_allclose(
            drawn(projected, color)[:, 1], values("projected_directions_99", "attention.output", null=name)
        )
        for text, offset in (("documentation", -0.18), ("source_code", 0.18)):
            expected = values("drop_explained", name, text)
            (dots,) = (
                line
                for line in shares.lines
                if line.get_marker() == "o" and np.allclose(line.get_ydata(), place + offset)
            )
            assert dots.get_color() == color
            # the layer without a drop has no dot
            np.testing.assert_allclose(dots.get_xdata(), np.delete(expected, 1))
            (median,) = (
                line
                for line in shares.lines
                if line.get_marker() == "|" and line.get_ydata()[0] == pytest.approx(place + offset)
            )
            assert median.get_xdata()[0] == pytest.approx(np.nanmedian(expected))
        assert shares.get_yticklabels()[place].get_text().replace("\n", " ") == label


def test_loss_recovered_with_intervals_and_random_subspaces(figure):
    loss = figure.axes[5]
    attention, mlp = loss.containers
    for container, level in ((attention, 1.0), (mlp, 0.9)):
        np.testing.assert_allclose(container.lines[0].get_xydata(), [[72, level - 10 / 72], [144, level - 10 / 144]])
        (bars,) = container.lines[2]
        np.testing.assert_allclose(np.diff(np.array(bars.get_segments())[:, :, 1]), 0.08)
    nulls = [line for line in loss.lines if line.get_color() == style.NULL_GREY and line.get_marker() == "o"]
    assert len([line for line in nulls if len(line.get_xdata())]) == 2
    np.testing.assert_allclose(nulls[0].get_xydata(), [[72, 0.216], [144, 0.432]])
    # one layer alone is not drawn, and would be at 3
    assert loss.get_ylim()[1] < 2


def test_what_was_not_measured_is_left_out_and_so_are_other_models():
    names = ("white_input", "random_reading", "random_writing")
    found = draw(tables(names=names, with_loss=False, other=True), OPTIONS)
    assert len(found.axes) == 5
    assert len(found.axes[4].get_yticklabels()) == 3
    assert not any("orthogonal" in text.get_text() for text in found.legends[0].get_texts())
    np.testing.assert_allclose(drawn(found.axes[0], style.BLUE)[:, 1], values("directions_99", "attention.output"))


def test_where_no_rank_drops_it_is_said():
    rows = tables(texts=("documentation",))["runs"]
    reasons = [
        row(f"layers.1.{name}", "no drop_explained, as the rank does not drop", "documentation") for name in UNDONE
    ]
    told = pd.concat([rows[rows["quantity"] != "drop_explained"], tidy(reasons, "tiny_model", 0)], ignore_index=True)
    shares = draw({"runs": told, "summary": told}, OPTIONS).axes[4]
    assert [text.get_text() for text in shares.texts if len(text.get_text()) > 1] == ["no rank drops"]
    assert not any(line.get_marker() == "o" and len(line.get_xdata()) for line in shares.lines)
    assert len(shares.get_yticklabels()) == 4


def overlapping(figure):
    """Pairs of panels, legend or tick labels that overlap or leave the figure."""
    figure.draw_without_rendering()
    (legend,) = figure.legends
    boxes = [legend.get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)]
    found = [box for box in boxes if box.x0 < 0 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1]
    found += [pair for pair in combinations(boxes, 2) if pair[0].padded(-1).overlaps(pair[1])]
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label.get_window_extent() for label in labels if label.get_text()]
            found += [pair for pair in pairwise(shown) if pair[0].overlaps(pair[1])]
    return found


def test_nothing_overlaps(figure):
    assert not overlapping(figure)
    assert not overlapping(draw(tables(texts=("documentation",), layers=2, with_loss=False), OPTIONS))


def test_what_is_missing_is_named():
    for quantity in ("directions_99", "white_z_directions_99", "drop_explained"):
        fewer = {name: table[table["quantity"] != quantity] for name, table in tables().items()}
        with pytest.raises(ValueError, match=quantity):
            draw(fewer, OPTIONS)
    with pytest.raises(ValueError, match="experiments"):
        draw(tables(), {})
