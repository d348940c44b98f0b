"""Dictionaries of activations on disk: what they find, which of their latents die, and what they never see."""

import itertools

import numpy as np
import pytest
import torch

from learning_geometry.config.modules import settings_schema
from learning_geometry.config.schemas import filled
from learning_geometry.dictionaries import storage, topk
from learning_geometry.dictionaries.initialisation import active_subspace, mean_over_spread
from learning_geometry.files import write_json, write_tensors
from learning_geometry.measurements.common.language_run import ACTIVATIONS, LanguageRun
from learning_geometry.measurements.language_models.dictionary_sweep import Pairs, measure, split, trained
from learning_geometry.models.language.cache import INDEX, Activations, open_activations, shard_path

WIDTH, ATOMS, ACTIVE, WINDOW = 16, 24, 3, 20
NAMES = ("attention.output", "mlp.input", "mlp.output")
SMALL = {"k": ACTIVE, "steps": 8, "batch_size": 64, "dead_window": 200, "start_vectors": 500}


def unit_rows(seed, rows=ATOMS):
    atoms = np.random.default_rng(seed).standard_normal((rows, WIDTH))
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def planted(vectors, seed, offset=0.0):
    """Sums of ACTIVE out of ATOMS fixed directions around an offset: of three activations, from the same codes."""
    generator = np.random.default_rng(seed)
    chosen = generator.random((vectors, ATOMS)).argsort(1)[:, :ACTIVE]
    codes = np.zeros((vectors, ATOMS))
    np.put_along_axis(codes, chosen, generator.uniform(1, 2, chosen.shape), axis=1)
    return {name: codes @ unit_rows(90 + i) + offset for i, name in enumerate(NAMES)}


def numbered(vectors, seed):
    """Vectors that tell their own number, for all activations alike but for the sign of the outputs."""
    numbers = np.random.default_rng(0).standard_normal((vectors, WIDTH))
    numbers[:, 0] = 10_000 * seed + np.arange(vectors)
    return {name: (-1 if name == "mlp.output" else 1) * numbers for name in NAMES}


def write_text(folder, shards, make, seed, layers=(1,), provenance=None):
    """Write activations as a capture does: so many windows in each shard, without their first tokens."""
    windows = sum(shards)
    values = make(windows * (WINDOW - 1), seed)
    there = {f"layers.{layer}.{name}": value.astype(np.float32) for layer in layers for name, value in values.items()}
    there |= {
        "sequence": np.repeat(np.arange(windows), WINDOW - 1),
        "position": np.tile(np.arange(1, WINDOW), windows),
    }
    start = 0
    for number, count in enumerate(shards):
        rows = slice(start * (WINDOW - 1), (start + count) * (WINDOW - 1))
        write_tensors(
            shard_path(folder, number), {name: value[rows] for name, value in there.items()}, provenance or {}
        )
        start += count
    widths = {name: WIDTH for name in there if name.startswith("layers")}
    counts = [count * (WINDOW - 1) for count in shards]
    index = {"widths": widths, "shards": counts, "digests": ["-"] * len(shards), "provenance": provenance or {}}
    write_json(folder / INDEX, index)


@pytest.fixture
def make_run(tmp_path):
    def make(make=planted, texts=None, layers=(1,), provenance=None, **changed):
        texts = texts or {"documentation": (30, 10), "source_code": (20,)}
        for seed, (name, shards) in enumerate(texts.items()):
            folder = tmp_path / name / ACTIVATIONS
            write_text(folder, shards, lambda n, s: make(n, s, **changed), seed, layers, provenance)
        return LanguageRun(
            "tiny", {"model": {"source": "a-model"}}, {name: tmp_path / name for name in texts}, {}, tmp_path / "saved"
        )

    return make


def settings(dictionaries=None, **changed):
    """Return settings as the config gives them, defaults filled in."""
    given = SMALL | changed | ({"dictionaries": dictionaries} if dictionaries else {})
    return filled(given, settings_schema("measurements", "dictionary_sweep"))


def value(table, quantity, dictionary, null="", column="value", seed=0):
    rows = table[(table["quantity"] == quantity) & (table["data"] == dictionary) & (table["null"] == null)]
    (found,) = rows[rows["seed"] == seed][column]
    return found


