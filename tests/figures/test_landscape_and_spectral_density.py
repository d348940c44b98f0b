import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import landscape, spectral_density, style
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["copying"]}
PLACES, STEPS = [-0.2, 0.0, 0.2], [0, 10, 20]
CENTRES = 0.01 * np.sinh(np.linspace(-8, 8, 17))


def rows_of(seed, plateaus=(0.5,), censored=False):
    """A saddle: at the plateau the held-out loss falls to both sides, at the solution it rises."""
    wiggle = 1 + 0.05 * np.random.default_rng(seed).standard_normal()
    rows = []

    def add(part, quantity, value, data="", **columns):
        rows.append({"step": 3500, "part": part, "quantity": quantity, "value": value, "data": data} | columns)

    parts = ["untrained", *(f"plateau_{each:g}" for each in plateaus), "transition", "solution"]
    for number, part in enumerate(parts):
        add(part, "checkpoint_step", 1000.0 * number, unit="steps")
        add(part, "gradient_norm", 0.2 * wiggle, "in_distribution")
        add(part, "gradient_norm", 0.15, "in_distribution", null="sampling_noise")
        add(part, "smallest_to_largest_eigenvalue", -0.1 * (number + 1) * wiggle, "in_distribution")
        add(part, "distance", PLACES, index=np.arange(3))
        sign = 1 if part == "solution" else -1
        for data in ("in_distribution", "held_out"):
            steps = sign * 0.002 * wiggle * np.array([1.0, 0.0, 1.0])
            add(part, "loss_along_most_negative_direction", steps, data, index=np.arange(3))
        null = {"index": np.arange(3), "null": "random_direction"}
        add(part, "loss_along_most_negative_direction", np.zeros(3), "held_out", **null)
        density = np.exp(-((np.arange(17) - 8 - number) ** 2) / 4) * wiggle
        add(
            part, "spectral_density", density, "in_distribution", index=np.arange(17), low=density / 2, high=2 * density
        )
        add(part, "spectral_place", CENTRES, "in_distribution", index=np.arange(17))
        add(part, "spectral_floor", -0.02, "in_distribution")
    plateau = parts[1]
    add(plateau, "loss_on_line", -0.4 * wiggle * np.arange(5) / 4, "held_out", index=np.arange(5))
    add(plateau, "barrier_height", 0.0, "held_out")
    add(plateau, "descent_step", STEPS, index=np.arange(3), unit="steps")
    add(plateau, "descent_loss", 3.8 - 0.1 * wiggle * np.arange(3), "in_distribution", index=np.arange(3))
    add(plateau, "descent_loss", 3.8 + 0.1 * wiggle * np.arange(3), "held_out", index=np.arange(3))
    add(plateau, "descent_error", 0.9 - 0.1 * wiggle * np.arange(3), "held_out", index=np.arange(3))
    across, ahead = np.linspace(-1, 1, 7), np.linspace(-5, 25, 7)
    add(plateau, "loss_on_slice", (across[:, None] ** 2 + (20 - ahead) / 20).ravel(), index=np.arange(49))
    add(plateau, "slice_row", across, index=np.arange(7))
    add(plateau, "slice_column", ahead, index=np.arange(7))
    add(plateau, "slice_cosine", 0.01)
    return [row | {"censored": censored} for row in rows]


def make(seeds=5, censored=0, **options):
    tables = [tidy(rows_of(seed, censored=seed < censored, **options), "copying", seed) for seed in range(seeds)]
    return {"summary": summarize(tables), "runs": pd.concat(tables, ignore_index=True)}


def thick(axes, color, linestyle="-"):
    (line,) = (
        line
        for line in axes.lines
        if line.get_zorder() == 3 and line.get_color() == color and line.get_linestyle() == linestyle
    )
    return line.get_xydata()


