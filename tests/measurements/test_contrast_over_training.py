"""Two sets of sequences in the residual stream: planted differences, hand computation, the nulls."""

import numpy as np
import pytest
import torch

from learning_geometry.measurements.common.run import Run
from learning_geometry.measurements.runs import contrast_over_training
from learning_geometry.measurements.runs.contrast_over_training import two_sample_jackknife
from learning_geometry.tasks.dataset import Dataset, write_dataset

from .conftest import put

IN, OUT = "in_distribution", "out_of_distribution"
SETTINGS = {"sequences": 40, "null_draws": 5}
PLACES = ["layers.0.residual_pre", "layers.0.residual_mid", "layers.1.residual_mid"]


def by_hand(run, name, step=0, sequences=40, offset=4):
    """Vectors of both sets at the fifth token of the second copy."""
    found = []
    for data in (IN, OUT):
        test_set, seen = run.test_set(data, sequences), {}
        tokens = torch.from_numpy(test_set["tokens"])
        run.model.forward(
            run.parameters(step), tokens, hook=lambda name, value, seen=seen: seen.setdefault(name, value)
        )
        found.append([seen[name][i, start + offset].numpy() for i, start in enumerate(test_set["second_start"])])
    return np.array(found, dtype=np.float64)


def test_numbers_are_those_of_the_fifth_token_of_the_second_copy(make_run, measured):
    run = make_run()
    found = measured(contrast_over_training, run, **SETTINGS)
    assert found.find("mean_cosine")["part"].tolist() == PLACES
    assert set(found.table["data"]) == {"in_distribution-out_of_distribution"}
    for name in PLACES:
        first, second = by_hand(run, name)
        means = first.mean(0), second.mean(0)
        cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
        (row,) = found.find("mean_cosine", name).to_dict("records")
        assert row["value"] == pytest.approx(cosine, abs=1e-5)
        assert (row["n"], row["unit"]) == (80, "1")
        for quantity, vectors in (("mean_variance-first", first), ("mean_variance-second", second)):
            (row,) = found.find(quantity, name).to_dict("records")
            of_sequences = ((vectors - vectors.mean(0)) ** 2).mean(1)
            assert row["value"] == pytest.approx(vectors.var(0, ddof=1).mean(), rel=1e-5)
            # of a variance the jackknife is close to the spread of squared deviations
            assert (row["high"] - row["low"]) / 2 == pytest.approx(
                1.96 * of_sequences.std(ddof=1) / np.sqrt(40), rel=0.1
            )


def test_with_mlps_every_place_is_another(make_run, measured):
    found = measured(contrast_over_training, make_run(model={"mlp_width": 8}), **SETTINGS)
    middle = ["layers.0.residual_mid", "layers.1.residual_pre", "layers.1.residual_mid", "layers.1.residual_post"]
    assert found.find("separability")["part"].tolist() == ["layers.0.residual_pre", *middle]


@pytest.fixture
def two_vocabularies(make_run):
    """Test sets of either half of the vocabulary, which one coordinate tells apart at step 10 and nothing at step 0."""

    def tell_apart(parameters):
        embedding = parameters["embedding.weight"].numpy().copy()
        embedding[:, 0] = np.where(np.arange(24) < 12, 4.0, -4.0)
        put(parameters, "embedding.weight", embedding)

    def all_alike(parameters):
        put(parameters, "embedding.weight", np.random.default_rng(0).normal(size=(1, 16)).repeat(24, 0))

    run = make_run(all_alike, tell_apart)
    generator = np.random.default_rng(0)
    sets = {}
    for name, low in (("low", 0), ("high", 12), ("high_again", 12)):
        tokens = generator.integers(low, low + 12, size=(60, 24))
        sets[name] = {"tokens": tokens, "targets": tokens, "start": np.full(60, 5)}
    write_dataset(run.dataset_file, Dataset({}, sets), {})
    return run