def test_planted_dictionaries_are_recovered_and_saved(make_run):
    run = make_run(texts={"documentation": (80, 70), "source_code": (50,)})
    dictionaries = {
        "standard": {"latents": 40, "centred": True},
        "transcoder": {"latents": 40, "target": "transcoder", "centred": True, "tied": False},
    }
    chosen = settings(dictionaries, steps=100, batch_size=256, learning_rate=1e-2)
    table = measure(run, chosen)
    for name, (place, parts) in {"standard": (0, "attention.output"), "transcoder": (2, "mlp")}.items():
        saved = storage.load(run.output / f"{name}-seed-0")
        decoder = saved.dictionary["decoder.weight"]
        atoms = torch.from_numpy(unit_rows(90 + place)).float()
        assert (decoder / decoder.norm(dim=1, keepdim=True) @ atoms.T).max(0).values.mean() > (0.9 if place else 0.8)
        assert value(table, "explained_variance", name) > 0.7 > value(table, "explained_variance", name, "untrained")
        assert set(table[table["data"] == name]["part"]) == {f"layers.1.{parts}"}
        # for vectors as the model has them
        activations = run.activations("documentation")
        encoded = torch.from_numpy(activations.read("layers.1.mlp.input" if place else "layers.1.attention.output"))
        targets = torch.from_numpy(activations.read("layers.1.mlp.output" if place else "layers.1.attention.output"))
        codes = topk.encode(saved.dictionary, encoded, saved.k)
        assert ((codes != 0).sum(1) == ACTIVE).all()
        explained = topk.explained_variance(targets, topk.decode(saved.dictionary, codes))
        assert explained == pytest.approx(value(table, "explained_variance", name), abs=0.05)
        assert saved.metadata["activation"] == ("layers.1.mlp.input" if place else "layers.1.attention.output")
        assert (saved.metadata["model_name"], saved.metadata["context_size"]) == ("a-model", WINDOW)
        assert saved.metadata.get("activation_out") == ("layers.1.mlp.output" if place else None)


