import numpy as np
import pandas as pd
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.commutator_alignment import PUBLISHED, draw
from learning_geometry.tables.summary import summarize
from learning_geometry.tables.tidy import tidy

OPTIONS = {"experiments": ["marker_sums"], "tasks": {}}
STEPS = (0, 500, 1000, 1500, 2000, 3000, 4000)
BLOCKS = {  # share of the commutator first and last, of the gradients first and last, of the parameters
    "embedding": (0.05, 0.02, 0.08, 0.05, 0.08),
    "positions": (0.02, 0.01, 0.03, 0.02, 0.01),
    **{
        f"layers.{layer}.attention.{name}": (0.1 - 0.01 * layer, 0.08, 0.06, 0.07, 0.085)
        for layer in range(5)
        for name in ("query_key", "value_output")
    },
    "norms": (0.0, 0.001, 0.002, 0.003, 0.003),
    "readout": (0.13, 0.2, 0.2, 0.25, 0.05),
}


def rows_of(seed, other, early):
    """Shares near .1, of gradients a little above; rounding grows and takes the share in float32 with it."""
    noise = np.random.default_rng([seed, 3])
    rows = []

    def add(step, quantity, value, part="model", index=0, **columns):
        row = {"step": step, "quantity": quantity, "value": value, "part": part, "index": index}
        rows.append(row | {"data": "training", "unit": "fraction"} | columns)

    for step in STEPS:
        level = 0.8 + 6 * step / 4000
        pairs = level * np.exp(noise.normal(0, 0.5, 9))
        add(step, "commutator_defect_of_pair", pairs, index=np.arange(9), unit="1")
        add(step, "commutator_defect", float(np.median(pairs)), unit="1")
        free = (0.7 + 0.2 * step / 4000 + noise.normal(0, 0.05, 9)).clip(0, 1)
        add(step, "commutator_scale_free_defect_of_pair", free, index=np.arange(9), unit="1")
        add(step, "commutator_scale_free_defect", float(np.median(free)), unit="1")
        error = 0.16 * 80 ** (step / 4000) * float(np.exp(noise.normal(0, 0.1)))
        add(step, "commutator_rounding_error", error, unit="1")
        add(step, "commutator_step_error", 1e-3 * (1 + step / 4000), unit="1")
        for block, (first, last, gradient_first, gradient_last, of_all) in BLOCKS.items():
            grown = step / 4000
            here = {"part": block}
            add(step, "commutator_block_share", first + (last - first) * grown, **here)
            gradients = gradient_first + (gradient_last - gradient_first) * grown
            add(step, "commutator_block_share", gradients, **here, null="gradients", low=gradients, high=gradients)
            add(step, "commutator_block_share", of_all, **here, null="parameters", low=of_all, high=of_all)
        if step < early:
            continue
        share = (0.11 - 0.02 * step / 4000) * float(np.exp(noise.normal(0, 0.1)))
        nulls = {"random_subspace": 0.0128, "random_within_matrices": 0.0163, "gradients": 1.2 * share}
        nulls |= {"another_seed": 0.04} if other else {}
        for name, power in (("norm", 1), ("energy", 2)):
            quantity = f"commutator_share_{name}"
            add(step, quantity, share**power)
            add(step, f"{quantity}_finite_float64", (1.001 * share) ** power)
            add(step, f"{quantity}_finite_float32", (share / np.sqrt(1 + error**2)) ** power)
            for null, value in nulls.items():
                low, high = (0.8 * value) ** power, (1.25 * value) ** power
                add(step, quantity, value**power, null=null, low=low, high=high, n=100)
    return rows


def planted(seeds=5, other=True, early=1000):
    made = [tidy(rows_of(seed, other, early), "marker_sums", seed) for seed in range(seeds)]
    return {"summary": summarize(made), "runs": pd.concat(made, ignore_index=True)}


def without(tables, quantity):
    return {name: table[table["quantity"] != quantity] for name, table in tables.items()}


def thick(axes):
    return [line for line in axes.lines if line.get_zorder() == 3]


def names(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_shares_and_their_nulls():
    tables = planted()
    figure = draw(tables, OPTIONS)
    norm, energy = figure.axes[:2]
    for axes, quantity in ((norm, "commutator_share_norm"), (energy, "commutator_share_energy")):
        ours, gradients, other = thick(axes)
        rows = tables["summary"][(tables["summary"]["quantity"] == quantity) & (tables["summary"]["null"] == "")]
        np.testing.assert_allclose(ours.get_ydata(), rows.sort_values("step")["estimate"])
        assert ours.get_xdata().tolist() == [1000, 1500, 2000, 3000, 4000]  # no subspace earlier
        assert (gradients.get_ydata() > ours.get_ydata()).all()
        assert len(set(other.get_ydata().round(12))) == 1
        assert axes.get_xlim() == (0, 4000) and axes.get_yscale() == "log"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "commutator, n = 5",
        "null: random subspace",
        "null: random within the matrices",
        "null: the gradients' own share",
        "null: another seed's subspace",
        "published: early (left), late (right)",
    ]


