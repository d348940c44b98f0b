"""Every figure, with two experiments: each is drawn under its name, or its ``MOST`` refuses the second."""

import importlib
import inspect
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from learning_geometry import failures
from learning_geometry.config import ConfigError, module_literal, read_yaml, validate
from learning_geometry.figures import style
from learning_geometry.tables.tidy import tidy
from tests.figures import (
    conftest,
    test_activation_patterns,
    test_activation_ranks,
    test_activation_ranks_by_step,
    test_attention_concentration,
    test_checkpoint_figures,
    test_commutator_alignment,
    test_contrast_by_layer,
    test_contrast_over_training,
    test_dead_features,
    test_depth_growth,
    test_embedding_frequencies,
    test_grokking_timeline,
    test_landscape_and_spectral_density,
    test_marker_sums_learning,
    test_pool_threshold,
    test_positions,
    test_rank_over_training,
    test_shared_directions,
    test_sparse_execution,
    test_subspace_training,
    test_text_training,
    test_trajectory_dimension,
    test_trajectory_orientation,
    test_trajectory_windows,
    test_untangling,
)
from tests.own import own

PARTS_OF_RANKS = ("attention.output", "mlp.output", "residual_pre", "attention.z")
NAMES = ["one_thing_that_was_measured", "another_thing_that_was_measured"]
FIXTURES = {
    "attention_patterns": "attention_tables",
    "bridge_energy": "geometry_tables",
    "curvature_localisation": "curvature_tables",
    "embedding_singular_values": "spectrum_tables",
    "first_crossings": "with_events",
    "layer_one_logits": "geometry_tables",
    "progress_timeline": "geometry_tables",
    "sharpness": "curvature_tables",
    "subspace_function": "function_tables",
    "subspace_match": "geometry_tables",
    "transition_timeline": "copying_tables",
}
"""Figure -> fixture of a function that makes the tables of one experiment."""

PLANTED = {
    "activation_patterns": test_activation_patterns.make,
    "activation_ranks": test_activation_ranks.tables,
    "activation_ranks_by_step": test_activation_ranks_by_step.planted,
    "commutator_alignment": test_commutator_alignment.planted,
    "contrast_by_layer": test_contrast_by_layer.planted,
    "dead_features": test_dead_features.tables,
    "depth_growth": test_depth_growth.planted,
    "embedding_frequencies": test_embedding_frequencies.planted,
    "grokking_timeline": test_grokking_timeline.planted,
    "landscape": test_landscape_and_spectral_density.make,
    "matrix_spectra": test_checkpoint_figures.planted,
    "series_audit": test_checkpoint_figures.planted,
    "marker_sums_learning": test_marker_sums_learning.planted,
    "pool_threshold": lambda: test_pool_threshold.planted({"fresh": 1500, "pool_100": None}),
    "positions": lambda: test_positions.planted(3),
    "shared_directions": test_shared_directions.make,
    "sparse_execution": test_sparse_execution.tables,
    "spectral_density": test_landscape_and_spectral_density.make,
    "subspace_training": test_subspace_training.tables,
    "text_training": test_text_training.planted,
    "trajectory_dimension": test_trajectory_dimension.planted,
    "trajectory_orientation": test_trajectory_orientation.planted,
    "trajectory_windows": test_trajectory_windows.planted,
    "untangling": test_untangling.planted,
}
"""Figure -> function that makes its tables, or tables and options."""

with_events = importlib.import_module("tests.figures.test_first_crossings").with_events
rank_tables, contrast_tables = test_rank_over_training.tables, test_contrast_over_training.tables
make_tables = test_attention_concentration.make_tables


def planted(figure, request):
    """The tables of one experiment of a figure, its options, and its name there."""
    if figure in PLANTED:
        made = PLANTED[figure]()
    elif figure in FIXTURES:
        made = request.getfixturevalue(FIXTURES[figure])()
    else:
        made = {
            "rank_over_training": lambda: request.getfixturevalue("rank_tables"),
            "contrast_over_training": lambda: request.getfixturevalue("contrast_tables"),
            "attention_concentration": lambda: request.getfixturevalue("make_tables")(),
        }[figure]()
    tables, options = made if isinstance(made, tuple) else (made, {})
    first = options.get("experiments", [tables["runs"]["experiment"].iloc[0]])[0]
    return tables, {"tasks": {first: conftest.TASK}, **options}, first


