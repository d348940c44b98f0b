"""Spectra of activations over training: planted subspaces, an independent decomposition, heads, nulls and phases."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy, linregress

from learning_geometry.measurements.runs import spectrum_over_training
from learning_geometry.measurements.runs.spectrum_over_training import measured_steps, participation

from .conftest import put

OUT, WIDTH = "out_of_distribution", 16
SETTINGS = {"sequences": 40, "null_draws": 3, "test_sets": [OUT], "ranks": [0.1, 0.8]}
MODEL = {"mlp_width": 12}


def activation(run, step, name, sequences=40):
    tokens = torch.from_numpy(run.test_set(OUT, sequences)["tokens"])
    seen = {}
    run.model.forward(run.parameters(step), tokens, hook=lambda name, value: seen.setdefault(name, value))
    return seen[name][:, 1:].double()


def spectrum(vectors):
    flat = vectors.flatten(0, 1).numpy()
    return np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2


def test_ranks_and_exponents_are_those_of_the_activations(make_run, measured):
    run = make_run(model=MODEL)
    found = measured(spectrum_over_training, run, **SETTINGS)
    for part in ("attention.output", "mlp.output"):
        for layer in (0, 1):
            values = spectrum(activation(run, 0, f"layers.{layer}.{part}"))
            rank = found.value("effective_rank_of_variances", f"layers.{layer}.{part}")
            assert rank == pytest.approx(np.exp(entropy(values)) / WIDTH, rel=1e-4)
            line = linregress(np.log(np.arange(2, 13)), np.log(values[1:12]))
            assert found.value("power_law_exponent", f"layers.{layer}.{part}") == pytest.approx(-line.slope, rel=1e-3)
        of_layers = [found.value("effective_rank_of_variances", f"layers.{layer}.{part}") for layer in (0, 1)]
        assert found.value("effective_rank_of_variances", part) == pytest.approx(np.mean(of_layers))
        directions = [
            (np.cumsum(s := spectrum(activation(run, 0, f"layers.{layer}.{part}"))) / s.sum() < 0.99).sum() + 1
            for layer in (0, 1)
        ]
        assert found.value("directions_99", part) == pytest.approx(np.mean(directions) / WIDTH)
    final = found.value("power_law_exponent", "final_stream")
    assert final == found.value("power_law_exponent", "layers.1.residual_post")
    assert set(found.table["data"]) == {OUT}


def test_what_a_head_writes_and_how_many_do(make_run, measured):
    def quiet(parameters):  # the second head of layer 1 writes nothing, the first along one direction
        output = np.zeros((WIDTH, WIDTH))
        output[:, 0] = 1.0
        put(parameters, "layers.1.attention.output.weight", output)

    found = measured(spectrum_over_training, make_run(lambda _: None, quiet), **SETTINGS)
    assert found.value("head_participation_ratio", "layers.1.heads.0", step=10) == pytest.approx(1.0)
    assert np.isnan(found.value("head_participation_ratio", "layers.1.heads.1", step=10))
    assert found.value("participating_heads", "layers.1", step=10) == pytest.approx(1.0)
    run = make_run(lambda _: None, quiet)
    output = run.parameters(0)["layers.0.attention.output.weight"].double()
    written = activation(run, 0, "layers.0.attention.z")[..., 8:] @ output[:, 8:].T
    values = spectrum(written)
    ratio = found.value("head_participation_ratio", "layers.0.heads.1", step=0)
    assert ratio == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-6)
    alone = found.value("head_participation_ratio", "layers.0.heads.1", "isotropic_z", step=0)
    assert alone == pytest.approx(participation((output[:, 8:] @ output[:, 8:].T).numpy()))
    variances = [spectrum(activation(run, 0, "layers.0.attention.z")[..., s] @ output[:, s].T).sum() for s in HEADS]
    assert found.value("participating_heads", "layers.0", step=0) == pytest.approx(participation(np.diag(variances)))


HEADS = (slice(0, 8), slice(8, 16))


def test_nulls(make_run, measured):
    run = make_run(lambda _: None, lambda p: put(p, "embedding.weight", p["embedding.weight"].numpy() * 3))
    found = measured(spectrum_over_training, run, **SETTINGS)
    for quantity in ("effective_rank_of_variances", "power_law_exponent"):
        first = found.value(quantity, "final_stream", step=0)
        assert found.value(quantity, "final_stream", "untrained", step=10) == first
        (isotropic,) = found.find(quantity, "final_stream", "isotropic", step=10).to_dict("records")
        assert isotropic["n"] == 3
    assert found.value("effective_rank_of_variances", "final_stream", "isotropic", step=0) > 0.95
    planted = found.value("power_law_exponent", "final_stream", "planted_power_law", step=10)
    assert planted == pytest.approx(found.value("power_law_exponent", "final_stream", step=10), abs=0.1)


def test_phases_of_planted_checkpoints(make_run, measured):
    """The stream is wide, narrow, wide and narrow again."""

    def narrowed(scale):
        def change(parameters):
            embedding = np.random.default_rng(0).normal(size=(24, WIDTH)) * np.where(np.arange(WIDTH) < 2, 1.0, scale)
            put(parameters, "embedding.weight", embedding)
            for layer in (0, 1):
                put(parameters, f"layers.{layer}.attention.output.weight", np.zeros((WIDTH, WIDTH)))

        return change

    run = make_run(*(narrowed(scale) for scale in (1.0, 0.2, 1.0, 0.2)))
    found = measured(spectrum_over_training, run, **SETTINGS)
    phases = found.find("effective_rank_of_variances_phase").sort_values("index")["value"]
    assert (phases > 0.5).all() and phases.tolist()[0] == pytest.approx(phases.tolist()[1], rel=0.05)
    assert found.find("effective_rank_of_variances_phase_step").sort_values("index")["value"].tolist() == [10, 20]
    assert (found.find("power_law_exponent_phase")["value"] > 0.1).all()


def test_early_checkpoints_are_measured_too_if_asked_for(make_run):
    run = make_run(*[lambda _: None] * 6)
    assert measured_steps(run, 30, True) == [0, 10, 20, 30, 50]
    assert measured_steps(run, 30, False) == [0, 30, 50]


def test_too_few_vectors_are_refused(make_run, measured):
    with pytest.raises(ValueError, match=f"^spectrum_over_training, tiny, {OUT}: 92 vectors of .* are fewer than 320"):
        measured(spectrum_over_training, make_run(), **SETTINGS | {"sequences": 4})
