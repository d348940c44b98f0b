"""Captured activations: against the model, killed and continued, damaged, and read as a stream."""

import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

import learning_geometry
from learning_geometry.models import TaskSizes, build
from learning_geometry.models.attention import rotation
from learning_geometry.models.language import cache
from learning_geometry.models.language.cache import (
    beyond_the_first,
    capture,
    open_activations,
    shard_path,
    shared_prefix,
)
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.trained import language_model
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded
from tests.tiny_families import module_of

DEFAULTS = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer"}
NAMES = ["layers.0.attention.z", "layers.1.residual_post"]


def make(seed=0):
    model = build(DEFAULTS | {"width": 8, "heads": 2}, TaskSizes(207, 207, 9))
    return language_model(model, model.initialise(seeded(seed)), "ours", {"seed": seed})


def some_tokens(sequences=23):
    """All different, so that all vectors are."""
    return seeded(1).permutation(207).reshape(23, 9)[:sequences]


def small(directory, model=None, tokens=None, **options):
    """Two names of 8 numbers in shards of 4 sequences of 9, batches of 2 sequences."""
    options = {"batch_size": 2, "shard_bytes": 4 * 9 * 2 * 8 * 4} | options
    return capture(model or make(), some_tokens() if tokens is None else tokens, NAMES, directory, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(Path(directory).iterdir())}


def test_what_is_read_is_what_the_model_computes(tmp_path):
    found = small(tmp_path)
    assert found.shards == (36, 36, 36, 36, 36, 27) and found.vectors == 23 * 9
    expected = make().activations(torch.from_numpy(some_tokens()), NAMES)
    for name in NAMES:
        np.testing.assert_allclose(found.read(name), expected[name].flatten(0, 1), rtol=1e-5, atol=1e-6)
        blocks = list(found.blocks(name, 10))
        assert max(map(len, blocks)) == 10
        np.testing.assert_array_equal(np.concatenate(blocks), found.read(name))
    sequence, position = found.labels()
    assert (sequence == np.repeat(np.arange(23), 9)).all() and (position == np.tile(np.arange(9), 23)).all()
    assert found.provenance["model"] == "ours" and found.provenance["origin"] == {"seed": 0}
    found.verify()


def test_position_0_and_padding_are_left_out(tmp_path):
    tokens = some_tokens()
    keep = beyond_the_first(tokens)
    keep[4] = False  # nothing of this sequence
    found = small(tmp_path, keep=keep)
    assert found.vectors == 22 * 8
    sequence, position = found.labels()
    assert position.min() == 1 and 4 not in sequence
    expected = make().activations(torch.from_numpy(tokens), NAMES)
    for name in NAMES:
        chosen = expected[name][torch.from_numpy(sequence), torch.from_numpy(position)]
        np.testing.assert_allclose(found.read(name), chosen, rtol=1e-5, atol=1e-6)


def prompts():
    """Sequences that begin with the same seven tokens, of 4 to 9 tokens more, padded on the left; the last is kept."""
    rows = [np.r_[10:17, seeded(3, row).integers(31, size=4 + row)] % 31 for row in range(6)]
    mask = np.arange(16) >= np.array([[16 - len(row)] for row in rows])
    tokens = np.full(mask.shape, 30)
    tokens[mask] = np.concatenate(rows)
    keep = np.zeros(mask.shape, dtype=bool)
    keep[:, -2:] = True
    return {"tokens": tokens, "mask": mask, "keep": keep}


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "gpt_neox"])
def test_shared_tokens_read_once_give_the_same_but_for_rounding(tmp_path, family):
    model, of = wrap(module_of(family), family), prompts()
    assert shared_prefix(**of) == 7
    options = {"model": model, "names": model.names, "batch_size": 4, "shard_bytes": 1} | of
    whole = capture(directory=tmp_path / "whole", **options)
    found = capture(directory=tmp_path / "found", prefix=7, **options)
    assert len(found.shards) == 2 and found.provenance["prefix"] == 7 and "prefix" not in whole.provenance
    for left, right in zip(found.labels(), whole.labels(), strict=True):
        np.testing.assert_array_equal(left, right)
    for name in model.names:
        np.testing.assert_allclose(found.read(name), whole.read(name), rtol=1e-5, atol=1e-5)
    before = contents(tmp_path / "found")
    shard_path(tmp_path / "found", 1).unlink()  # as of a capture that was killed
    capture(directory=tmp_path / "found", prefix=7, **options)
    assert contents(tmp_path / "found") == before
    with pytest.raises(ValueError, match="of another capture: its prefix is 7, not 5"):
        capture(directory=tmp_path / "found", prefix=5, **options)
    with pytest.raises(ValueError, match="prefix: 8 tokens, and 7 are shared and not kept"):
        capture(directory=tmp_path / "more", prefix=8, **options)


