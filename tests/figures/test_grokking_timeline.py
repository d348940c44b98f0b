import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.grokking_timeline import draw
from learning_geometry.geometry.uncertainty import share_interval
from learning_geometry.tables.derived.grokking_events import derive as grokking_events
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

LAST = 5000
GROKS = (2600, 2800, 3000, 2700, 3100)
CROSSINGS = (1600, 1700, 2100, 1500, 2000)
KINDS = {  # operation, number of seeds that grok, number with a crossing
    "grokking_add": ("add", 5, 5),
    "add_without_weight_decay": ("add", 0, 0),
    "quadratic_form": ("quadratic_form", 0, 3),
    "cubic_form": ("cubic_form", 0, 1),
}


def rows_of(seed, groks, fires, measured):
    noise = np.random.default_rng([seed, groks, fires])
    steps, checkpoints = np.arange(0, LAST + 1, 100), np.arange(0, LAST + 1, 250)
    grok, crossing = GROKS[seed % 5] if groks else 10 * LAST, CROSSINGS[seed % 5] if fires else 10 * LAST
    rows = []
    for data, middle, width in (("training_pairs", 300, 60), ("held_out_pairs", grok, 150)):
        value = 0.99 / (1 + np.exp((steps - middle) / width)) + noise.normal(0, 0.003, len(steps))
        row = {"quantity": "running_error", "data": data, "step": steps, "value": value.clip(0, 1)}
        rows.append(row | {"unit": "fraction", "n": 500})
    if not measured:
        return rows
    defect = (1 + 0.5 * checkpoints / LAST) * np.exp(5 / (1 + np.exp((crossing - checkpoints) / 150)))
    defect *= np.exp(noise.normal(0, 0.2, len(checkpoints)))
    rows.append({"quantity": "commutator_defect", "data": "training", "step": checkpoints, "value": defect})
    last = {"step": LAST, "unit": "steps"}
    for quantity, happened, value in (
        ("grok_step", groks, grok),
        ("defect_crossing_step", fires, crossing),
        ("grok_lead", groks and fires, grok - crossing),
    ):
        rows.append(
            last | {"quantity": quantity, "value": float(value if happened else LAST), "censored": not happened}
        )
    rows.append(last | {"quantity": "false_alarm", "value": float(fires and not groks), "unit": "1"})
    for part, add in (("layers.0.attention.query", 0.05), ("attention_matrices", 0.0)):
        here = {"step": LAST, "part": part, "unit": "fraction"}
        share = (0.72 if groks else 0.45) + add + float(noise.normal(0, 0.02))
        walk = {"null": "step_norm_walk", "low": 0.5, "high": 0.68, "n": 100}
        rows.append(here | {"quantity": "trajectory_pc1_share", "value": share})
        rows.append(here | walk | {"quantity": "trajectory_pc1_share", "value": 0.6})
        without = {"quantity": "trajectory_pc1_share_without_initial_direction", "value": share - 0.2}
        rows.append(here | without)
    return rows


def planted(names=tuple(KINDS)[:3], seeds=5, unmeasured=(), lacking=0):
    """``lacking`` of the seeds of the first experiment neither grok nor have a crossing."""
    made = []
    for name in names:
        _, groks, fires = KINDS[name]
        lack = lacking if name == names[0] else 0
        for seed in range(seeds):
            rows = rows_of(seed, seed < groks - lack, seed < fires - lack, name not in unmeasured)
            made.append(tidy(rows, name, seed))
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    tasks = {name: {"operation": KINDS[name][0], "prime": 97} for name in names}
    return tables, {"experiments": list(names), "tasks": tasks}


def by_title(figure, start):
    (found,) = (axes for axes in figure.axes if axes.get_title().startswith(start))
    return found


def bottom(figure):
    return figure.axes[-3:]


def at_side(axes):
    return [text.get_text() for text in axes.texts if "/" in text.get_text()]


