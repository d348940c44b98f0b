"""Ablations in a hand-made induction circuit whose subspaces have known functions: width 100, 2 heads of 50."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learning_geometry.geometry.ablation import ablated_norm, projector
from learning_geometry.geometry.nulls import haar_subspaces
from learning_geometry.measurements.common.ablations import (
    ERROR,
    INDUCTION,
    LOSS,
    PREVIOUS,
    changed_weights,
    components,
    fold_norms,
    joint_weight,
    open_circuit,
    outcome,
)
from learning_geometry.measurements.runs import subspace_function
from learning_geometry.models import build

from .conftest import put

TOKENS, WIDTH, HEAD = 24, 100, 50
CIRCUIT = {"width": WIDTH, "heads": 2, "norm": "none", "positions": "learned"}
GROUPS = {"top": 1, "medium": TOKENS - 1}
SETTINGS = GROUPS | {"ranks": [TOKENS, 400], "sequences": 40, "null_draws": 6, "first_step": 0}

BASIS = haar_subspaces(WIDTH, WIDTH, 1, np.random.default_rng(0))[0].T
COMMON, TOKEN, POSITION, BRIDGE, ANSWER = np.split(BASIS, 1 + TOKENS * np.arange(5))[:5]
"""Directions that hold: what all tokens share; which token; which position (as many); what layer 1 and 2 write."""


def induction(parameters):
    """Head 0 of layer 1 copies the previous token into the bridge; head 1 of layer 2 finds it and copies the next."""
    for name in parameters:
        put(parameters, name, np.zeros(parameters[name].shape))
    put(parameters, "embedding.weight", 3 * COMMON + TOKEN)
    put(parameters, "positions.weight", POSITION)
    shifted = np.r_[np.zeros((1, WIDTH)), POSITION[:-1]]
    first, second = {}, {}
    first["query"], first["key"], first["value"], first["output"] = 10 * POSITION, 10 * shifted, TOKEN, BRIDGE
    second["query"], second["key"], second["value"], second["output"] = 10 * TOKEN, 10 * BRIDGE, TOKEN, ANSWER
    for layer, (head, weights) in enumerate([(0, first), (1, second)]):
        for role, rows in weights.items():
            weight = np.zeros((WIDTH, WIDTH))
            weight[head * HEAD : head * HEAD + TOKENS] = rows
            put(parameters, f"layers.{layer}.attention.{role}.weight", weight.T if role == "output" else weight)
    put(parameters, "readout.weight", 10 * ANSWER)


def uniform_score(length=24):
    return (1 / np.arange(2, length + 1)).mean()


def needed(found, component, score, kind="after_ablation"):
    """Which subspaces the score needs in a component: those without which it loses more than half."""
    intact = found.value(f"{score}_intact", "model")
    parts = {group: f"{component}-embedding.{group}" for group in ("top", "medium", "bottom")}
    return {group for group, part in parts.items() if found.value(f"{score}_{kind}", part) < intact / 2}


MEASURED = {}


@pytest.fixture
def planted(make_run, measured):
    """The measurement of the circuit, made once."""
    if not MEASURED:
        MEASURED["circuit"] = measured(subspace_function, make_run(induction, model=CIRCUIT), **SETTINGS)
    return MEASURED["circuit"]


def test_the_circuit_works(planted):
    assert planted.value("previous_token_score_intact") > 0.99
    assert planted.value("induction_score_intact") > 0.6
    assert planted.value("error_intact") < 0.25  # tokens that occur before by chance


def test_planted_functions_are_found(planted):
    assert needed(planted, "layers.0.query_key", PREVIOUS) == {"bottom"}
    assert needed(planted, "layers.0.query_key", INDUCTION) == {"bottom"}
    assert needed(planted, "layers.0.value_output", INDUCTION) == {"medium"}
    assert needed(planted, "layers.1.query", INDUCTION) == {"medium"}
    assert needed(planted, "layers.1.key", INDUCTION) == {"bottom"}
    assert needed(planted, "layers.1.query_key", INDUCTION) == {"medium", "bottom"}
    for group, destroyed in {"top": False, "medium": False, "bottom": True}.items():
        change = planted.value("error_change_after_ablation", f"readout-embedding.{group}")
        assert (change > 0.5) == destroyed and (abs(change) < 1e-9) != destroyed
    # positions are in the bottom subspace; without them layer 1 attends everywhere alike
    without = planted.value("previous_token_score_after_ablation", "layers.0.query_key-embedding.bottom")
    assert without == pytest.approx(uniform_score(), rel=1e-4)


def test_the_double_dissociation_is_beyond_random_subspaces(planted):
    for part, score, sign in [
        ("layers.0.query_key", PREVIOUS, 1),
        ("layers.1.query", INDUCTION, 1),
        ("layers.1.key", INDUCTION, -1),
    ]:
        value = planted.value(f"{score}_dissociation", part)
        null = planted.find(f"{score}_dissociation", part, "random_subspace").iloc[0]
        assert sign * value > 0.5 and (value > null["high"] if sign > 0 else value < null["low"])
        assert null["n"] == 6
    # changes are differences of the same sequences, and the contrast is of changes
    parts = [f"layers.0.query_key-embedding.{group}" for group in ("medium", "bottom")]
    medium, bottom = (planted.value("previous_token_score_change_after_ablation", part) for part in parts)
    intact = planted.value("previous_token_score_intact")
    assert bottom == pytest.approx(planted.value("previous_token_score_after_ablation", parts[1]) - intact)
    assert planted.value("previous_token_score_dissociation") == pytest.approx(medium - bottom)


def test_the_bridge_is_what_keys_read_and_layer_1_writes(planted):
    for component in ("layers.1.key", "layers.0.output"):
        part = f"{component}-bridge"
        rows = planted.find("error_change_after_ablation", part)
        assert rows["index"].tolist() == [TOKENS]  # a rank above the width is left out
        removed, null = rows["value"].item(), planted.find("error_change_after_ablation", part, "random_subspace")
        assert removed > 0.5 > null["high"].item() + 0.2
        assert planted.value("error_change_kept_alone", part) == pytest.approx(0, abs=1e-6)
        assert planted.value("error_change_kept_alone", part, "random_subspace") > 0.05


def random_norms(seed=5):
    generator = np.random.default_rng(seed)

    def change(parameters):
        for name in parameters:
            if "norm" in name or name.endswith("bias"):
                put(parameters, name, generator.uniform(0.2, 2.0, parameters[name].shape))

    return change


VARIANTS = [
    {"norm": "pre"},
    {"norm": "pre", "heads": 4, "mlp_width": 12, "final_norm": True, "layers": 3},
    {"norm": "pre", "bias": False, "tied_readout": True, "final_norm": True, "positions": "learned"},
    {"norm": "none", "positions": "alibi"},
    {"norm_kind": "rms_norm", "gated_mlp": True, "mlp_width": 12, "heads": 4, "key_value_heads": 2, "head_width": 6},
    {"parallel_residual": True, "mlp_width": 12, "rotary_width": 4, "final_norm": True, "bias": ["mlp"]},
    {"norm_bias": False, "norm_epsilon": 0.5, "activation": "silu", "mlp_width": 12, "gated_mlp": True},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_folding_the_norms_in_changes_nothing(make_run, variant):
    run = make_run(random_norms(), model=variant)
    arrays, settings = fold_norms(run.arrays(0), run.settings["model"])
    assert all((array == float(name.endswith("weight"))).all() for name, array in arrays.items() if "norm" in name)
    tokens = torch.from_numpy(run.test_set("in_distribution", 5)["tokens"])
    folded = {name: torch.from_numpy(array).float() for name, array in arrays.items()}
    logits = build(settings, run.model.shape).forward(folded, tokens)
    torch.testing.assert_close(logits, run.model.forward(run.parameters(0), tokens), rtol=1e-4, atol=1e-4)


def test_norms_in_the_residual_stream_are_not_folded(make_run, measured):
    run = make_run(random_norms(), model={"norm": "post"})
    with pytest.raises(ValueError, match="norm: post has norms in the residual stream, which cannot be folded"):
        measured(subspace_function, run, top=1, medium=5, ranks=[2], sequences=5, first_step=0)


@pytest.mark.parametrize("variant", [{}, VARIANTS[-1], {"norm_kind": "rms_norm"}])
def test_means_are_those_of_what_the_weights_read(make_run, variant):
    """Of a layer that reads x̂ with a mean: W x̂ + b on average is what the queries are on average."""
    run = make_run(random_norms(), model=variant | {"positions": "none"})
    circuit = open_circuit(run, 0, 40, 0, 1)
    seen = {}
    tokens = torch.from_numpy(run.test_set("out_of_distribution", 40)["tokens"])
    run.model.forward(run.parameters(0), tokens, hook=lambda name, x: seen.setdefault(name, x))
    name = "layers.1.attention.query"
    expected = seen[name].transpose(1, 2).flatten(2).mean((0, 1))
    found = circuit.arrays[f"{name}.weight"] @ circuit.means[name] + circuit.arrays[f"{name}.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_ranks_above_that_of_shared_keys_are_left_out(make_run, measured):
    run = make_run(model={"heads": 4, "key_value_heads": 1})
    found = measured(subspace_function, run, top=1, medium=5, ranks=[4, 5], sequences=5, null_draws=2, first_step=0)
    assert found.find("error_after_ablation", "layers.1.key-bridge")["index"].tolist() == [4]
    (reason,) = found.find("not_measured")["data"]
    assert reason == "no bridge ablated of rank 5, which is above 4, the width of all keys"
    # the bridge of that rank is all that the keys read: kept alone it changes nothing
    kept = found.find("loss_change_kept_alone", "layers.1.key-bridge")["value"].item()
    removed = found.find("loss_change_after_ablation", "layers.1.key-bridge")["value"].item()
    assert abs(kept) < 1e-6 < abs(removed)


@pytest.mark.parametrize("variant", VARIANTS)
def test_removing_nothing_changes_nothing(make_run, variant):
    run = make_run(random_norms(), model=variant)
    circuit = open_circuit(run, 0, 40, 0, 1)
    width = circuit.settings["width"]
    for component in components(circuit.settings, 0, 1).values():
        for keep_mean in (False, True):
            changed = changed_weights(circuit, component, np.zeros((width, width)), keep_mean)
            found = outcome(circuit, component, changed)
            assert set(found) == set(component.reaches)
            for name, values in found.items():
                np.testing.assert_allclose(values, circuit.intact[name], atol=1e-5)


def test_intact_is_the_model(make_run):
    from learning_geometry.models.evaluation import evaluate

    run = make_run(random_norms(), model=VARIANTS[1])
    intact = open_circuit(run, 0, 40, 0, 2).intact
    test_set = run.test_set("out_of_distribution", 40)
    result = evaluate(run.model, run.parameters(0), test_set["tokens"], test_set["targets"])
    np.testing.assert_allclose(intact[LOSS], result.losses, rtol=1e-4)
    np.testing.assert_array_equal(intact[ERROR], run.task.errors(result.predictions, test_set)["error"])


def test_without_the_whole_space_attention_is_uniform(make_run):
    run = make_run(model={"positions": "none"})
    circuit = open_circuit(run, 0, 40, 0, 1)
    component = components(circuit.settings, 0, 1)["layers.0.query_key"]
    assert abs(circuit.intact[PREVIOUS].mean() - uniform_score()) > 1e-3
    found = outcome(circuit, component, changed_weights(circuit, component, np.eye(16)))
    np.testing.assert_allclose(found[PREVIOUS], uniform_score(), rtol=1e-5)


@pytest.mark.parametrize("keep_mean", [False, True])
def test_an_ablation_acts_before_the_scale_of_the_norm_and_leaves_its_shift(make_run, keep_mean):
    run = make_run(random_norms(), model={"positions": "none"})
    circuit = open_circuit(run, 0, 40, 0, 1)
    component = components(circuit.settings, 0, 1)["layers.1.key"]
    ablation = projector(haar_subspaces(16, 3, 1, np.random.default_rng(1))[0])
    arrays = circuit.arrays | changed_weights(circuit, component, ablation, keep_mean)
    parameters = {name: torch.from_numpy(array).float() for name, array in arrays.items()}
    seen = {}
    tokens = torch.from_numpy(run.test_set("out_of_distribution", 40)["tokens"])
    build(circuit.settings, circuit.shape).forward(parameters, tokens, hook=lambda name, x: seen.setdefault(name, x))

    weights = run.arrays(0)
    normalised = F.layer_norm(seen["layers.1.residual_pre"], (16,)).double().numpy()
    constant = normalised.mean((0, 1)) @ ablation if keep_mean else 0.0
    scale, shift = (weights[f"layers.1.attention_norm.{name}"] for name in ("weight", "bias"))
    read = scale * (normalised @ (np.eye(16) - ablation) + constant) + shift
    expected = read @ weights["layers.1.attention.key.weight"].T + weights["layers.1.attention.key.bias"]
    found = seen["layers.1.attention.key"].transpose(1, 2).flatten(2).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # queries and values read everything
    intact = run.model.forward(run.parameters(0), tokens, hook=lambda name, x: seen.setdefault(f"intact {name}", x))
    assert intact.shape == (40, 24, 24)
    torch.testing.assert_close(
        seen["layers.1.attention.query"], seen["intact layers.1.attention.query"], atol=1e-4, rtol=1e-4
    )


def test_a_mean_alone_is_spared_where_it_is_kept(make_run, measured):
    """Attention by a constant direction: the queries and keys of all tokens are alike and ALiBi's slope decides."""

    def constant(parameters):
        induction(parameters)
        for role in ("query", "key"):
            weight = np.zeros((WIDTH, WIDTH))
            weight[0] = 10 * COMMON
            weight[1:25] = TOKEN  # content that blurs the attention
            put(parameters, f"layers.0.attention.{role}.weight", weight)

    found = measured(subspace_function, make_run(constant, model=CIRCUIT), **SETTINGS)
    part = "layers.0.query_key-embedding.top"
    change = abs(found.value("previous_token_score_change_after_ablation_mean_kept", part))
    assert change < 1e-3
    kept = found.find("previous_token_score_change_after_ablation_mean_kept")
    assert set(kept["part"]) == {f"layers.0.query_key-embedding.{group}" for group in ("top", "medium", "bottom")}


