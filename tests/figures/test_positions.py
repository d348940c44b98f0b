import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures.positions import SCHEMES, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OUT = "out_of_distribution"
NAMES = {"rotary": "small", "learned": "small_learned", "none": "small_none", "alibi": "small_alibi"}
LENGTHS = (24, 36, 72)


def rows(scheme, seed):
    noise = np.random.default_rng(seed).normal(0, 0.02)
    steps = np.arange(0, 601, 100)
    learns = scheme in ("rotary", "learned")
    made = [
        {
            "step": steps,
            "quantity": "running_error",
            "data": OUT,
            "value": 0.9 + noise - 0.8 * learns * (steps > 300),
            "unit": "fraction",
        }
    ]
    for length in LENGTHS if scheme != "learned" else LENGTHS[:1]:
        here = {"data": OUT, "index": length, "unit": "fraction"}
        for step in (0, 300, 600):
            error = 0.9 if step < 600 or not learns else 0.1 + 0.01 * (length - 24)
            row = here | {"step": step, "quantity": "error_at_length"}
            null = {"null": "constant_prediction", "value": 0.95, "low": 0.95, "high": 0.95}
            made += [row | {"value": error + noise}, row | null]
            for score in ("previous_token_score", "induction_score"):
                for layer in (0, 1):
                    ours = layer == (score == "induction_score")
                    row = here | {"step": step, "quantity": f"{score}_at_length", "part": f"layers.{layer}"}
                    null = {"null": "uniform_attention", "value": 0.1, "low": 0.1, "high": 0.1}
                    made += [row | {"value": 0.1 + 0.7 * ours * (step == 600) * learns}, row | null]
    return made


def planted(seeds=2, schemes=NAMES):
    made = [tidy(rows(scheme, seed), NAMES[scheme], seed) for scheme in schemes for seed in range(seeds)]
    tables = {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}
    names = [NAMES[scheme] for scheme in schemes]
    models = {NAMES[scheme]: {"positions": scheme} for scheme in schemes}
    return tables, {"experiments": names, "tasks": {name: {"length": 24} for name in names}, "models": models}


def thick(axes, scheme):
    (line,) = (line for line in axes.lines if line.get_zorder() == 3 and line.get_color() == SCHEMES[scheme][1])
    return line.get_xydata()


def test_every_scheme_has_its_line():
    figure = draw(*planted())
    errors, previous, induction, lengths = figure.axes
    for scheme in NAMES:
        learns = scheme in ("rotary", "learned")
        assert thick(errors, scheme)[-1, 1] == pytest.approx(0.1 if learns else 0.9, abs=0.05)
        for axes in (previous, induction):
            assert thick(axes, scheme)[:, 0].tolist() == [0, 300, 600]
            assert thick(axes, scheme)[-1, 1] == pytest.approx(0.8 if learns else 0.1)
    assert thick(lengths, "rotary")[:, 0].tolist() == list(LENGTHS)
    assert thick(lengths, "rotary")[-1, 1] == pytest.approx(0.58, abs=0.05)  # the last checkpoint's
    assert lengths.get_xlabel().startswith("test length (tokens)")


def test_learned_positions_end_at_the_training_length():
    figure = draw(*planted())
    lengths = figure.axes[3]
    assert thick(lengths, "learned")[:, 0].tolist() == [24]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:4] == ["rotary, n = 2", "learned (none beyond 24), n = 2", "none, n = 2", "ALiBi, n = 2"]
    assert "training length, 24 tokens" in names
    (marked,) = (line for line in lengths.lines if list(line.get_ydata()) == [0, 1] and set(line.get_xdata()) == {24})
    assert marked.get_color() == "#000000"


def test_one_experiment_and_one_seed_are_enough():
    draw(*planted(1, {"rotary": NAMES["rotary"]})).draw_without_rendering()


def test_what_is_missing_is_named():
    tables, options = planted(1)
    for quantity in ("running_error", "error_at_length", "induction_score_at_length"):
        fewer = {name: table[table["quantity"] != quantity] for name, table in tables.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(fewer, options)
    with pytest.raises(ValueError, match="'models' is missing"):
        draw(tables, options | {"models": {}})


def test_nothing_overlaps():
    figure = draw(*planted())
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