def test_what_is_shared_ends_before_what_is_kept_and_before_the_last_token():
    of = prompts()
    of["keep"][2] |= of["mask"][2].cumsum() == 5
    assert shared_prefix(**of) == 4
    same = np.tile(np.arange(5), (3, 1))
    assert shared_prefix(same, None, np.arange(5) == np.full((3, 1), 4)) == 4
    assert shared_prefix(same, None, np.zeros(same.shape, dtype=bool)) == 4
    assert shared_prefix(same, same < 3, same == 2) == 0  # padded on the right
    assert shared_prefix(same + np.arange(3)[:, None], None, same == 4) == 0


def test_what_a_capture_computes_once_for_all_models_can_be_differentiated(tmp_path):
    # such as rotary positions, whose tables are kept: of inference mode they would serve no training after it
    rotation.cache_clear()
    transformer = build(DEFAULTS | {"width": 8, "heads": 2}, TaskSizes(207, 207, 9))
    parameters = {name: value.requires_grad_() for name, value in transformer.initialise(seeded(0)).items()}
    small(tmp_path, language_model(transformer, parameters, "ours", {}))
    logits = transformer.forward(parameters, torch.from_numpy(some_tokens(1)), hook=lambda name, value: value)
    gradients = torch.autograd.grad(logits.sum(), list(parameters.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_captured_once(tmp_path, monkeypatch):
    small(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(cache, "_capture_shard", None)
    assert small(tmp_path).read(NAMES[0]).shape == (207, 8)
    assert contents(tmp_path) == before


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {here!r})
    import test_cache
    done, rename = [], os.replace
    def replace(old, new):
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(new)
        rename(old, new)
    os.replace = replace
    test_cache.small({directory!r})
"""


def test_a_killed_capture_continues_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    small(whole)
    script = textwrap.dedent(KILLED).format(here=str(Path(__file__).parent), directory=str(killed))
    environment = os.environ | {"PYTHONPATH": str(Path(learning_geometry.__file__).parents[1])}
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    left = contents(killed)
    assert sorted(name for name in left if name.startswith("shard")) == [f"shard-0000{i}.safetensors" for i in range(3)]
    assert any(name.startswith(".shard") for name in left)  # what it was writing
    with pytest.raises(FileNotFoundError, match="let a capture finish"):
        open_activations(killed)

    computed, really = [], cache._capture_shard
    monkeypatch.setattr(cache, "_capture_shard", lambda *inputs: computed.append(inputs[1].tolist()) or really(*inputs))
    small(killed)
    assert computed == [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22]]
    assert contents(killed) == contents(whole)


def test_another_capture_in_the_same_directory_is_refused(tmp_path):
    small(tmp_path)
    with pytest.raises(ValueError, match="of another capture: its origin is"):
        small(tmp_path, model=make(seed=1))
    with pytest.raises(ValueError, match="of another capture: its tokens is"):
        small(tmp_path, keep=beyond_the_first(some_tokens()))
    with pytest.raises(ValueError, match="of another capture: its code is None, not 'new'"):
        small(tmp_path, provenance={"code": "new"})
    other = make()
    other.parameters["readout.bias"] += 1
    with pytest.raises(ValueError, match="of another capture: its weights is"):
        small(tmp_path, model=other)


def damage(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not a tensor")
    elif how == "another":
        path.write_bytes(shard_path(path.parent, 5).read_bytes())
    elif how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "text", "another", "gone"])
def test_a_corrupt_shard_is_named_and_captured_again(tmp_path, how):
    found = small(tmp_path)
    before, path = contents(tmp_path), shard_path(tmp_path, 2)
    damage(path, how)
    with pytest.raises(ValueError, match=r"shard-00002\.safetensors: a corrupt shard .*; run `snakemake .*` .*again"):
        open_activations(tmp_path)
    if how == "gone":
        with pytest.raises(ValueError, match=r"shard-00002\.safetensors: a corrupt shard"):
            found.read(NAMES[0])
    small(tmp_path).verify()
    assert contents(tmp_path) == before


def test_a_flipped_bit_is_found_when_the_bytes_are_read_and_captured_again(tmp_path):
    found = small(tmp_path)
    before, path = contents(tmp_path), shard_path(tmp_path, 3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # in the activations, which fill most of it
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"shard-00003\.safetensors: a corrupt shard \(the bytes of"):
        for name in NAMES:
            found.read(name)
    with pytest.raises(ValueError, match=r"shard-00003\.safetensors: a corrupt shard \(its bytes are not those"):
        found.verify()
    small(tmp_path).verify()
    assert contents(tmp_path) == before


def test_a_damaged_index_is_named(tmp_path):
    small(tmp_path)
    (tmp_path / cache.INDEX).write_text("{")
    with pytest.raises(ValueError, match=r"activations\.json: not a readable JSON"):
        open_activations(tmp_path)


def test_a_batch_holds_the_same_tokens_under_every_name_and_a_pass_each_token_once(tmp_path):
    found = small(tmp_path)
    vectors = [found.read(name) for name in NAMES]
    row = {vector.tobytes(): i for i, vector in enumerate(vectors[1])}
    assert len(row) == 207
    for buffer, run in [(1000, 7), (40, 7), (1, 1)]:
        order, sizes = [], []
        for batch in found.batches(NAMES, 10, seeded(2), buffer, run):
            rows = [row[vector.numpy().tobytes()] for vector in batch[NAMES[1]]]
            np.testing.assert_array_equal(batch[NAMES[0]], vectors[0][rows])
            order += rows
            sizes.append(len(rows))
        assert sorted(order) == list(range(207)) and order != sorted(order)
        assert sizes == [10] * 20 + [7]


def orders(found, generator, **options):
    return torch.cat([batch[NAMES[0]] for batch in found.batches(NAMES[:1], 16, generator, **options)])


def test_the_order_is_the_streams(tmp_path):
    found = small(tmp_path)
    first = orders(found, seeded(3, "activations", 0), buffer=40, run=5)
    assert torch.equal(first, orders(found, seeded(3, "activations", 0), buffer=40, run=5))
    assert not torch.equal(first, orders(found, seeded(3, "activations", 1), buffer=40, run=5))


def test_a_buffer_that_holds_all_shuffles_uniformly(tmp_path):
    found = small(tmp_path, tokens=some_tokens(3))
    row = {vector.tobytes(): i for i, vector in enumerate(found.read(NAMES[0]))}
    passes = 600
    counts = np.zeros((27, 27))
    for number in range(passes):
        order = orders(found, seeded(4, number), run=4)
        counts[np.arange(27), [row[vector.numpy().tobytes()] for vector in order]] += 1
    # every vector is equally often at every place: chi-squared of (27 - 1)² degrees of freedom, within 5 deviations
    chi_squared = ((counts - passes / 27) ** 2 / (passes / 27)).sum()
    assert abs(chi_squared - 26**2) < 5 * np.sqrt(2 * 26**2)


def test_more_than_memory_is_read_a_little_at_a_time(tmp_path):
    model = build(DEFAULTS | {"width": 64, "layers": 1}, TaskSizes(11, 11, 64))
    ours = language_model(model, model.initialise(seeded(0)), "wide")
    tokens = seeded(1).integers(11, size=(600, 64))
    name, bytes_in_all = "layers.0.residual_post", 600 * 64 * 64 * 4
    tracemalloc.start()
    found = capture(ours, tokens, [name], tmp_path, shard_bytes=2**20)
    captured = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    total = sum(batch[name].double().sum(0) for batch in found.batches([name], 256, seeded(5), buffer=2048))
    streamed = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.shards) == 10 and bytes_in_all > 9e6
    assert captured < bytes_in_all / 3 and streamed < bytes_in_all / 4
    np.testing.assert_allclose(total, found.read(name).sum(0, dtype=np.float64), rtol=1e-6, atol=1e-3)


def test_each_row_is_read_once_a_pass(tmp_path, monkeypatch):
    found = small(tmp_path)
    reads, really = [], cache.read_tensor
    monkeypatch.setattr(
        cache, "read_tensor", lambda path, name, rows: reads.append((path, rows)) or really(path, name, rows)
    )
    list(found.batches(NAMES[:1], 10, seeded(6), buffer=40, run=8))
    assert sum(rows.stop - rows.start for _, rows in reads) == 207
    assert max(rows.stop - rows.start for _, rows in reads) == 8
    assert len(set((path, rows.start) for path, rows in reads)) == len(reads)


def test_what_cannot_be_captured_or_read_is_said(tmp_path):
    tokens = some_tokens()
    with pytest.raises(ValueError, match="no activations"):
        capture(make(), tokens, ["layers.2.residual_pre"], tmp_path)
    with pytest.raises(ValueError, match="keep: 0 of the tokens"):
        small(tmp_path, keep=np.zeros(tokens.shape, dtype=bool))
    with pytest.raises(ValueError, match="must be 1 or more"):
        small(tmp_path, batch_size=0)
    broken = make()
    broken.parameters["layers.1.attention.output.bias"][3] = torch.inf
    with pytest.raises(ValueError, match=r"layers\.1\.residual_post is not finite in sequences 0 to 1"):
        small(tmp_path, model=broken)
    assert not list(tmp_path.iterdir())
    found = small(tmp_path)
    with pytest.raises(ValueError, match=r"no activations 'layers\.0\.residual_pre'; there are"):
        found.read("layers.0.residual_pre")
    with pytest.raises(ValueError, match="size 0, buffer"):
        next(found.batches(NAMES, 0, seeded(0)))
    with pytest.raises(FileNotFoundError, match="capture activations there"):
        open_activations(tmp_path / "nowhere")