def test_writing_is_removed_on_the_side_of_the_output(make_run):
    run = make_run(induction, model=CIRCUIT)
    circuit = open_circuit(run, 0, 40, 0, 1)
    component = components(circuit.settings, 0, 1)["layers.0.output"]
    real = projector(BRIDGE.T)
    assert ablated_norm(joint_weight(circuit, component), real) == pytest.approx(np.sqrt(TOKENS), rel=1e-5)
    (weight,) = changed_weights(circuit, component, real).values()
    assert np.abs(weight).max() < 1e-6
    (weight,) = changed_weights(circuit, component, projector(TOKEN.T)).values()
    np.testing.assert_allclose(weight, circuit.arrays["layers.0.attention.output.weight"], atol=1e-6)


def test_steps_draws_and_units(make_run, measured):
    run = make_run(*[lambda parameters: None] * 2)
    settings = {"top": 1, "medium": 5, "ranks": [2, 3], "sequences": 5, "null_draws": 2, "every": 10}
    found = measured(subspace_function, run, **settings, first_step=5)
    assert found.table["step"].unique().tolist() == [10]
    nulls = found.table[found.table["null"] != ""]
    assert set(nulls["null"]) == {"random_subspace", "equal_norm_ablation"} and (nulls["n"] == 2).all()
    rows = found.table[found.table["null"] == ""]
    assert (rows["n"] == 5).all() and (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    assert (found.table["unit"] == np.where(found.table["quantity"].str.startswith("loss"), "nats", "fraction")).all()
    assert found.find("error_after_ablation", "layers.1.key-bridge")["index"].tolist() == [2, 3]
    # the same draws, whatever else is measured
    last = measured(subspace_function, run, **settings, first_step=0, mean_kept_everywhere=True)
    assert last.table["step"].unique().tolist() == [0, 10]
    assert len(last.find("error_kept_alone_mean_kept", "layers.0.output-bridge", step=10)) == 2
    assert len(last.find("error_after_ablation_mean_kept", "readout-embedding.medium", step=10)) == 1
    for null in ("", "random_subspace", "equal_norm_ablation"):
        for quantity in ("loss_after_ablation", "induction_score_dissociation"):
            first, second = (each.find(quantity, null=null, step=10) for each in (found, last))
            assert first["value"].tolist() == second["value"].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reading_layer": 2}, "layer 2 cannot read layer 0 in a model of 2 layers"),
        ({"writing_layer": 1}, "layer 1 cannot read layer 1"),
        ({"medium": 15}, "leave nothing of width 16"),
    ],
)
def test_what_does_not_fit_is_named(make_run, measured, settings, message):
    with pytest.raises(ValueError, match=message):
        measured(subspace_function, make_run(), **{"medium": 5, "sequences": 10} | settings)
