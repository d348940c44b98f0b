"""Dictionaries that were trained elsewhere, judged in a tiny language model: those whose worth is known."""

from functools import cached_property

import numpy as np
import pytest
import torch

from learning_geometry.config.modules import settings_schema
from learning_geometry.config.schemas import filled
from learning_geometry.dictionaries.initialisation import active_subspace
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.common.own_dictionaries import random_norm, spliced
from learning_geometry.measurements.language_models.dictionary_sweep import measure
from tests.measurements.language import tiny_language_run
from tests.saelens_files import perfect, write_saelens

NAME, WIDTH = "layers.1.attention.output", 16


class LoadedOnce(LanguageRun):
    """A run whose model is loaded once for all tests."""

    @cached_property
    def model(self):
        return super().load(tokenizer=True)

    def load(self, tokenizer=False):
        return self.model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    made = tiny_language_run(folder)
    # losses are taken in a short text, which is read in no time
    (folder / "short.txt").write_text("The quick brown fox jumps over the lazy dog, 3 times. " * 20)
    texts = dict.fromkeys(made.texts, str(folder / "short.txt"))
    return LoadedOnce(made.experiment, made.settings | {"texts": texts}, made.texts, made.prompts)


def judge(run, folder, **changed):
    entry = {"saelens": str(folder)} | {key: changed.pop(key) for key in ("activation",) if key in changed}
    settings = filled({"dictionaries": {"mine": entry}} | changed, settings_schema("measurements", "dictionary_sweep"))
    return measure(run, settings)


def value(table, quantity, null="", column="value"):
    (found,) = table[(table["quantity"] == quantity) & (table["null"] == null)][column]
    return found


def vectors(run):
    return torch.from_numpy(np.concatenate([run.activations(text).read(NAME) for text in run.texts]))


def test_what_gives_every_vector_back_is_perfect(run, tmp_path):
    folder = write_saelens(tmp_path / "perfect", perfect())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    table = judge(run, folder)
    assert set(table["part"]) == {NAME} and set(table["index"]) == {2 * WIDTH} and set(table["data"]) == {"mine"}
    assert value(table, "explained_variance") == pytest.approx(1, abs=1e-12)
    assert value(table, "active_latents") == pytest.approx(WIDTH, abs=0.01)
    assert value(table, "dead_share") == 0
    assert value(table, "dead_share", column="n") == len(vectors(run))
    assert value(table, "explained_variance", column="n") == pytest.approx(len(vectors(run)) / 10, rel=0.1)
    assert value(table, "dictionary_loss_increase") == pytest.approx(0, abs=1e-5)
    assert value(table, "dictionary_loss_recovered") == pytest.approx(1, abs=1e-2)
    assert value(table, "dictionary_loss_recovered_from_zero") == pytest.approx(1, abs=1e-2)
    assert value(table, "dictionary_loss_increase", column="n") == 2 * 10 * 30
    # nothing of its folder is touched
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_what_gives_the_mean_alone_recovers_nothing_and_is_dead(run, tmp_path):
    mean = vectors(run).double().mean(0).float()
    table = judge(run, write_saelens(tmp_path / "mean", torch.zeros(8, WIDTH), mean))
    # the mean of held-out vectors is another one
    assert -0.3 < value(table, "explained_variance") <= 0
    assert value(table, "dead_share") == 1 and value(table, "active_latents") == 0
    assert value(table, "dictionary_loss_recovered") == pytest.approx(0, abs=1e-4)
    # rows of zeros have no direction
    assert "active_subspace_cosine" not in set(table["quantity"])


def test_directions_are_compared_with_the_active_subspace(run, tmp_path):
    whole = active_subspace(vectors(run), WIDTH)
    inside, outside = whole[:, : WIDTH // 2].T.float(), whole[:, WIDTH // 2 :].T.float()
    table = judge(run, write_saelens(tmp_path / "inside", 3 * inside))
    assert value(table, "active_subspace_cosine") == pytest.approx(1, abs=1e-5)
    both = torch.cat([inside, outside])
    table = judge(run, write_saelens(tmp_path / "both", both))
    assert value(table, "active_subspace_cosine") == pytest.approx(0.5, abs=1e-3)
    mean, deviation = random_norm(WIDTH, WIDTH // 2)
    null = "random_direction"
    assert value(table, "active_subspace_cosine", null) == pytest.approx(mean)
    half = 1.96 * deviation / WIDTH**0.5
    assert value(table, "active_subspace_cosine", null, "low") == pytest.approx(mean - half)
    table = judge(run, write_saelens(tmp_path / "share", both), subspace_share=1.0)
    assert value(table, "active_subspace_cosine") == pytest.approx(1, abs=1e-5)


def test_the_mean_of_random_directions_is_exact():
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((200_000, 12))
    norms = np.linalg.norm(drawn[:, :5], axis=1) / np.linalg.norm(drawn, axis=1)
    mean, deviation = random_norm(12, 5)
    assert norms.mean() == pytest.approx(mean, abs=4 * deviation / len(norms) ** 0.5)
    assert norms.std() == pytest.approx(deviation, rel=0.01)
    assert random_norm(12, 12) == (pytest.approx(1), pytest.approx(0, abs=1e-7))


def test_all_but_the_first_token_is_replaced():
    hook = spliced("layers.0.mlp.input", "layers.0.mlp.output", lambda made: 2 * made)
    read, gave = torch.ones(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bfloat16)
    assert hook("layers.0.mlp.input", read) is read
    replaced = hook("layers.0.mlp.output", gave)
    assert replaced.dtype == torch.bfloat16
    assert (replaced[:, 0] == 0).all() and (replaced[:, 1:] == 2).all()


@pytest.mark.parametrize(
    ("width", "metadata", "changed", "message"),
    [
        (
            12,
            {},
            {},
            r"mine: of width 12, and layers.1.attention.output is of width 16; it was trained on another model",
        ),
        (16, {"hook_name": "blocks.2.hook_mlp_out"}, {}, "layers.2.mlp.output was not kept of documentation"),
        (16, {}, {"layer": 2}, "mine: it reads layers.1.attention.output, and layer is 2; set layer to null"),
        (16, {"hook_name": "blocks.1.mlp.hook_pre"}, {}, "say in `activation` what the dictionary reads"),
        (16, {}, {"activation": "layers.1.mlp.output"}, "the dictionary reads blocks.1.hook_attn_out; leave one out"),
    ],
)
def test_what_does_not_fit_is_refused(run, tmp_path, width, metadata, changed, message):
    folder = write_saelens(tmp_path / "other", perfect(width), metadata=metadata)
    with pytest.raises(ValueError, match=message):
        judge(run, folder, **changed)


def test_it_stands_beside_those_that_are_trained_here(run, tmp_path):
    entries = {"mine": {"saelens": str(write_saelens(tmp_path / "sae", perfect()))}, "standard": {"latents": 20}}
    given = {"dictionaries": entries, "k": 3, "steps": 4, "batch_size": 64, "start_vectors": 200, "seeds": [3, 4]}
    table = measure(run, filled(given, settings_schema("measurements", "dictionary_sweep")))
    assert set(table.loc[table["data"] == "mine", "seed"]) == {3}
    assert set(table.loc[table["data"] == "standard", "seed"]) == {3, 4}
    own = table[(table["quantity"] == "explained_variance") & (table["null"] == "")].set_index("data")
    assert len(set(own["n"])) == 1
