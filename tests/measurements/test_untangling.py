from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import calinski_harabasz_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from learning_geometry.measurements.language_models import untangling
from learning_geometry.seeding import seeded

from .prompts import planted_run, walk

PAIRS = 20
FEW = {"resamples": 60, "swapped_labellings": 12, "swapped_shapes": 3, "rank": 4}
LABELS = np.repeat([0, 1], PAIRS)


@pytest.fixture(scope="module")
def runs():
    """Sets that part with depth when trained, and never before."""
    trained = walk(np.random.default_rng(0), 2 * PAIRS, 3, shift=lambda layer: 0.3 * layer**3)
    return trained, walk(np.random.default_rng(1), 2 * PAIRS, 3)


@pytest.fixture(scope="module")
def table(runs):
    settings = {name: schema["default"] for name, schema in untangling.SETTINGS.items()}
    return untangling.measure(planted_run(runs[0], {"any": PAIRS}, runs[1]), settings | FEW)


@pytest.fixture
def found(table, measured):
    return measured(SimpleNamespace(SETTINGS={}, measure=lambda *_: table), None)


@pytest.mark.parametrize("which", ["trained", "untrained"])
def test_separability_is_that_of_scikit_learn(found, runs, which):
    fold = seeded("prompts", "any", "folds").permutation(np.arange(PAIRS) % 5)
    # the penalty is 1 per training sample, of which there are 32
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=32.0))
    for layer in range(3):
        part = f"layers.{layer}.residual_mid"
        vectors = runs[which == "untrained"][part].astype(np.float64)
        scores = cross_val_predict(ridge, vectors, 2 * LABELS - 1, cv=PredefinedSplit(np.tile(fold, 2)))
        null = "" if which == "trained" else "untrained"
        assert found.value("separability", part, null) == pytest.approx(((scores > 0) == LABELS).mean())


def test_shapes_are_those_of_scikit_learn(found, runs):
    from skdim.id import TwoNN

    for null, states in zip(("", "untrained"), runs, strict=True):
        vectors = states["layers.2.residual_mid"].astype(np.float64)
        at = {"part": "layers.2.residual_mid", "null": null}
        score = calinski_harabasz_score(vectors, LABELS)
        assert found.value("between_over_within", **at) == pytest.approx(score / (2 * PAIRS - 2))
        sets = {"first": vectors[:PAIRS], "second": vectors[PAIRS:], "union": vectors}
        for name, of_set in sets.items():
            variances = PCA().fit(of_set).explained_variance_
            ratio = variances.sum() ** 2 / (variances**2).sum()
            assert found.value(f"participation_ratio-{name}", **at) == pytest.approx(ratio)
            dimension = TwoNN().fit(of_set).dimension_
            assert found.value(f"intrinsic_dimension-{name}", **at) == pytest.approx(dimension, rel=1e-6)
        bases = [PCA(4).fit(sets[name]).components_.T for name in ("first", "second")]
        cosines = np.cos(subspace_angles(*bases))
        assert found.value("set_cosine_rms", **at) == pytest.approx(np.sqrt(np.mean(cosines**2)))
        assert found.value("set_cosine_largest", **at) == pytest.approx(cosines.max())


def test_depth_separates_the_sets_beyond_chance_and_the_untrained_model(found):
    part = "layers.2.residual_mid"
    (row,) = found.find("separability", part).to_dict("records")
    assert (row["unit"], row["n"]) == ("fraction", PAIRS)
    assert row["low"] <= row["value"] <= row["high"]
    for quantity in ("separability", "between_over_within"):
        (null,) = found.find(quantity, part, "swapped_pairs").to_dict("records")
        assert null["n"] == 12
        assert found.value(quantity, part) > null["high"]
        assert found.value(quantity, part) > found.value(quantity, part, "untrained")
    (row,) = found.find("separability_gain").to_dict("records")
    ends = [
        [found.value("separability", f"layers.{i}.residual_mid", null) for i in (0, 2)] for null in ("", "untrained")
    ]
    assert row["value"] == pytest.approx(ends[0][1] - ends[0][0] - ends[1][1] + ends[1][0])
    assert 0 < row["low"] < row["value"] < row["high"]
    assert (row["part"], row["n"]) == ("model", PAIRS)


def test_what_labels_do_not_change_has_no_swapped_null(found):
    swapped = set(found.table.loc[found.table["null"] == "swapped_pairs", "quantity"])
    assert set(found.table["quantity"]) - swapped == {
        "participation_ratio-union",
        "intrinsic_dimension-union",
        "separability_gain",
    }
    (row,) = found.find("set_cosine_rms", "layers.1.residual_mid", "swapped_pairs").to_dict("records")
    assert row["n"] == 3 and row["low"] < row["value"] < row["high"]


def test_an_untrained_model_gains_nothing_over_itself(runs, measured):
    found = measured(untangling, planted_run(runs[0], {"any": PAIRS}), **FEW)
    (row,) = found.find("separability_gain").to_dict("records")
    assert (row["value"], row["low"], row["high"]) == (0.0, 0.0, 0.0)


def test_the_embedding_is_left_out(runs, measured):
    run = planted_run(runs[0], {"any": PAIRS}, runs[1])
    found = measured(untangling, run, **FEW, streams=["residual_pre", "residual_mid"])
    parts = set(found.table["part"])
    assert {"layers.1.residual_pre", "layers.2.residual_pre", "layers.0.residual_mid"} <= parts
    assert "layers.0.residual_pre" not in parts
    assert found.table["value"].notna().all()
    # of residual_mid, whatever the order
    alone = measured(untangling, run, **FEW)
    assert found.value("separability_gain") == alone.value("separability_gain")


def test_prompts_that_coincide_have_no_intrinsic_dimension(runs, measured):
    same = {name: each.copy() for name, each in runs[0].items()}
    for each in same.values():
        each[1] = each[0]
    found = measured(untangling, planted_run(same, {"any": PAIRS}, runs[1]), **FEW)
    part = "layers.1.residual_mid"
    names = ("first", "second", "union")
    assert [found.find(f"intrinsic_dimension-{name}", part).empty for name in names] == [True, False, True]
    reason = "prompts of a set coincide, or it spans fewer than 4 directions"
    assert set(found.find("not_measured", part)["data"]) == {
        f"any: no intrinsic_dimension-{name}, as {reason}" for name in ("first", "union")
    }
    assert found.find("intrinsic_dimension-first", part, "swapped_pairs").empty
    assert np.isfinite(found.value("participation_ratio-first", part))


def test_too_few_pairs_are_refused(runs, measured):
    few = {name: each[:8] for name, each in runs[0].items()}
    with pytest.raises(ValueError, match="4 groups do not make 5 parts"):
        measured(untangling, planted_run(few, {"any": 4}), **FEW)
    with pytest.raises(ValueError, match="no 4 principal directions"):
        measured(untangling, planted_run(few, {"any": 4}), **FEW | {"folds": 2})