def test_windows_held_out_are_never_trained_on_and_every_other_vector_is(make_run):
    run = make_run(numbered)
    texts = {name: split(run.activations(name), 0.1) for name in run.texts}
    pairs = Pairs(texts, ("layers.1.mlp.input", "layers.1.mlp.output"))
    held_out = torch.cat([inputs[:, 0] for inputs, _ in pairs.held_out()]).int().tolist()
    # of 30, 10 and 20 windows the last 3, 1 and 2
    windows = {(number // 10_000, number % 10_000 // (WINDOW - 1)) for number in held_out}
    assert windows == {(0, 27), (0, 28), (0, 29), (0, 39), (1, 18), (1, 19)}
    assert len(held_out) == 6 * (WINDOW - 1)
    passes = 54 * (WINDOW - 1) // 54
    seen = []
    for inputs, outputs in itertools.islice(pairs.batches(54, 0, "test"), passes):
        assert torch.equal(inputs, -outputs)
        # two thirds of the vectors are of the first text
        assert (inputs[:, 0] < 10_000).sum() == 36
        seen += inputs[:, 0].int().tolist()
    assert len(seen) == len(set(seen)) == 54 * (WINDOW - 1)
    assert not set(seen) & set(held_out)
    again = next(pairs.batches(54, 0, "test"))[0]
    assert again[:, 0].int().tolist() == seen[:54]
    assert next(pairs.batches(54, 1, "test"))[0][:, 0].int().tolist() != seen[:54]


def test_a_share_of_windows_is_held_out_of_shards_of_one_window_too(make_run):
    run = make_run(numbered, {"documentation": (1,) * 20})
    text = split(run.activations("documentation"), 0.25)
    assert sum(1 for shard in text.training.shards if shard == 0) == len(text.held_out) == 5
    assert text.training.vectors == 15 * (WINDOW - 1) and text.context == WINDOW


def test_dead_latents_are_those_without_an_activation(make_run):
    run = make_run(offset=2.0)
    dictionaries = {"standard": {"latents": 60}, "centred": {"latents": 60, "centred": True}}
    # it does not move: start and end are the same dictionary
    chosen = settings(dictionaries, learning_rate=1e-12)
    table, (found, centred) = measure(run, chosen), trained(run, chosen, 0).values()
    texts = {name: split(run.activations(name), 0.1) for name in run.texts}
    name = "layers.1.attention.output"
    pairs = Pairs(texts, (name, name), found.scales)
    batches = [inputs for inputs, _ in itertools.islice(pairs.batches(64, 0, "dictionary_sweep", "batches"), 8)]
    held_out = [inputs for inputs, _ in pairs.held_out()]
    for quantity, seen in (("initial_dead_share", batches[:4]), ("dead_share", batches[-4:])):
        vectors = torch.cat(seen + held_out)
        dead = topk.dead(topk.encode(found.start, vectors, ACTIVE)).float().mean()
        assert value(table, quantity, "standard") == pytest.approx(float(dead)) and 0.2 < dead < 0.8
        assert value(table, quantity, "standard", column="n") == len(vectors) == 256 + 6 * (WINDOW - 1)
        assert value(table, quantity, "centred") < 0.1
    whole = torch.cat(held_out)
    assert value(table, "mean_over_spread", "standard") == pytest.approx(mean_over_spread(whole), rel=1e-5)
    assert mean_over_spread(whole) > 2
    centre = whole - centred.start["decoder.bias"]
    assert value(table, "mean_over_spread", "centred") == pytest.approx(mean_over_spread(centre), rel=1e-3)
    assert value(table, "mean_over_spread", "centred") < 0.3
    explained = topk.explained_variance(whole, topk.decode(found.start, topk.encode(found.start, whole, ACTIVE)))
    assert value(table, "explained_variance", "standard") == pytest.approx(explained, abs=1e-4)
    assert value(table, "explained_variance", "standard", "untrained") == pytest.approx(explained, abs=1e-4)


def test_training_shorter_than_the_window_counts_as_a_whole(make_run):
    table = measure(make_run(), settings({"short": {"latents": 30}}, steps=3))
    assert value(table, "dead_share", "short", column="n") == 3 * 64 + 6 * (WINDOW - 1)


def test_dictionaries_start_as_their_options_say_and_tables_tell_them(make_run):
    dictionaries = {
        "active_subspace": {"latents": 40, "subspace": "active", "centred": True, "optimizer": "sparse_adam"},
        "random": {"latents": 40, "subspace": "random", "tied": False, "auxiliary": 4},
        "plain": {"latents": 10},
        "transcoder": {"latents": 40, "target": "transcoder", "subspace": "active", "tied": False},
    }
    run, chosen = make_run(), settings(dictionaries, dead_window=64)
    found = trained(run, chosen, 3)
    assert list(found) == list(dictionaries)
    for name in ("active_subspace", "random", "transcoder"):
        assert torch.linalg.matrix_rank(found[name].start["decoder.weight"], rtol=1e-3) == WIDTH // 2
    pairs = Pairs(
        {name: split(run.activations(name), 0.1) for name in run.texts},
        ("layers.1.mlp.input", "layers.1.mlp.output"),
        found["transcoder"].scales,
    )
    first = next(pairs.batches(500, 3, "dictionary_sweep", "start"))
    basis = active_subspace(first[1], WIDTH // 2).float()
    rows = found["transcoder"].start["decoder.weight"]
    assert (rows - rows @ basis @ basis.T).norm(dim=1).max() < 1e-5
    assert first[0].norm(dim=1).mean() == pytest.approx(WIDTH**0.5, rel=1e-5)
    table = measure(run, chosen)
    told = {
        name: {key: value(table, f"option_{key}", name) for key in ("centred", "tied", "sparse_adam", "auxiliary")}
        for name in dictionaries
    }
    assert told["active_subspace"] == {"centred": 1, "tied": 1, "sparse_adam": 1, "auxiliary": 0}
    assert told["random"] == {"centred": 0, "tied": 0, "sparse_adam": 0, "auxiliary": 4}
    assert [value(table, "option_active_subspace", name) for name in dictionaries] == [1, 0, 0, 1]
    assert [value(table, "option_random_subspace", name) for name in dictionaries] == [0, 1, 0, 0]
    assert value(table, "dead_share", "plain", column="index") == 10


def test_a_cell_is_the_same_alone_and_seeds_differ(make_run):
    run = make_run()
    dictionaries = {name: {"latents": latents} for name, latents in (("small", 20), ("large", 50))}
    both = measure(run, settings(dictionaries, seeds=[0, 1]))
    alone = measure(run, settings({"small": dictionaries["small"]}))
    same = both[(both["seed"] == 0) & (both["data"] == "small")].reset_index(drop=True)
    assert same.equals(alone)
    assert value(both, "explained_variance", "large") != value(both, "explained_variance", "large", seed=1)
    assert sorted(path.name for path in run.output.iterdir()) == [
        f"{name}-seed-{seed}" for name in ("large", "small") for seed in (0, 1)
    ]


def test_activations_are_never_in_memory_together(make_run, monkeypatch):
    def refuse(*_):
        raise AssertionError("all vectors were read at once")

    monkeypatch.setattr(Activations, "read", refuse)
    assert len(measure(make_run(), settings({"one": {"latents": 20}})))


def test_null_takes_the_middle_layer_that_was_kept_of_all_texts(make_run, tmp_path):
    run = make_run(layers=(2, 5, 9))
    table = measure(run, settings({"one": {"latents": 20}}, texts=["source_code"], steps=1))
    assert set(table["part"]) == {"layers.5.attention.output"}
    assert value(table, "explained_variance", "one", column="n") == 2 * (WINDOW - 1)
    with pytest.raises(ValueError, match=r"attention.output of layer 3 were not kept .* of layers \[2, 5, 9\]"):
        measure(run, settings({"one": {"latents": 20}}, layer=3))
    index = tmp_path / "documentation" / ACTIVATIONS
    write_text(index, (30, 10), planted, 0, layers=(7,))
    with pytest.raises(ValueError, match=r"mlp.input, mlp.output of any layer were not kept .* of layers \[\]"):
        measure(run, settings({"one": {"latents": 20, "target": "transcoder"}}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 2000}, "batch_size: 2000, and 1026 vectors are there for training"),
        ({"held_out": 0.01}, "a share 0.01 of its 40 windows is 0, and some are needed"),
        ({"held_out": 0.99}, "a share 0.99 of its 40 windows is 40"),
        ({"k": 21}, "k: 21 of 20 latents"),
    ],
)
def test_what_cannot_be_done_is_named(make_run, changed, message):
    with pytest.raises(ValueError, match=message):
        measure(make_run(), settings({"one": {"latents": 20}}, **changed))


def test_a_text_that_is_not_there_is_named(make_run):
    with pytest.raises(KeyError, match="no text 'poetry' was captured"):
        measure(make_run(), settings({"one": {"latents": 20}}, texts=["poetry"]))


def test_written_activations_are_as_captured_ones(make_run):
    found = open_activations(make_run().texts["documentation"] / ACTIVATIONS)
    assert found.vectors == 40 * (WINDOW - 1)
    assert found.labels().position.min() == 1


@pytest.mark.parametrize("begins", [False, True])
def test_saved_dictionaries_say_how_windows_began(make_run, begins):
    run = make_run(provenance={"reading": {"prepend_bos": begins}})
    measure(run, settings({"standard": {"latents": 8}}, steps=1, k=2, batch_size=16))
    assert storage.load(run.output / "standard-seed-0").metadata["prepend_bos"] is begins


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("llama", {"hook_name": "blocks.1.hook_attn_out"}),
        ("granite", {"no_hook_name": "of the family 'granite' it is not known"}),
        (None, {"no_hook_name": "of the family None it is not known"}),
    ],
)
def test_saved_dictionaries_bear_the_hook_points_that_fit(make_run, family, said):
    run = make_run(provenance={"family": family})
    dictionaries = {"standard": {"latents": 8}, "transcoder": {"latents": 8, "target": "transcoder"}}
    measure(run, settings(dictionaries, steps=1, k=2, batch_size=16))
    metadata = storage.load(run.output / "standard-seed-0").metadata
    assert metadata["activation"] == "layers.1.attention.output"
    assert {"hook_name", "no_hook_name"} & metadata.keys() == said.keys()
    assert all(metadata[key].startswith(text) for key, text in said.items())
    metadata = storage.load(run.output / "transcoder-seed-0").metadata
    assert (metadata["activation"], metadata["activation_out"]) == ("layers.1.mlp.input", "layers.1.mlp.output")
    # what the MLP reads has none
    assert "hook_name" not in metadata and "no hook point" in metadata["no_hook_name"]
    assert metadata.get("hook_name_out") == ("blocks.1.hook_mlp_out" if family == "llama" else None)