def test_a_planted_difference_is_found_when_it_appears(two_vocabularies, measured):
    settings = {"first": "low", "second": "high", "place": None, "sequences": 60, "null_draws": 20}
    found = measured(contrast_over_training, two_vocabularies, **settings)
    for name in PLACES:
        at = {"part": name, "step": 10}
        (row,) = found.find("separability", **at).to_dict("records")
        assert row["value"] > 0.95 and row["high"] <= 1.0 and 0.8 < row["low"] < row["value"]
        assert (row["n"], row["unit"]) == (120, "fraction")
        assert found.value("mean_cosine", **at) < 0
        for quantity, level, within in (("separability", 0.5, 0.1), ("mean_cosine", 0.6, 0.5)):
            (null,) = found.find(quantity, null="shuffled_labels", **at).to_dict("records")
            assert abs(null["value"] - level) < within and null["n"] == 20
        # at the start nothing tells the sets apart
        for quantity in ("separability", "mean_cosine", "mean_variance-first"):
            first = found.value(quantity, name, step=0)
            assert found.value(quantity, null="untrained", **at) == first
        assert found.value("mean_cosine", null="untrained", **at) == pytest.approx(1.0)
        assert found.value("separability", null="untrained", **at) < 0.6


def test_two_draws_of_one_kind_are_not_told_apart(two_vocabularies, measured):
    settings = {"first": "high", "second": "high_again", "place": "start", "offset": 2, "sequences": 60}
    found = measured(contrast_over_training, two_vocabularies, **settings)
    for name in PLACES:
        (null,) = found.find("separability", name, "shuffled_labels", step=10).to_dict("records")
        assert null["low"] <= found.value("separability", name, step=10) <= null["high"]


def test_intervals_of_two_sets_add_their_variances():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0, 1, 200), generator.normal(3, 4, 200)
    labels = np.repeat([0, 1], 200)
    means = [(sample.sum() - sample) / 199 for sample in (first, second)]
    left_out = np.concatenate([means[0] - second.mean(), first.mean() - means[1]])[:, None]
    expected = np.sqrt(first.var(ddof=1) / 200 + second.var(ddof=1) / 200)
    assert two_sample_jackknife(left_out, labels) == pytest.approx([expected])


def test_only_every_so_often_and_always_the_first_and_last(make_run, measured):
    run = make_run(*(lambda parameters: None for _ in range(4)))
    found = measured(contrast_over_training, run, every=20, **SETTINGS)
    assert sorted(found.table["step"].unique()) == [0, 20, 30]
    # the same model, the same folds and labels: the same numbers
    assert found.find("separability", PLACES[2])["value"].nunique() == 1


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"first": OUT}, ValueError, "both 'out_of_distribution'"),
        ({"second": "markers_9"}, KeyError, "no test set 'markers_9'"),
        ({"sequences": 41}, KeyError, "41 sequences asked"),
        ({"place": "value_positions"}, KeyError, "no 'value_positions'.*'second_start'.*null"),
        ({"offset": 20}, ValueError, r"second_start \+ 20 is .* of 24 positions; lower `offset`"),
    ],
)
def test_what_is_missing_is_named(make_run, measured, settings, error, match):
    with pytest.raises(error, match=match):
        measured(contrast_over_training, make_run(), **SETTINGS | settings)


def test_test_sets_of_different_lengths_are_refused(make_run, measured, monkeypatch):
    whole = Run.test_set

    def test_set(run, name, sequences):
        arrays = whole(run, name, sequences)
        return arrays | {"tokens": arrays["tokens"][:, :20]} if name == OUT else arrays

    monkeypatch.setattr(Run, "test_set", test_set)
    lengths = r"sequences of \{'in_distribution': 24, 'out_of_distribution': 20\} positions"
    with pytest.raises(ValueError, match=rf"{lengths}, .* name two test sets of one length"):
        measured(contrast_over_training, make_run(), **SETTINGS)


def test_a_model_that_reads_at_the_last_position_is_looked_at_there(make_run, measured):
    run = make_run(model={"readout": "last"})
    with pytest.raises(ValueError, match=r"reads out at the last position alone.*null"):
        measured(contrast_over_training, run, **SETTINGS)
    found = measured(contrast_over_training, run, place=None, **SETTINGS)
    assert found.find("separability")["n"].tolist() == [80] * 3