def test_panels_show_what_is_planted():
    figure = landscape.draw(make(), OPTIONS)
    _norms, ratios, steps, line, descent, plane, error, _bar = figure.axes
    assert [text.get_text() for text in ratios.get_xticklabels()] == [
        "untrained",
        "plateau\n0.5 t",
        "transition",
        "solution",
    ]
    for color, sign in ((style.BLUE, -1), (style.VERMILION, 1)):
        places, losses = thick(steps, color).T
        assert places.tolist() == PLACES and losses[1] == 0
        assert (sign * losses[[0, 2]] > 0.001).all()
    assert thick(line, style.BLUE)[-1] == pytest.approx([1.0, -0.4], abs=0.05)
    assert line.texts[0].get_text() == "barrier 0 [0, 0] nats"
    assert thick(descent, style.BLUE)[:, 0].tolist() == STEPS
    assert thick(error, style.PURPLE, "-.")[-1, 1] == pytest.approx(0.7, abs=0.03)
    start, end = (line.get_xydata()[0] for line in plane.lines)
    assert start.tolist() == [0, 0] and end == pytest.approx([20, 0.2], rel=1e-3)


def test_every_seed_is_shown_and_the_interval():
    ratios = landscape.draw(make(), OPTIONS).axes[1]
    dots = [line for line in ratios.lines if line.get_marker() == "." and len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in dots] == [5] * 4
    assert len(ratios.containers) == 4


def test_without_a_transition_seeds_are_shown_and_no_mean():
    for seeds, censored in ((2, 2), (5, 1)):
        tables = make(seeds, censored)
        figure = landscape.draw(tables, OPTIONS)
        assert not figure.axes[1].containers
        for axes in figure.axes[2:5]:
            assert landscape.CENSORED in [text.get_text() for text in axes.texts]
            assert not [line for line in axes.lines if line.get_zorder() == 3]
        (legend,) = spectral_density.draw(tables, OPTIONS).legends
        assert legend.get_texts()[0].get_text().startswith(f"mean, n = {seeds}")


def test_more_plateaus_are_in_order_and_the_first_is_followed():
    tables = make(plateaus=(0.25, 0.75, 0.5)[:2])
    assert landscape.checkpoints(tables["runs"])[1:3] == ["plateau_0.25", "plateau_0.75"]
    assert len(spectral_density.draw(tables, OPTIONS).axes) == 5
    assert len(landscape.draw(tables, OPTIONS).axes[0].get_xticks()) == 5


def test_one_checkpoint_spans_no_plane():
    tables = {name: table[~table["quantity"].str.contains("slice")] for name, table in make(2).items()}
    assert landscape.draw(tables, OPTIONS).axes[5].texts[0].get_text() == "no slice measured"


def test_density_axis_is_linear_near_zero_and_the_floor_is_marked():
    figure = spectral_density.draw(make(), OPTIONS)
    assert [axes.get_title(loc="right") for axes in figure.axes] == [
        "untrained",
        "plateau, 0.5 t",
        "transition",
        "solution",
    ]
    for number, axes in enumerate(figure.axes):
        (line,) = (line for line in axes.lines if line.get_zorder() == 3)
        np.testing.assert_allclose(line.get_xdata(), np.linspace(-8, 8, 17), atol=1e-9)
        assert np.argmax(line.get_ydata()) == 8 + number
        (span,) = axes.patches
        assert span.get_x() == pytest.approx(-np.arcsinh(2)) and span.get_width() == pytest.approx(2 * np.arcsinh(2))


@pytest.mark.parametrize("figure", [landscape, spectral_density])
def test_legends_fit_and_what_is_missing_is_named(figure):
    drawn = figure.draw(make(), OPTIONS)
    drawn.draw_without_rendering()
    for legend in [*drawn.legends, *(axes.get_legend() for axes in drawn.axes if axes.get_legend())]:
        assert legend.get_window_extent().x1 <= drawn.bbox.x1
    for quantity in ("checkpoint_step", "spectral_floor" if figure is spectral_density else "loss_on_line"):
        tables = {name: table[table["quantity"] != quantity] for name, table in make(2).items()}
        with pytest.raises(ValueError, match=quantity):
            figure.draw(tables, OPTIONS)


def test_a_landscape_without_a_plateau_is_named():
    assert landscape.checkpoints(make(1, plateaus=(0.5, 0.25))["runs"]) == [
        "untrained", "plateau_0.25", "plateau_0.5", "transition", "solution",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"no part is a plateau, only \['solution', 'transition', 'untrained'\]"):
        landscape.checkpoints(make(1, plateaus=())["runs"].query("part != 'plateau'"))