def test_aligned_rows_keep_their_product(make_run):
    options = {"latents": 40, "aligned": True}
    dictionaries = {
        "free": {"latents": 40, "tied": False},
        "aligned": options | {"tied": False},
        "aligned_tied": options | {"centred": True, "optimizer": "sparse_adam", "auxiliary": 4},
    }
    run, chosen = make_run(), settings(dictionaries, dead_window=64, learning_rate=1e-2)
    for name, outcome in trained(run, chosen, 0).items():
        for dictionary in (outcome.start, outcome.fitted.dictionary):
            products = torch.linalg.vecdot(dictionary["encoder.weight"], dictionary["decoder.weight"])
            assert ((products - 1).abs().max() < 1e-5) == (name != "free")
        assert not torch.equal(outcome.start["encoder.weight"], outcome.fitted.dictionary["encoder.weight"])
    table = measure(run, chosen)
    assert [value(table, "option_aligned", name) for name in dictionaries] == [0, 1, 1]
    assert [value(table, "option_whitened", name) for name in dictionaries] == [0, 0, 0]
    saved = storage.load(run.output / "aligned-seed-0").dictionary
    products = torch.linalg.vecdot(saved["encoder.weight"], saved["decoder.weight"])
    assert (products - 1).abs().max() < 1e-5