def as_experiments(tables, options, first, names):
    """The tables and options of as many copies of an experiment, under other names."""
    copies = {
        name: pd.concat(
            [table[table["experiment"] == first].assign(experiment=new) for new in names], ignore_index=True
        )
        for name, table in tables.items()
    }
    others = {
        key: {name: value[first] for name in names}
        for key, value in options.items()
        if key != "experiments" and first in value
    }
    return copies, others | {"experiments": list(names)}


def texts(figure):
    """All that is written in a figure, in one line."""
    return " | ".join(re.sub(r"\s+", " ", text.get_text()) for text in figure.findobj(Text) if text.get_text())


def dots_and_lines(figure):
    return sum(len(axes.lines) + len(axes.collections) + len(axes.patches) for axes in figure.axes)


# experiments of a sweep stand at their values, of which test_sweep.py sees every one drawn
@pytest.mark.parametrize("figure", [name for name in own("figures") if name != "sweep"])
def test_each_experiment_is_drawn_under_its_name_or_refused(figure, request):
    most = module_literal("figures", figure, "MOST")["experiments"]
    if most < 2:
        assert figure == "change_of_basis"
        return
    module = importlib.import_module(f"learning_geometry.figures.{figure}")
    given = planted(figure, request)
    tables, options = as_experiments(*given, NAMES)
    one, two = module.draw(*as_experiments(*given, NAMES[:1])), module.draw(tables, options)
    written = texts(two)
    # pools stand at their sizes, and are named where two have the same
    for name in NAMES:
        assert name.replace("_", " ") in written, written
    assert dots_and_lines(two) > dots_and_lines(one)
    two.draw_without_rendering()
    assert np.isfinite(two.get_size_inches()).all()
    absent = {name: table[table["experiment"] != NAMES[1]] for name, table in tables.items()}
    with pytest.raises(ValueError, match=NAMES[1]):
        module.draw(absent, options)


@pytest.mark.parametrize("figure", own("figures"))
def test_no_list_is_cut_by_a_shorter_one(figure):
    source = inspect.getsource(importlib.import_module(f"learning_geometry.figures.{figure}"))
    assert "strict=False" not in source
    assert "% len(" not in source  # two entries in one colour


def test_eight_texts_have_lines_of_their_own(request):
    names = tuple(f"text_{number}_of_a_rather_long_name_for_a_text" for number in range(8))
    for figure, given in (
        ("activation_ranks", test_activation_ranks.tables(names)),
        ("activation_patterns", test_activation_patterns.make(texts=names)),
    ):
        experiment = given["runs"]["experiment"].iloc[0]
        drawn = importlib.import_module(f"learning_geometry.figures.{figure}").draw(
            given, {"experiments": [experiment]}
        )
        (legend,) = drawn.legends
        handles = {
            text.get_text().partition(", n")[0]: (handle.get_color(), str(handle.get_linestyle()), handle._dash_pattern)
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
            if "text" in text.get_text()
        }
        assert set(handles) == {name.replace("_", " ") for name in names}
        assert len({str(look) for look in handles.values()}) == len(names)


def test_contrasts_of_any_number_are_drawn():
    names = tuple(f"contrast_{number}" for number in range(6))
    drawn = importlib.import_module("learning_geometry.figures.shared_directions").draw(
        test_shared_directions.make(contrasts=names), test_shared_directions.OPTIONS
    )
    assert all(f"contrast {number}" in texts(drawn) for number in range(6))


def test_two_seeds_have_lines_and_no_interval(request):
    make = request.getfixturevalue("copying_tables")
    module = importlib.import_module("learning_geometry.figures.transition_timeline")
    options = {"experiments": ["copying"], "tasks": {"copying": conftest.TASK}}
    two, three = (module.draw(make(seeds, seeds, 0), options).axes[2] for seeds in (2, 3))
    # the null's band alone, and one more for three seeds
    assert len(three.collections) == len(two.collections) + 1
    assert sum(line.get_linewidth() == 0.4 for line in two.lines) == 2
    highest = make(2, 2, 0)["runs"].query("quantity == 'largest_hessian_eigenvalue'")["value"].max()
    assert two.get_ylim()[1] < 1.3 * highest


def test_single_points_are_seen():
    frame = pd.DataFrame(
        {"step": [0], "estimate": [1.0], "low": [0.5], "high": [1.5], "experiment": "x", "quantity": "q"}
    )
    with style.applied():
        axes = style.Figure().subplots()
        line, bar = style.mean_line(axes, frame, "step", style.BLUE)
    assert line.get_marker() == "o"
    assert len(bar.get_segments()) == 1


