import numpy as np
import pytest

from learning_geometry.figures import shared_directions, style
from learning_geometry.figures.shared_directions import draw, overlap_map
from learning_geometry.measurements.language_models import shared_directions as measurement
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

LAYERS = 5
OPTIONS = {"experiments": ["model"]}
CHANCE = 0.1
RANDOM = {"output_overlap": "random_subspaces", "spectral_overlap": "spectra_matched"}


def null_rows(row, random, value):
    return [
        row | {"null": random, "value": value, "low": value - 0.01, "high": value + 0.01},
        row | {"null": "rows_permuted", "value": value + 0.02, "low": value, "high": value + 0.04, "n": 2},
    ]


def make(roles=("output", "down"), contrasts=("harmfulness", "sentiment")):
    rows = []
    for layer in range(LAYERS):
        for role in roles:
            part = f"layers.{layer}.{role}"
            for quantity, random in RANDOM.items():
                for data in roles:
                    for index in range(LAYERS):
                        if (data, index) != (role, layer):
                            row = {"step": 0, "part": part, "quantity": quantity, "data": data, "index": index}
                            value = CHANCE + 0.3 * np.exp(-abs(layer - index)) * (1.0 if data == role else 0.5)
                            rows += [row | {"value": value}, *null_rows(row, random, CHANCE)]
                for data in ("", *roles):
                    row = {"step": 0, "part": part, "quantity": f"mean_{quantity}", "data": data}
                    value = CHANCE + 0.01 * layer + 0.02 * (role == "down")
                    rows += [row | {"value": value, "n": 4}, *null_rows(row, random, CHANCE)]
        for number, contrast in enumerate(contrasts if layer else ()):
            row = {"step": 0, "part": f"layers.{layer}", "quantity": "increment_share", "data": contrast}
            value = 0.2 + 0.1 * number + 0.05 * layer
            rows.append(row | {"value": value, "low": value - 0.03, "high": value + 0.04, "n": 64})
            rows += null_rows(row, "random_subspaces", CHANCE)
    runs = tidy(rows, "model", 0)
    return {"summary": summarize([runs]), "runs": runs}


@pytest.fixture(scope="module")
def tables():
    return make()


@pytest.fixture(scope="module")
def figure(tables):
    return draw(tables, OPTIONS)


def test_names_are_those_of_the_measurement():
    for name in ("OUTPUT", "DOWN", "RANDOM", "PERMUTED"):
        assert getattr(shared_directions, name) == getattr(measurement, name)


def test_maps_of_every_pair_of_roles_with_chance_as_the_colour_bars_reference(tables, figure):
    images = [axes.images[0] for axes in figure.axes[:3]]
    for image, pair in zip(images, (("output", "output"), ("down", "down"), ("output", "down")), strict=True):
        np.testing.assert_array_equal(image.get_array().filled(np.nan), overlap_map(tables["summary"], *pair))
        assert image.norm.vcenter == pytest.approx(CHANCE) and image.norm is images[0].norm
    of_one, of_both = (image.get_array().mask for image in images[1:])
    assert of_one.sum() == LAYERS and not of_both.any()  # a weight is not compared with itself
    assert overlap_map(tables["summary"], "output", "down")[3, 1] == pytest.approx(CHANCE + 0.15 * np.exp(-2))
    (bar,) = (axes for axes in figure.axes if "overlap of top" in axes.get_ylabel())
    assert any("chance" in label.get_text() for label in bar.get_yticklabels())
    np.testing.assert_allclose(bar.get_yticks()[1], CHANCE)


def test_means_by_layer_beside_both_nulls(figure):
    for axes in figure.axes[3:5]:
        means = [line for line in axes.lines if line.get_zorder() == 3]
        assert [line.get_color() for line in means] == [style.BLUE, style.VERMILION]
        np.testing.assert_allclose(means[1].get_ydata(), CHANCE + 0.02 + 0.01 * np.arange(LAYERS))
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        dotted = [line for line in drawn if line.get_linestyle() == ":"]
        dashed = [line for line in drawn if line.get_linestyle() == "--"]
        assert len(dotted) == 2 and {line.get_color() for line in dashed} == {style.BLUE, style.VERMILION}
        np.testing.assert_allclose(dotted[0].get_ydata(), CHANCE)
        np.testing.assert_allclose(dashed[0].get_ydata(), CHANCE + 0.02)


def test_shares_of_increments_have_the_interval_over_prompts(figure):
    axes = figure.axes[5]
    means = [line for line in axes.lines if line.get_zorder() == 3]
    np.testing.assert_array_equal(means[0].get_xdata(), np.arange(1, LAYERS))
    np.testing.assert_allclose(means[1].get_ydata(), 0.3 + 0.05 * np.arange(1, LAYERS))
    (band, _) = (each for each in axes.collections if each.get_zorder() == 2)
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.22) and corners[:, 1].max() == pytest.approx(0.44)


@pytest.mark.parametrize(
    ("roles", "contrasts"), [(("output", "down"), ("harmfulness", "sentiment")), (("output",), ("one",))]
)
def test_nothing_overlaps(roles, contrasts):
    figure = draw(make(roles, contrasts), OPTIONS)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes if axes.axison]
    (legend,) = figure.legends
    boxes.append(legend.get_window_extent())
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
    assert all(box.x1 <= figure.bbox.x1 and box.x0 >= 0 for box in boxes)
    texts = [text.get_text() for text in legend.get_texts()]
    assert "null: random directions" in texts and f"prompts: {contrasts[0]}, n = 64 pairs" in texts


def test_what_is_missing_is_named(tables):
    for quantity in ("output_overlap", "mean_spectral_overlap", "increment_share"):
        others = {name: table[table["quantity"] != quantity] for name, table in tables.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(others, OPTIONS)
    with pytest.raises(ValueError, match="shared_directions: the option 'experiments'"):
        draw(tables, {"experiments": []})