def ticks(axes):
    return [sorted(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]


def test_errors_over_defects():
    tables, options = planted()
    figure = draw(tables, options)
    assert len(figure.axes) == 2 * 3 + 3
    errors = by_title(figure, "grokking add, n = 5")
    means = {line.get_color(): line.get_ydata() for line in errors.lines if line.get_zorder() == 3}
    assert means[style.BLUE][10] < 0.01 < 0.9 < means[style.VERMILION][10]
    assert means[style.VERMILION][-1] < 0.01
    assert by_title(figure, "quadratic form").lines[-1].get_marker() == "|"
    defects = [axes for axes in figure.axes if axes.get_yscale() == "log"]
    assert len({axes.get_ylim() for axes in defects}) == 1 and len(defects) == 3
    assert all(axes.get_xlim() == (0, LAST) for axes in defects)


def test_events_of_every_seed_are_marked():
    figure = draw(*planted())
    assert ticks(by_title(figure, "grokking add")) == [sorted(CROSSINGS), sorted(GROKS)]
    assert ticks(by_title(figure, "add without")) == []
    assert ticks(by_title(figure, "quadratic")) == [sorted(CROSSINGS[:3])]


def test_published_steps_of_the_same_operation():
    figure = draw(*planted())
    spans = {
        axes.get_title()[:8]: [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
        for axes in figure.axes
        if axes.get_title()
    }
    assert spans["grokking"] == spans["add with"] == [(2500, 3200)]
    assert spans["quadrati"] == []


def test_no_published_steps_without_weight_decay():
    tables, options = planted()
    decay = {"grokking_add": 1.0, "add_without_weight_decay": 0.0, "quadratic_form": 1.0}
    figure = draw(tables, options | {"optimizers": {name: {"weight_decay": value} for name, value in decay.items()}})
    assert len(by_title(figure, "grokking add").patches) == 1
    assert len(by_title(figure, "add without").patches) == 0


def test_leads_are_paired_and_have_an_interval():
    leads, _, _ = bottom(draw(*planted()))
    (mean,) = leads.containers
    assert mean.lines[0].get_xdata()[0] == pytest.approx(np.mean(np.subtract(GROKS, CROSSINGS)))
    assert len(mean.lines[2]) == 1
    assert at_side(leads) == ["5/5", "0/5", "0/5"]
    low, high = leads.get_xlim()
    assert low < 0 < high


def test_censored_leads_have_no_mean():
    figure = draw(*planted(lacking=2))
    leads = bottom(figure)[0]
    assert not leads.containers
    assert at_side(leads)[0] == "3/5"
    (dots,) = (line for line in leads.lines if line.get_marker() == "o")
    assert len(dots.get_xdata()) == 3
    assert by_title(figure, "grokking add").get_title() == "grokking add, n = 5"


def test_no_seed_groks():
    figure = draw(*planted(("quadratic_form", "cubic_form")))
    leads, alarms, _ = bottom(figure)
    assert at_side(leads) == ["0/5", "0/5"] and at_side(alarms) == ["3/5", "1/5"]
    figure.draw_without_rendering()


def test_events_found_in_the_tables_are_drawn():
    tables, options = planted()
    events = ["fit_step", "grok_step", "defect_crossing_step", "grok_lead", "false_alarm"]
    runs = tables["runs"][~tables["runs"]["quantity"].isin(events)]
    runs = pd.concat([runs, grokking_events(runs)], ignore_index=True)
    figure = draw({"runs": runs, "summary": summarize([runs])}, options)
    leads, alarms, _ = bottom(figure)
    assert at_side(leads) == ["5/5", "0/5", "0/5"] and at_side(alarms) == ["0/5", "0/5", "3/5"]
    crossings, groks = ticks(by_title(figure, "grokking add"))
    # the error falls below .1 some 330 steps after its middle, and the defect was above 20 by the crossing's checkpoint
    assert np.abs(np.subtract(groks, np.sort(GROKS)) - 330).max() <= 150
    assert np.abs(np.subtract(crossings, np.sort(CROSSINGS))).max() <= 500


def test_false_alarms_have_exact_intervals():
    _, alarms, _ = bottom(draw(*planted()))
    assert at_side(alarms) == ["0/5", "0/5", "3/5"]
    for container, count in zip(alarms.containers, (0, 0, 3), strict=True):
        (segment,) = container.lines[2][0].get_segments()
        assert tuple(segment[:, 0]) == pytest.approx(share_interval(count, 5))


def test_shares_of_the_first_component():
    tables, options = planted()
    figure = draw(tables, options)
    components = bottom(figure)[2]
    summary = tables["summary"]
    rows = summary[(summary["part"] == "attention_matrices") & (summary["null"] == "")]
    want = rows[rows["quantity"].str.startswith("trajectory_pc1")]["estimate"]
    found = [container.lines[0].get_xdata()[0] for container in components.containers]
    assert sorted(found) == pytest.approx(sorted(want))
    bands = [(patch.get_x(), round(patch.get_x() + patch.get_width(), 9)) for patch in components.patches]
    assert bands == [(0.63, 0.83), (0.42, 0.49)]
    names = [text.get_text() for text in figure.subfigs[1].legends[0].get_texts()]
    assert "null: walk, same step norms" in names


def test_controls_without_a_defect_show_their_errors_alone():
    names = tuple(KINDS)[:3]
    figure = draw(*planted(names, unmeasured=names[1:]))
    assert len(figure.axes) == 2 + 1 + 1 + 3
    for axes in bottom(figure):
        assert [text.get_text() for text in axes.texts].count("not measured") == 2


@pytest.mark.parametrize(("number", "seeds"), [(1, 1), (2, 5), (4, 5)])
def test_any_number_of_controls_without_overlaps(number, seeds):
    figure = draw(*planted(tuple(KINDS)[:number], seeds=seeds))
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [part.legends[0].get_window_extent() for part in figure.subfigs]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])


def test_what_is_missing_is_named():
    tables, options = planted(seeds=1)
    for quantity in ("running_error", "commutator_defect", "grok_lead", "false_alarm", "trajectory_pc1_share"):
        fewer = {name: table[table["quantity"] != quantity] for name, table in tables.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(fewer, options)
    for name in ("experiments", "tasks"):
        with pytest.raises(ValueError, match=f"'{name}' is missing"):
            draw(tables, options | {name: {}})


def test_saves_as_any_figure(tmp_path):
    figure = draw(*planted(seeds=2))
    style.save(figure, tmp_path / "f.pdf", tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000
