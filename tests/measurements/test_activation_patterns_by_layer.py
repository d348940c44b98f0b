from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models import activation_patterns_by_layer
from learning_geometry.measurements.language_models.activation_patterns_by_layer import active, random_gate
from learning_geometry.models.language.loading import load
from learning_geometry.seeding import seeded

from .conftest import defaults

WIDTH, HIDDEN = 6, 5


class Planted(LanguageRun):
    """A run of given vectors and gates, which reads nothing."""

    def load(self, tokenizer=False):
        return SimpleNamespace(layer_weights=lambda layer: SimpleNamespace(**self.settings["weights"]))

    def activations(self, text):
        vectors = self.settings["vectors"][text]
        blocks = lambda name: iter([vectors[:7], vectors[7:]])  # noqa: E731
        return SimpleNamespace(widths={name: WIDTH for name in self.settings["names"]}, blocks=blocks)


def measure(run, **settings):
    table = activation_patterns_by_layer.measure(run, defaults(activation_patterns_by_layer.SETTINGS) | settings)

    def row(quantity, null="", index=0, **columns):
        chosen = table[(table["quantity"] == quantity) & (table["null"] == null) & (table["index"] == index)]
        for name, value in columns.items():
            chosen = chosen[chosen[name] == value]
        (found,) = chosen.to_dict("records")
        return found

    return table, row


def planted(bias=None, gate=None, names=("layers.2.mlp.input",)):
    vectors = seeded("test", "vectors").standard_normal((40, WIDTH)).astype(np.float32)
    gate = seeded("test", "gate").standard_normal((HIDDEN, WIDTH)).astype(np.float32) if gate is None else gate
    weights = {"gate": torch.from_numpy(gate), "gate_bias": None if bias is None else torch.from_numpy(bias)}
    return Planted("planted", {"weights": weights, "vectors": {"text": vectors}, "names": names}, {"text": Path()}, {})


def test_biases_make_units_never_or_always_active():
    bias = np.array([-100, 100, 100, 0, 0], dtype=np.float32)
    _, row = measure(planted(bias))
    for null in ("", "random_gate"):
        assert row("never_active", null)["value"] == pytest.approx(0.2)
        assert row("always_active", null)["value"] == pytest.approx(0.4)
        assert row("distinct_patterns", null)["value"] == 4
    assert row("distinct_patterns")["n"] == 40 and row("distinct_patterns", "random_gate")["n"] == 3
    assert row("zeroed_share")["part"] == "layers.2.mlp" and row("zeroed_share")["data"] == "text"


def test_only_the_first_vectors_count():
    run = planted()
    vectors, gate = run.settings["vectors"]["text"], run.settings["weights"]["gate"].numpy()
    _, row = measure(run, vectors=9)
    expected = vectors[:9] @ gate.T > 0
    assert row("zeroed_share")["value"] == pytest.approx(1 - expected.mean())
    assert row("distinct_patterns")["value"] == len(np.unique(expected, axis=0))
    assert row("distinct_patterns")["n"] == 9


def test_patterns_of_groups_of_units():
    run = planted()
    expected = run.settings["vectors"]["text"] @ run.settings["weights"]["gate"].numpy().T > 0
    _, row = measure(run, group=2)  # the fifth unit is in none
    distinct = [len(np.unique(expected[:, chosen], axis=0)) for chosen in ([0, 1], [2, 3])]
    assert row("distinct_patterns", index=2)["value"] == np.mean(distinct)
    assert row("distinct_patterns", index=0)["value"] == len(np.unique(expected, axis=0))
    _, row = measure(run, group=9)
    assert row("distinct_patterns", index=5)["value"] == row("distinct_patterns", index=0)["value"]


def test_random_gates_keep_norms_and_lose_directions():
    gate = np.tile(np.r_[3.0, np.zeros(99)], (50, 1)).astype(np.float32)
    drawn = random_gate(gate, seeded("test", "random"))
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 3.0, rtol=1e-5)
    cosines = drawn @ drawn.T / 9
    assert np.abs(cosines[np.triu_indices(50, 1)]).max() < 0.5 and drawn.dtype == np.float32
    # units that agree have two patterns; random ones many
    _, row = measure(planted(gate=np.tile(np.ones(WIDTH, np.float32), (HIDDEN, 1))))
    assert row("distinct_patterns")["value"] == 2 < row("distinct_patterns", "random_gate")["low"]
    assert row("zeroed_share", "random_gate")["value"] == pytest.approx(0.5, abs=0.15)


def test_patterns_are_those_of_the_models_own_gate(tiny_language):
    table, row = measure(tiny_language, vectors=300)
    assert set(table["part"]) == {"layers.1.mlp"} and set(table["data"]) == {"documentation", "source_code"}
    model = load(**tiny_language.settings["model"])
    inputs = tiny_language.activations("documentation").read("layers.1.mlp.input")[:300]
    weights = model.layer_weights(1)
    assert weights.activation == "silu"
    expected = active(inputs, weights.gate.numpy(), None)
    assert row("zeroed_share", data="documentation")["value"] == pytest.approx(1 - expected.mean())
    assert row("distinct_patterns", data="documentation")["value"] == len(np.unique(expected, axis=0))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"planted: mlp\.input of no layer was kept of the text 'text'"):
        measure(planted(names=("layers.2.mlp.output",)))
    run = planted()
    run.settings["weights"]["gate"] = None
    with pytest.raises(ValueError, match="planted: the MLP of layer 2 is a mixture of experts"):
        measure(run)
