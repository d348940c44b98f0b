import string
from functools import cached_property

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learning_geometry.geometry.moments import gathered
from learning_geometry.measurements.common import token_losses
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models import downstream_loss
from learning_geometry.measurements.language_models.downstream_loss import Projection, measure, window_losses
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.loading import import_transformers
from tests.measurements.conftest import defaults
from tests.tiny_language_model import write_tiny_language_model

transformers = import_transformers()

WIDTH, LAYERS, WINDOW = 16, 3, 12
SIZES = {"vocab_size": 31, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
SETTINGS = defaults(downstream_loss.SETTINGS) | {"windows": 10, "tokens": WINDOW, "null_draws": 2}


def tiny(family):
    if family == "llama":
        config = transformers.LlamaConfig(**SIZES, intermediate_size=32, num_key_value_heads=1, initializer_range=0.3)
    elif family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=31, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3
        )
    else:
        config = transformers.GPTNeoXConfig(**SIZES, intermediate_size=32, initializer_range=0.3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(transformers.AutoModelForCausalLM.from_config(config), family)


class Captured(LanguageRun):
    """A tiny model on disk; moments are computed when asked for, over all windows of the text."""

    def sizes(self):
        return self.model.sizes

    @cached_property
    def model(self):
        found = super().load(tokenizer=True)
        for name, change in self.settings["changes"].items():
            change(found.parameters[name].data)
        return found

    def load(self, tokenizer=False):
        return self.model

    summed = range(LAYERS)

    def moment_names(self, text):
        return [f"layers.{layer}.{part}" for layer in self.summed for part in ("attention.output", "mlp.output")]

    def moments(self, text, name):
        tokens = self.model.tokenizer(self.texts[text].read_text(), verbose=False)["input_ids"]
        whole = len(tokens) // WINDOW * WINDOW
        windows = torch.tensor(tokens[:whole]).view(-1, WINDOW)
        return gathered([self.model.activations(windows, [name])[name][:, 1:].flatten(0, 1).numpy()])


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_tiny_language_model(folder / "model", LAYERS, WIDTH)
    letters = np.random.default_rng(0).choice(list(string.ascii_letters), 700)
    (folder / "prose.txt").write_text("".join(letters))
    (folder / "code.txt").write_text("".join(letters[::-1]))
    texts = {name: folder / f"{name}.txt" for name in ("prose", "code")}

    def make(**changes):
        model = {"source": str(folder / "model"), "revision": None, "gguf": None, "download": False}
        settings = {"model": model, "texts": {name: str(file) for name, file in texts.items()}, "changes": changes}
        return Captured("tiny", settings, texts, {})

    return make


@pytest.fixture(scope="module")
def table(make_run):
    return measure(make_run(), SETTINGS | {"layers": [1, -1], "ranks": [0.25, 1.0], "texts": ["prose"]})


def find(table, quantity, part="model", index=0, null=""):
    where = {"quantity": quantity, "part": part, "null": null, "index": index}
    (row,) = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])].to_dict("records")
    return row


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_it_is_the_loss_of_the_model_with_its_activations_replaced(family):
    model, generator = tiny(family), np.random.default_rng(1)
    tokens = torch.from_numpy(generator.integers(31, size=(5, 9)))
    basis = torch.from_numpy(np.linalg.qr(generator.standard_normal((WIDTH, 3)))[0]).float()
    mean = torch.from_numpy(generator.standard_normal(WIDTH)).float()
    with torch.no_grad():
        plain = model.forward(tokens)
    names = ["layers.0.attention.output", "layers.1.mlp.output"]
    seen = {}

    def see(name, value):
        if name in names:
            value = value.clone()
            for window in value:
                for place in range(1, 9):
                    inside = sum(((window[place] - mean) @ direction) * direction for direction in basis.T)
                    window[place] = mean + inside
            seen[name] = value
        return value

    with torch.no_grad():
        changed = model.forward(tokens, hook=see)
    projection = Projection("", 3, "", {name: (mean, basis) for name in names})
    for logits, found in (
        (plain, window_losses(model, tokens.numpy())),
        (changed, window_losses(model, tokens.numpy(), projection)),
    ):
        # from the second place on, the third token is predicted first
        of_token = F.cross_entropy(logits[:, 1:-1].mT, tokens[:, 2:], reduction="none")
        np.testing.assert_allclose(found, of_token.mean(1), rtol=1e-5)
    assert len(seen) == 2 and (changed - plain).abs().max() > 1e-3


def test_windows_are_run_a_few_at_a_time(monkeypatch):
    model, generator = tiny("llama"), np.random.default_rng(2)
    tokens = generator.integers(31, size=(19, 9))
    mean, basis = torch.ones(WIDTH), torch.eye(WIDTH)[:, :3]
    batches, forward = [], type(model).forward

    def watched(model, inputs, **options):
        batches.append(len(inputs))
        return forward(model, inputs, **options)

    monkeypatch.setattr(type(model), "forward", watched)
    projections = (None, Projection("", 3, "", {"layers.0.mlp.output": (mean, basis)}))
    few = [window_losses(model, tokens, projection) for projection in projections]
    assert batches == 2 * [8, 8, 3]
    monkeypatch.setattr(token_losses, "AT_A_TIME", len(tokens))
    at_once = [window_losses(model, tokens, projection) for projection in projections]
    assert batches[6:] == 2 * [len(tokens)]
    np.testing.assert_allclose(few, at_once, rtol=0, atol=1e-6)