def test_published_shares_stand_at_the_edges():
    norm, energy, arithmetic = draw(planted(), OPTIONS).axes[:3]
    for axes, power in ((norm, 1), (energy, 2), (arithmetic, 1)):
        marks = [tuple(*line.get_xydata()) for line in axes.lines if line.get_marker() in "<>"]
        assert marks == [(0.0, PUBLISHED[0] ** power), (1.0, PUBLISHED[1] ** power)]
        low, high = axes.get_ylim()
        assert low < PUBLISHED[1] ** power < PUBLISHED[0] ** power < high


def test_arithmetic_and_rounding():
    arithmetic, errors = draw(planted(), OPTIONS).axes[2:4]
    products, double, single = (line.get_ydata() for line in thick(arithmetic))
    np.testing.assert_allclose(double, products, rtol=2e-3)
    assert single[-1] < 0.1 * products[-1]
    assert names(arithmetic) == [
        "Hessian products, n = 5",
        "finite steps, float64, n = 5",
        "finite steps, float32, n = 5",
    ]
    rounding, step_error = (line.get_ydata() for line in thick(errors))
    assert errors.get_yscale() == "log"
    assert rounding[-1] > 10 > 1 > rounding[0] > 10 * step_error.max()


def test_without_finite_steps_their_panels_are_left_out():
    tables = planted(seeds=2)
    finite = tables["summary"]["quantity"].str.contains("_finite_|rounding|step_error")
    tables = {
        name: table[~table["quantity"].isin(tables["summary"].loc[finite, "quantity"])]
        for name, table in tables.items()
    }
    figure = draw(tables, OPTIONS)
    assert [axes.texts[0].get_text() for axes in figure.axes] == list("abefgh")
    assert all(axes.has_data() for axes in figure.axes)


def test_every_pair_of_every_seed_is_a_dot():
    defect, scale_free = draw(planted(), OPTIONS).axes[4:6]
    for axes in (defect, scale_free):
        (dots,) = (line for line in axes.lines if line.get_marker() == ".")
        assert len(dots.get_xdata()) == 5 * 9 * len(STEPS)
        low, high = axes.get_ylim()
        assert low < dots.get_ydata().min() and dots.get_ydata().max() < high
        assert thick(axes)[0].get_xdata().tolist() == list(STEPS)


def test_blocks_at_the_first_and_the_last_checkpoint():
    figure = draw(planted(), OPTIONS)
    for axes, column, step in zip(figure.axes[6:8], (0, 1), (0, 4000), strict=True):
        assert axes.get_xlabel() == f"share of energy in the block, step {step}"
        (bars,) = axes.containers
        drawn = dict(zip(bars.lines[0].get_ydata(), bars.lines[0].get_xdata(), strict=True))
        want = {float(i): max(shares[column], 1e-4) for i, shares in enumerate(BLOCKS.values())}
        assert drawn == pytest.approx(want)
    labels = [label.get_text() for label in figure.axes[6].get_yticklabels()]
    assert labels[:4] == ["embedding", "positions", "layer 1 query-key", "layer 1 value-output"]
    assert labels[-2:] == ["norms", "readout"]


def test_one_seed_has_no_other_seed_and_no_band():
    figure = draw(planted(seeds=1, other=False), OPTIONS)
    assert "null: another seed's subspace" not in [text.get_text() for text in figure.legends[0].get_texts()]
    # the bands of the random nulls alone
    assert [len(axes.collections) for axes in figure.axes[:6]] == [2, 2, 0, 0, 0, 0]
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    "quantity",
    [
        "commutator_share_norm",
        "commutator_share_energy",
        "commutator_defect",
        "commutator_defect_of_pair",
        "commutator_scale_free_defect",
        "commutator_scale_free_defect_of_pair",
        "commutator_block_share",
    ],
)
def test_what_is_missing_is_named(quantity):
    with pytest.raises(ValueError, match=quantity):
        draw(without(planted(seeds=1), quantity), OPTIONS)


def test_no_experiment():
    with pytest.raises(ValueError, match="'experiments' is missing"):
        draw(planted(seeds=1), {"experiments": []})


def test_nothing_overlaps():
    figure = draw(planted(), OPTIONS)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(box.padded(-1).overlaps(other) for other in boxes[i + 1 :])