def anisotropic(vectors, seed, few=2, offset=8.0):
    """Most variance in few directions, and a mean in one that hardly varies."""
    generator = np.random.default_rng(seed)
    spread = np.where(np.arange(WIDTH) < few, 10.0, 0.3)
    values = generator.standard_normal((vectors, WIDTH)) * spread
    values[:, -1] += offset
    return {name: values for name in NAMES}


def test_centring_and_spreading_variance_are_asked_apart(make_run):
    """The two by two: where variance sits in few directions neither one alone revives latents, and both do."""
    dictionaries = {
        f"{'centred' if centred else 'uncentred'}_{'whitened' if whitened else 'as_is'}": {
            "latents": 60,
            "centred": centred,
            "whitened": whitened,
        }
        for centred in (False, True)
        for whitened in (False, True)
    }
    run, chosen = make_run(anisotropic), settings(dictionaries, steps=30, dead_window=1000, learning_rate=1e-3)
    table = measure(run, chosen)
    found = {
        quantity: {name: value(table, quantity, name) for name in dictionaries}
        for quantity in ("dead_share", "variance_evenness", "mean_over_spread")
    }
    for name in dictionaries:
        assert (found["variance_evenness"][name] > 0.7) == name.endswith("whitened")
        assert found["variance_evenness"][name] > 0.7 or found["variance_evenness"][name] < 0.2
        assert (found["mean_over_spread"][name] < 0.2) == name.startswith("centred")
        # of vectors as they are
        assert value(table, "explained_variance", name) < 1
    dead = found["dead_share"]
    assert min(share for name, share in dead.items() if name != "centred_whitened") > 0.2
    assert dead["centred_whitened"] < 0.05
    assert "option_whitened" not in set(measure(run, settings({"one": {"latents": 20}}))["quantity"])


def test_a_whitened_dictionary_is_saved_for_vectors_as_they_are(make_run):
    run = make_run(anisotropic)
    chosen = settings({"white": {"latents": 40, "whitened": True, "centred": True}}, steps=40, learning_rate=1e-2)
    table = measure(run, chosen)
    saved = storage.load(run.output / "white-seed-0")
    name = "layers.1.attention.output"
    pairs = Pairs({text: split(run.activations(text), 0.1) for text in run.texts}, (name, name))
    whole = torch.cat([inputs for inputs, _ in pairs.held_out()])
    codes = topk.encode(saved.dictionary, whole, saved.k)
    explained = topk.explained_variance(whole, topk.decode(saved.dictionary, codes))
    assert explained == pytest.approx(value(table, "explained_variance", "white"), abs=1e-4)
    assert explained > value(table, "explained_variance", "white", "untrained")


@pytest.mark.parametrize("option", ["aligned", "whitened"])
def test_a_transcoder_is_neither_aligned_nor_whitened(make_run, option):
    entry = {"latents": 20, "target": "transcoder", option: True}
    with pytest.raises(ValueError, match=f"dictionaries.one.{option}: a transcoder reads other vectors"):
        measure(make_run(), settings({"one": entry}))