def test_a_point_between_gaps_is_seen():
    """A layer after one of zeros, of which there is no rank, was drawn as a line of no length."""
    values = pd.Series([1.0, 2.0, float("nan"), 3.0])
    assert style.marks(values) and style.marks(values[2:]) and not style.marks(values[:3])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2), (0, 3), (1, 7)])
def test_whole_numbers_alone_are_ticks_of_what_is_counted(low, high):
    with style.applied():
        axes = style.Figure(figsize=(3, 2)).subplots()
        axes.set_xlim(low, high)
        style.whole_ticks(axes.xaxis)
        ticks = axes.get_xticks()
    assert len(ticks) and (ticks == ticks.round()).all()


def test_a_legend_has_fewer_columns_where_its_labels_are_long():
    names = tuple(f"text_{number}_of_a_rather_long_name_for_a_text" for number in range(6))
    figure = importlib.import_module("learning_geometry.figures.activation_patterns").draw(
        test_activation_patterns.make(texts=names), test_activation_patterns.OPTIONS
    )
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_a_legend_has_fewer_columns_where_its_handles_are_long():
    figure = style.Figure(figsize=(style.DOUBLE_WIDTH, 3), layout="constrained")
    axes = figure.subplots()
    entries = {f"null: of some long name {number}": axes.plot([], [])[0] for number in range(12)}
    with style.applied():
        style.legend_on_top(figure, entries, 4, handle_length=4.5)
        figure.draw_without_rendering()
        assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_what_of_an_experiment_is_left_out_is_said_in_the_figure(request):
    """Seeds, heads, layers and plateaus that a config asks for, and of which a figure shows an example."""
    patterns = importlib.import_module("learning_geometry.figures.attention_patterns")
    make = request.getfixturevalue("attention_tables")
    options = {"experiments": ["copying"], "tasks": {}}
    assert "not shown" not in texts(patterns.draw(make(), options))
    runs = make(seeds=(2, 1))["runs"]
    further = runs[runs["part"] == "layers.1.heads.0"].assign(part="layers.2.heads.0")
    second = runs[runs["part"] == "layers.0.heads.0"].assign(part="layers.0.heads.1")
    more = {"runs": pd.concat([runs, further, second], ignore_index=True)}
    said = texts(patterns.draw(more, options))
    assert "Shown: seed 1. Kept, and not shown: seed 2; head 2; layer 2." in said
    module = importlib.import_module("learning_geometry.figures.landscape")
    planted, options = test_landscape_and_spectral_density.make, test_landscape_and_spectral_density.OPTIONS
    assert "not shown" not in texts(module.draw(planted(seeds=1), options))
    said = texts(module.draw(planted(seeds=3, plateaus=(0.25, 0.5, 0.75)), options))
    direction = "the most negative direction at plateau, 0.5 t and at plateau, 0.75 t (c)"
    assert f"c to f: plateau, 0.25 t. Measured, and not shown: {direction}; the plane of seeds 1, 2 (f)." in said


def without(tables, reasons, quantities=None):
    """Tables in which some parts could not be measured: part and reason of each."""
    parts = {part for part, _ in reasons}
    kept = {
        name: table[~(table["part"].isin(parts) & (table["quantity"].isin(quantities) if quantities else True))]
        for name, table in tables.items()
    }
    experiment = str(tables["runs"]["experiment"].iloc[0])
    rows = tidy([failures.row(part, reason) for part, reason in reasons], experiment, 0)
    return {**kept, "runs": pd.concat([kept["runs"], rows], ignore_index=True)}


def broken_at(axes, place):
    """Whether no line or band of a panel crosses a place of the x axis, and some lines lie on both sides."""
    finite = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) > 2]
    crossing = [
        (before[0], after[0])
        for points in finite
        for before, after in pairwise(np.asarray(points, dtype=float))
        if np.isfinite([before, after]).all() and before[0] < place < after[0]
    ]
    bands = [path.vertices[:, 0] for each in axes.collections for path in each.get_paths() if len(path.vertices) > 3]
    crossing += [band for band in bands if band.min() < place < band.max()]
    sides = {np.sign(x - place) for points in finite for x, y in points if np.isfinite(y)}
    return not crossing and {-1.0, 1.0} <= sides


