import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures.first_crossings import draw
from learning_geometry.tables.derived.first_crossings import derive as first_crossings
from learning_geometry.tables.summary import summarize

OPTIONS = {"experiments": ["copying"], "tasks": {}}


@pytest.fixture(scope="session")
def with_events(geometry_tables):
    def make(*arguments):
        tables = geometry_tables(*arguments)
        events = first_crossings(tables["runs"])
        added = {"runs": events, "summary": summarize([events])}
        return {name: pd.concat([table, added[name]], ignore_index=True) for name, table in tables.items()}

    return make


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def means(axes):
    """Step of the mean by the place of its line."""
    points = [container.lines[0] for container in axes.containers]
    return {round(float(line.get_ydata()[0])): float(line.get_xdata()[0]) for line in points}


def test_the_earliest_is_on_top(with_events):
    figure = draw(with_events(), OPTIONS)
    steps, lags = figure.axes
    found = means(steps)
    ordered = [found[place] for place in sorted(found)]
    assert ordered == sorted(ordered) and len(ordered) > 10
    names = labels(figure)
    # planted 100 steps before the transition
    assert names.index("induction score") < names.index("OOD error")
    assert means(lags)[names.index("induction score")] == pytest.approx(-100, abs=60)
    assert means(lags)[names.index("composition z-score")] == pytest.approx(50, abs=60)  # up to a recorded step late
    assert "OOD error < 0.5" in names and names.index("OOD error < 0.5") not in means(lags)
    assert steps.get_xlim() == (0, 3500)


def test_intervals_of_lags_are_paired(with_events):
    tables = with_events()
    figure = draw(tables, OPTIONS)
    steps, lags = figure.axes
    place = labels(figure).index("composition z-score")

    def width(axes):
        (bar,) = (c for c in axes.containers if round(float(c.lines[0].get_ydata()[0])) == place)
        (segment,) = bar.lines[2][0].get_segments()
        return segment[1, 0] - segment[0, 0]

    # transitions differ by hundreds of steps between seeds, lags behind them by tens
    assert width(steps) > 500 > 200 > width(lags)


def test_censored_events_have_no_mean_and_say_how_many_happened(with_events):
    figure = draw(with_events(5, 3), OPTIONS)
    names = labels(figure)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert "3/5" in texts
    for name in ("OOD error", "OOD loss"):
        assert names.index(name) not in means(figure.axes[0])
    happened = [place for place in range(len(names)) if place in means(figure.axes[0])]
    assert max(happened) == len(happened) - 1  # lines without a mean come last


def test_no_seed_made_the_transition(with_events):
    figure = draw(with_events(2, 0), OPTIONS)
    assert "no seed made the transition" in {text.get_text() for text in figure.axes[1].texts}
    figure.draw_without_rendering()


def test_an_even_drift_is_the_null(with_events):
    steps = draw(with_events(), OPTIONS).axes[0]
    ticks = [
        float(line.get_xdata()[0]) for line in steps.lines if line.get_marker() == "|" and line.get_markersize() == 7
    ]
    assert len(ticks) > 10 and np.abs(np.array(ticks) - 1750).max() <= 500


def test_what_is_missing_is_named(with_events):
    tables = with_events(1, 1)
    with pytest.raises(ValueError, match=r"first_step_below_0\.5"):
        draw({name: table[~table["quantity"].str.contains("first_step")] for name, table in tables.items()}, OPTIONS)
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(tables, {"experiments": []})


def test_nothing_overlaps(with_events):
    figure = draw(with_events(), OPTIONS)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