def test_all_directions_recover_everything_and_none_nothing(table):
    parts = [
        f"{where}{part}" for where in ("", "layers.1.", "layers.2.") for part in ("attention.output", "mlp.output")
    ]
    assert set(table["part"]) == {"model", *parts}
    for part in parts:
        assert find(table, "loss_increase", part, WIDTH)["value"] == pytest.approx(0, abs=1e-5)
        assert find(table, "loss_increase", part, WIDTH, "random_subspace")["value"] == pytest.approx(0, abs=1e-5)
        cost = find(table, "loss_increase", part)["value"]
        assert abs(cost) > 1e-3
        for null in ("", "random_subspace"):
            if cost > 0:
                increase = find(table, "loss_increase", part, 4, null)["value"]
                recovered = find(table, "loss_recovered", part, 4, null)["value"]
                assert recovered == pytest.approx(1 - increase / cost, abs=1e-6)
        assert nothing_recovered(table, part) == ([] if cost > 0 else [4, WIDTH])
    assert set(table[table["quantity"] == "loss_recovered"]["index"]) == {4, WIDTH}


def nothing_recovered(table, part):
    """The numbers of directions of which a part has no recovered loss; it then has no null either."""
    of_part = table[table["part"] == part]
    lacking = of_part[of_part["quantity"] == "not_measured"]["data"]
    ranks = lacking.str.extract(r": no loss_recovered by (\d+) directions, as the mean in their place raises no loss")
    ranks = sorted(ranks[0].astype(int))
    assert not set(ranks) & set(of_part[of_part["quantity"] == "loss_recovered"]["index"])
    return ranks


def test_loss_and_intervals_are_over_windows(table):
    loss = find(table, "loss")
    assert loss["low"] < loss["value"] < loss["high"] and loss["unit"] == "nats"
    assert loss["n"] == 10 * (WINDOW - 2)
    increase = find(table, "loss_increase", "layers.1.mlp.output")
    assert increase["low"] < increase["value"] < increase["high"]
    assert find(table, "loss_increase", "layers.1.mlp.output", 4, "random_subspace")["n"] == 2


def test_an_activation_of_few_directions_needs_no_more(make_run):
    def flatten(weight):
        weight[4:] = 0
        weight[:4] *= 30  # so that losing it costs something

    def sharpen(weight):
        weight *= 10

    changed = {"model.layers.1.self_attn.o_proj.weight": flatten, "lm_head.weight": sharpen}
    found = measure(make_run(**changed), SETTINGS | {"ranks": [0.25], "texts": ["code"], "layers": [1]})
    assert set(found[found["quantity"] != "not_measured"]["data"]) == {"code"}
    part = "layers.1.attention.output"
    cost, rest = find(found, "loss_increase", part)["value"], find(found, "loss_increase", part, 4)["value"]
    other = find(found, "loss_increase", part, 4, "random_subspace")["value"]
    assert abs(rest) < 1e-3 < abs(other) and abs(cost) > 1e-2


def test_all_layers_at_once_are_replaced_in_all_layers(make_run):
    nothing = {f"model.layers.{layer}.self_attn.o_proj.weight": torch.zero_ for layer in range(LAYERS)}
    found = measure(make_run(**nothing), SETTINGS | {"ranks": [0.5]})
    assert set(found[found["quantity"] != "not_measured"]["data"]) == {"prose"}
    assert find(found, "loss_increase", "attention.output")["value"] == 0
    assert find(found, "loss_increase", "mlp.output")["value"] != 0


def test_where_the_mean_costs_nothing_there_is_nothing_to_recover(make_run):
    nothing = {"model.layers.1.self_attn.o_proj.weight": torch.zero_}
    found = measure(make_run(**nothing), SETTINGS | {"ranks": [0.5], "layers": [1]})
    part = "layers.1.attention.output"
    assert find(found, "loss_increase", part)["value"] == 0
    assert nothing_recovered(found, part) == [8]


def test_what_is_missing_is_named(make_run):
    run = make_run()
    with pytest.raises(ValueError, match=r"downstream_loss\.layers: no layer 3; there are 0 to 2"):
        measure(run, SETTINGS | {"layers": [3]})
    with pytest.raises(ValueError, match="prose: has 58 windows of 12 tokens, and 59 are asked for"):
        measure(run, SETTINGS | {"windows": 59})


def test_layers_without_moments_are_not_measured_and_neither_are_all_together(make_run, table):
    run = make_run()
    object.__setattr__(run, "summed", (1,))
    some = measure(run, SETTINGS | {"layers": [1, -1], "ranks": [0.25, 1.0], "texts": ["prose"]})
    last = f"layers.{LAYERS - 1}"
    missing = some[(some["quantity"] == "not_measured") & ~some["part"].str.startswith("layers.1.")]
    parts = [f"{at}{part}" for at in ("", f"{last}.") for part in ("attention.output", "mlp.output")]
    assert sorted(missing["part"]) == sorted(parts)
    for part in ("layers.1.attention.output", "layers.1.mlp.output", "model"):
        found, expected = (each[each["part"] == part].reset_index(drop=True) for each in (some, table))
        assert len(found) and found.equals(expected)
    assert set(some["part"]) == {*parts, "layers.1.attention.output", "layers.1.mlp.output", "model"}