def test_lines_break_at_a_layer_that_was_not_measured():
    shared = importlib.import_module("learning_geometry.figures.shared_directions")
    reasons = [
        (f"layers.2.{role}", "0 directions are written along, and 3 are compared") for role in ("output", "down")
    ]
    reasons += [("layers.2", f"{each}: it adds nothing to some prompt") for each in ("harmfulness", "sentiment")]
    drawn = shared.draw(without(test_shared_directions.make(), reasons), test_shared_directions.OPTIONS)
    assert all(broken_at(axes, 2) for axes in drawn.axes[3:6])
    assert "of layer 2" in texts(drawn)
    whole = shared.draw(test_shared_directions.make(), test_shared_directions.OPTIONS)
    assert not any(broken_at(axes, 2) for axes in whole.axes[3:6]) and "Not measured" not in texts(whole)

    ranks = importlib.import_module("learning_geometry.figures.activation_ranks")
    reasons = [
        (f"layers.2.{part}", f"{text}: no ranks, as it is the same at every token")
        for part in PARTS_OF_RANKS
        for text in ("documentation", "source_code")
    ]
    drawn = ranks.draw(without(test_activation_ranks.tables(), reasons), test_activation_ranks.OPTIONS)
    assert all(broken_at(drawn.axes[at], 2) for at in (0, 1, 3))
    assert "Not measured, and in no mean over layers: attention output of layer 2; MLP output of layer 2" in texts(
        drawn
    )

    growth = importlib.import_module("learning_geometry.figures.depth_growth")
    tables, options = test_depth_growth.planted(), test_depth_growth.OPTIONS
    contrasts = tables["runs"].query("quantity == 'increment_cosine'")["data"].unique()
    reasons = [(f"layers.{at}.residual_post", f"{on}: no increment_cosine, as x") for at in (3, 4) for on in contrasts]
    given = without(tables, reasons, ["increment_cosine"])
    given = without(
        given, [("model", f"{on}: no mean_increment_cosine, as x") for on in contrasts], ["mean_increment_cosine"]
    )
    laws = [each for each in tables["runs"]["quantity"].unique() if each.endswith("-mean_variance")]
    given = without(given, [("residual_pre", f"{on}: no law of mean_variance, as x") for on in contrasts], laws)
    drawn = growth.draw(given, options)
    assert broken_at(drawn.axes[1], 4.5)
    assert "mean cosine: none, as some layers have none" in texts(drawn)
    assert "none" in [text.get_text() for text in drawn.axes[3].texts]


def test_no_label_reaches_the_letter_of_a_panel():
    for names in (("documentation",), tuple(f"text_{number}" for number in range(8))):
        tables = test_activation_ranks.tables(names)
        drawn = importlib.import_module("learning_geometry.figures.activation_ranks").draw(
            tables, {"experiments": ["tiny_model"]}
        )
        drawn.draw_without_rendering()
        for axes in drawn.axes:
            (letter,) = [text for text in axes.texts if text.get_text() in "abcdef" and text.get_weight() == "bold"]
            assert not letter.get_window_extent().overlaps(axes.yaxis.label.get_window_extent())


def more(section, number):
    return {f"entry_{at}": section for at in range(number)}


@pytest.mark.parametrize(
    ("figure", "section", "entries", "message"),
    [
        ("activation_ranks", "texts", more("python_documentation", 9), "9 texts, of which activation_ranks can show 8"),
        ("untangling", "prompts", more(["negative", "positive"], 6), "6 prompts, of which untangling can show 5"),
        ("sharpness", "", 7, "sharpness can show 6 at most, got 7"),
        ("change_of_basis", "", 2, "change_of_basis can show 1 at most, got 2"),
    ],
)
def test_more_than_a_figure_can_show_is_refused_before_any_job(figure, section, entries, message):
    config = read_yaml(Path(__file__).parents[2] / "config/config.yaml")
    (name,) = config["figures"][figure]["experiments"]
    where = config["experiments"] if name in config["experiments"] else config["language_models"]
    if section:
        where[name][section] = entries
    else:
        where |= {f"copy_{at}": where[name] for at in range(entries)}
        config["figures"][figure]["experiments"] = [f"copy_{at}" for at in range(entries)]
    with pytest.raises(ConfigError, match=message):
        validate(config, files=False)


def test_what_a_further_experiment_lacks_is_refused_unless_it_is_a_control():
    config = read_yaml(Path(__file__).parents[2] / "config/config.yaml")
    config["figures"] = {"transition_timeline": {"experiments": ["copying", "copying_one_layer"]}}
    validate(config, files=False)
    config["figures"] = {"sharpness": {"experiments": ["copying", "copying_one_layer"]}}
    with pytest.raises(ConfigError, match="copying_one_layer lacks what the figure reads: sharpness"):
        validate(config, files=False)
