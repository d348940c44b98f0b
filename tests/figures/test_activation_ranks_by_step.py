import numpy as np
import pytest

from learning_geometry.failures import row
from learning_geometry.figures import style
from learning_geometry.figures.activation_ranks_by_step import PARTS, QUANTITIES, draw, shade
from learning_geometry.tables.series import gather, summarize_series
from learning_geometry.tables.tidy import tidy

LAYERS, STEPS, SEEDS = 4, (0, 1, 512, 1000, 143_000), (1, 2, 3)
TEXTS = ("documentation", "source_code")
OPTIONS = {"experiments": ["pythia"], "step_scale": "log"}


def level(part, layer, step):
    return 0.9 - 0.1 * list(PARTS).index(part) - 0.03 * layer - 0.05 * STEPS.index(step)


def of_model(name, step, seed, without=()):
    rows = []
    noise = np.random.default_rng([seed, step])
    for text in TEXTS:
        for quantity in QUANTITIES:
            for layer in range(LAYERS):
                for part in PARTS:
                    where = {"step": 0, "part": f"layers.{layer}.{part}", "data": text}
                    if (part, layer) in without:
                        continue
                    value = level(part, layer, step) + noise.normal(0, 0.004)
                    for index in (0, 500):
                        here = where | {"quantity": quantity, "index": index, "n": 1000}
                        rows.append(here | {"value": value - 0.1 * (index > 0)})
                        rows.append(here | {"value": 0.97, "low": 0.96, "high": 0.98, "null": "isotropic"})
            last = {"step": 0, "part": f"layers.{LAYERS - 1}.residual_post", "quantity": quantity, "data": text}
            rows.append(last | {"value": level("residual_pre", LAYERS, step)})
            rows.append(last | {"value": 0.97, "low": 0.96, "high": 0.98, "null": "isotropic"})
    rows += [
        row(f"layers.{layer}.{part}", "no ranks, as it is the same at every token", TEXTS[0]) for part, layer in without
    ]
    return tidy(rows, name, 0)


def planted(seeds=SEEDS, without=None, name="pythia"):
    """Tables of a series; ``without``: step -> parts and layers that could not be measured there."""
    places = {f"{name}_{seed}_{step}": {"step": step, "seed": seed} for seed in seeds for step in STEPS}
    tables = {
        model: of_model(model, **place, without=(without or {}).get(place["step"], ()))
        for model, place in places.items()
    }
    runs = gather(tables, places, name)
    return {"runs": runs, "summary": summarize_series(runs)}


@pytest.fixture(scope="module")
def tables():
    return planted()


@pytest.fixture(scope="module")
def figure(tables):
    figure = draw(tables, OPTIONS)
    figure.draw_without_rendering()
    return figure


def means(axes):
    return [line for line in axes.lines if line.get_zorder() == 3]


def test_a_column_for_each_part_and_a_row_for_each_rank(figure, tables):
    assert len(figure.axes) == len(PARTS) * len(QUANTITIES)
    for axes, (part, (_, color)) in zip(figure.axes, PARTS.items(), strict=False):
        layers = [line for line in axes.lines if line.get_linewidth() == 0.7 and len(line.get_xdata())]
        number = LAYERS + (part == "residual_pre")
        assert len(layers) == number and layers[-1].get_color() == shade(color, 1.0)
        assert len({line.get_color() for line in layers}) == number
        runs = tables["runs"]
        wanted = runs[(runs["part"].str.endswith(part)) & (runs["quantity"] == "directions_99")]
        wanted = wanted[(wanted["index"] == 0) & (wanted["null"] == "") & (wanted["data"] == TEXTS[0])]
        first = wanted[wanted["part"] == f"layers.0.{part}"].groupby("step")["value"].mean()
        np.testing.assert_allclose(layers[0].get_ydata(), first)
        solid, dashed = means(axes)
        assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
        np.testing.assert_array_equal(solid.get_xdata(), STEPS)
        if part != "residual_pre":
            np.testing.assert_allclose(solid.get_ydata(), wanted.groupby("step")["value"].mean())
        (null,) = [line for line in axes.lines if line.get_color() == style.NULL_GREY]
        np.testing.assert_allclose(null.get_ydata(), 0.97)


def test_the_interval_is_that_of_the_mean_over_layers_over_seeds(figure, tables):
    runs = tables["runs"]
    rows = runs[(runs["part"].str.endswith("attention.output")) & (runs["quantity"] == "effective_rank")]
    rows = rows[(rows["index"] == 0) & (rows["null"] == "") & (rows["data"] == TEXTS[0]) & (rows["step"] == 512)]
    of_seeds = rows.groupby("seed")["value"].mean()
    half = 4.302652729911275 * of_seeds.std() / np.sqrt(3)
    band = next(each for each in figure.axes[len(PARTS)].collections if each.get_zorder() == 2)
    at = band.get_paths()[0].vertices
    np.testing.assert_allclose(np.ptp(at[at[:, 0] == 512, 1]), 2 * half)


def test_one_seed_has_no_interval_and_names_say_how_many(figure):
    one = draw(planted(seeds=(1,)), OPTIONS)
    assert not any(each.get_zorder() == 2 for axes in one.axes for each in axes.collections)
    assert one.axes[0].get_title(loc="left").replace("\n", " ") == "pythia: attention output, n = 1"
    assert figure.axes[0].get_title(loc="left").replace("\n", " ").endswith("n = 3")
    assert [axes.get_title(loc="left") for axes in figure.axes[1:4]] == [title for title, _ in list(PARTS.values())[1:]]


def test_layers_that_are_not_measured_at_every_step_are_in_no_mean_and_named():
    given = planted(without={512: [("attention.output", 1)]})
    drawn = draw(given, OPTIONS)
    drawn.draw_without_rendering()
    runs = given["runs"]
    rows = runs[(runs["part"].str.endswith("attention.output")) & (runs["quantity"] == "directions_99")]
    rows = rows[(rows["index"] == 0) & (rows["null"] == "") & (rows["data"] == TEXTS[0])]
    expected = rows[rows["part"] != "layers.1.attention.output"].groupby("step")["value"].mean()
    np.testing.assert_allclose(means(drawn.axes[0])[0].get_ydata(), expected)
    broken = [line for line in drawn.axes[0].lines if line.get_linewidth() == 0.7 and len(line.get_xdata())][1]
    assert np.isnan(broken.get_ydata()).tolist() == [step == 512 for step in STEPS]
    (note,) = [text.get_text() for text in drawn.texts if "in no mean" in text.get_text()]
    assert "attention output of layer 1" in note.replace("\n", " ")


def test_steps_are_logarithmic_or_linear(figure, tables):
    assert figure.axes[-1].get_xscale() == "symlog"
    assert draw(tables, OPTIONS | {"step_scale": "linear"}).axes[-1].get_xscale() == "linear"


def test_nothing_overlaps(figure):
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    legend = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(legend) for box in boxes) and legend.x1 <= figure.bbox.x1
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])


def test_what_is_missing_is_named(tables):
    lacking = {name: table[table["quantity"] != "directions_99"] for name, table in tables.items()}
    with pytest.raises(ValueError, match=r"pythia.*directions_99"):
        draw(lacking, OPTIONS)
