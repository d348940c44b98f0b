"""What is captured of a language model: sums against the vectors themselves, kills, and what lies on disk."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from learning_geometry.files import finish_folder, read_json, read_tensor
from learning_geometry.geometry.moments import moments
from learning_geometry.measurements.common import language_capture
from learning_geometry.measurements.common.language_capture import Sums, capture_prompts, capture_text, working_folder
from learning_geometry.measurements.common.language_run import MOMENTS, TRAINED, LanguageRun, packed, unpacked
from learning_geometry.models.language.cache import INDEX, shard_path
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.loading import load
from learning_geometry.seeding import seeded
from tests.measurements.language import TEXT
from tests.tiny_families import module_of


@pytest.fixture(scope="module")
def model(tiny_language):
    return load(**tiny_language.settings["model"])


def test_moments_are_those_of_the_vectors_that_are_kept(tiny_language):
    assert tiny_language.activations("documentation").vectors == 80 * 31
    for name in ("layers.1.attention.output", "layers.1.mlp.output"):
        exact = moments(tiny_language.activations("documentation").read(name))
        found = tiny_language.moments("documentation", name)
        assert found.n == exact.n
        np.testing.assert_allclose(found.mean, exact.mean, atol=1e-6)
        np.testing.assert_allclose(found.scatter, exact.scatter, atol=1e-5 * np.abs(exact.scatter).max())


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text", "granite"])
def test_moments_of_an_output_are_those_of_what_is_added(tmp_path, family):
    """With a bias, after a norm, which is no linear map, and after a factor."""
    model = wrap(module_of(family), family)
    sums, seen = Sums(model, 40, tmp_path, {}), {}

    def see(name, value):
        seen.setdefault(name, []).append(value.detach())
        return value

    for batch in torch.from_numpy(seeded("batches").integers(0, 31, (2, 4, 5))):
        model.forward(batch, hook=see)
        for name in sums.names:
            sums.add(name, seen[name][-1].reshape(20, -1))
        sums.added(20)
    sums.finish()
    for layer in range(3):
        name = f"layers.{layer}.attention.output"
        exact = moments(torch.cat(seen[name]).reshape(40, -1).double().numpy())
        np.testing.assert_allclose(read_tensor(tmp_path / MOMENTS, f"{name}.mean"), exact.mean, atol=1e-5)
        scatter = unpacked(read_tensor(tmp_path / MOMENTS, f"{name}.scatter"), len(exact.mean))
        np.testing.assert_allclose(scatter, exact.scatter, atol=1e-5 * np.abs(exact.scatter).max())


def test_spectra_are_of_the_first_vectors(tiny_language):
    vectors = tiny_language.activations("source_code").read("layers.1.mlp.output").astype(np.float64)
    spectra = tiny_language.spectra("source_code", "layers.1.mlp.output")
    assert [round(count / len(vectors), 2) for count in spectra] == [0.3, 0.5]
    for count, found in spectra.items():
        expected = np.linalg.svd(vectors[:count] - vectors[:count].mean(0), compute_uv=False) ** 2
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected[0])
    assert tiny_language.spectra("source_code", "layers.1.attention.z") == {}


def test_names_are_in_the_order_of_the_model(tiny_language):
    assert tiny_language.moment_names("documentation")[:6] == [
        *(f"layers.0.{part}" for part in ("residual_pre", "attention.z", "attention.output")),
        *("layers.0.residual_mid", "layers.0.mlp.output", "layers.1.residual_pre"),
    ]
    assert tiny_language.prompt_names()[-4:] == [
        *("layers.3.residual_pre", "layers.3.residual_mid", "layers.3.residual_post", "final")
    ]


def test_prompts_are_seen_at_their_last_token(tiny_language, model):
    rows = tiny_language.contrasts["sentiment"][1]
    states = tiny_language.prompt_states(TRAINED, "layers.2.residual_mid")[rows]
    text = f"<{'positive thing number 3'}>answer:"
    tokens = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    alone = model.activations(tokens, ["layers.2.residual_mid"])["layers.2.residual_mid"][0, -1]
    np.testing.assert_allclose(states[3], alone.numpy(), atol=1e-5)
    # what the template writes before the prompt is read once for all of them
    index = read_json(tiny_language.prompts[TRAINED] / INDEX)
    assert index["provenance"]["prefix"] == 1


class Killed(Exception):
    pass


def test_a_killed_capture_goes_on_and_ends_with_the_same_bytes(tiny_language, model, tmp_path, monkeypatch):
    monkeypatch.setattr(language_capture, "SECONDS_BETWEEN_SAVES", 0.0)
    settings = TEXT | {"parts": ["mlp.output"]}
    # 80 windows in five shards
    monkeypatch.setattr(language_capture, "capture", partial(language_capture.capture, shard_bytes=2**15))
    seen = []

    def killer(count, _what):
        seen.append(count)
        if len(seen) == 5:
            raise Killed

    with pytest.raises(Killed):
        capture_text(model, "python_source", settings, tmp_path / "killed", killer)
    assert not (tmp_path / "killed" / "moments.safetensors").exists()
    before = len(seen)
    capture_text(model, "python_source", settings, tmp_path / "killed", lambda count, what: seen.append(count))
    capture_text(model, "python_source", settings, tmp_path / "whole")
    assert len(seen) - before < 10  # of ten batches the first were not run again
    for path in ["moments.safetensors", f"activations/{INDEX}", f"activations/{shard_path('.', 0)}"]:
        assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["activations", "moments.safetensors"]


@pytest.mark.parametrize("lost", ["sums flipped", "shard flipped", "shard gone"])
def test_a_capture_in_progress_that_lost_something_ends_with_the_same_bytes(model, tmp_path, monkeypatch, lost):
    monkeypatch.setattr(language_capture, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(language_capture, "capture", partial(language_capture.capture, shard_bytes=2**15))
    settings, seen = TEXT | {"parts": ["mlp.output"]}, []

    def killer(count, _what):
        seen.append(count)
        if len(seen) == 5:
            raise Killed

    with pytest.raises(Killed):
        capture_text(model, "python_source", settings, tmp_path / "killed", killer)
    shard = shard_path(tmp_path / "killed/activations", 0)
    path = tmp_path / "killed" / language_capture.PARTIAL if lost.startswith("sums") else shard
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if lost == "shard gone":
        path.unlink()
    before = len(seen)
    capture_text(model, "python_source", settings, tmp_path / "killed", lambda count, what: seen.append(count))
    capture_text(model, "python_source", settings, tmp_path / "whole")
    assert (len(seen) - before == 10) == (lost == "sums flipped")  # all ten batches are summed again, or not
    for whole in [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]:
        assert (tmp_path / "killed" / whole.relative_to(tmp_path / "whole")).read_bytes() == whole.read_bytes()


def test_a_finished_capture_is_read_if_it_is_whole(model, tmp_path):
    capture_text(model, "python_source", TEXT, tmp_path / "working")
    finish_folder(tmp_path / "working", tmp_path / "finished")
    run = LanguageRun("tiny", {}, {"code": tmp_path / "finished"}, {})
    assert run.moment_names("code")
    shard_path(tmp_path / "finished" / "activations", 0).unlink()
    with pytest.raises(ValueError, match=r"finished: 1 of \d files are missing, first activations/shard-00000"):
        run.moment_names("code")


@pytest.mark.parametrize("width", [5, 64, 200, 576])
def test_products_of_columns_are_the_same_by_blocks(width):
    deviations = [torch.from_numpy(seeded(batch).standard_normal((90, width), dtype="float32")) for batch in range(2)]
    products = torch.zeros(language_capture.entries(width))
    for batch in deviations:
        language_capture.add_products(batch, products)
    found = language_capture.whole_matrix(products.double().numpy(), width)
    exact = sum(batch.double().numpy().T @ batch.double().numpy() for batch in deviations)
    np.testing.assert_allclose(found, exact, atol=1e-5 * 90)
    assert (found == found.T).all()
    # no more is kept than of three blocks of rows, each from the diagonal on
    assert width**2 / 2 < len(products) <= (width**2 if width < 192 else 0.7 * width**2)


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_numbers_that_are_not_finite_are_refused(model, tmp_path, number):
    sums = language_capture.Sums(model, 100, tmp_path, {})
    sums.add("layers.0.residual_pre", torch.full((2, 16), 3e38))  # their sum overflows in float32
    sums.add("layers.1.residual_pre", torch.ones(2, 16))
    with pytest.raises(ValueError, match=r"layers\.1\.residual_pre is not finite somewhere in the text"):
        sums.add("layers.1.residual_pre", torch.tensor([[number] + [1.0] * 15, [-number] + [1.0] * 15]))


def test_sums_of_another_capture_are_not_continued(model, tmp_path, monkeypatch):
    monkeypatch.setattr(language_capture, "SECONDS_BETWEEN_SAVES", 0.0)
    sums = language_capture.Sums(model, 100, tmp_path, {"text": "one"})
    for name in sums.names:
        sums.add(name, torch.ones(2, 16))
    sums.added(2)
    sums.saved(1)
    assert language_capture.Sums(model, 100, tmp_path, {"text": "one"}).count == 2
    with pytest.raises(ValueError, match="of another capture; capture into another folder"):
        language_capture.Sums(model, 100, tmp_path, {"text": "two"})
    assert working_folder(tmp_path, {"a": 1}) != working_folder(tmp_path, {"a": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 10**8}, "python_source: its [0-9]+ tokens in windows of 32 are fewer than the 100000000 asked for"),
        ({"layers": [4]}, r"text.layers: no layers \[4\]; the model has 0 to 3"),
        ({"window": 257}, "a window: 257 tokens"),
    ],
)
def test_errors_of_texts_say_what_to_change(model, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        capture_text(model, "python_source", TEXT | change, tmp_path)


def test_how_texts_and_prompts_were_read_is_recorded(model, tmp_path):
    tokenizer = model.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    text = tmp_path / "text.txt"
    text.write_text("<pad> and <s> " + "a b c " * 20)
    settings = TEXT | {"tokens": 24, "window": 12, "layers": [1], "parts": ["mlp.output"]}
    # the model has no embedding of the new token: the last there is stands for it
    tokenizer_begins = replace(model, tokenizer=Begins(tokenizer, model.sizes.vocabulary - 1))
    read = {}
    for name, begins in (("with", True), ("without", None)):
        capture_text(tokenizer_begins, str(text), settings, tmp_path / name, prepend_bos=begins)
        run = LanguageRun("tiny", {}, {"text": tmp_path / name}, {})
        found = run.reading()["texts"]["text"]
        assert found["reading"] == {
            "prepend_bos": begins is True,
            "control_tokens_as_text": {"<pad>": 1, "<s>": 1},
            "added_tokens": {},
            "unknown_tokens": 0,
        }
        assert found["weights"] == model.digest() == run.weights()
        # the first of each window never counts, be it that of the beginning or of the text
        assert run.moments("text", "layers.0.mlp.output").n == 2 * 11
        read[name] = found["tokens"]
    assert read["with"] != read["without"]


class Begins:
    """A tokenizer whose beginning-of-sequence token has another number."""

    def __init__(self, tokenizer, number):
        self.tokenizer, self.bos_token_id = tokenizer, number

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *arguments, **options):
        return self.tokenizer(*arguments, **options)


def test_prompts_of_one_token_are_named_by_file_and_line(tmp_path, model):
    for name, lines in (("first", "ab\ncd"), ("second", "ef\ng")):
        (tmp_path / f"{name}.txt").write_text(lines)
    files = [str(tmp_path / f"{name}.txt") for name in ("first", "second")]
    with pytest.raises(ValueError, match=r"second.txt, line 2 \('g'\): one token, .* on which attention rests"):
        capture_prompts(model, {"short": files}, False, tmp_path / "out")
    capture_prompts(model, {"short": files}, True, tmp_path / "out")


def test_weights_that_differ_between_captures_are_refused(tiny_language):
    assert tiny_language.weights() == tiny_language.reading()["prompts"]["trained"]["weights"]
    assert tiny_language.weights() != tiny_language.reading()["prompts"]["untrained"]["weights"]
    mixed = replace(tiny_language, prompts={"trained": tiny_language.prompts["untrained"]})
    with pytest.raises(ValueError, match=r"tiny_language: .* are of other weights than each other; delete what was"):
        mixed.weights()
    other = replace(tiny_language, _loaded=["another"])
    with pytest.raises(ValueError, match="are of other weights than each other"):
        other.weights()


def test_errors_of_prompts_say_what_to_change(model, tmp_path):
    long, short = tmp_path / "long.txt", tmp_path / "short.txt"
    long.write_text("a" * 300)
    short.write_text("b")
    with pytest.raises(ValueError, match=r"long.txt, line 1 \('a+'\): 309 tokens, and .* reads 1 to 256"):
        capture_prompts(model, {"length": [str(long), str(short)]}, True, tmp_path / "out")
    short.write_text("")
    with pytest.raises(ValueError, match=r"short.txt: holds no prompt"):
        capture_prompts(model, {"length": [str(long), str(short)]}, True, tmp_path / "out")


def test_prompts_alone_tell_the_sizes_of_the_model(tiny_language):
    assert replace(tiny_language, texts={}).sizes() == tiny_language.sizes()


def test_a_model_without_norms_is_said_to_have_none(tiny_language, tmp_path, model):
    files = [str(tmp_path / f"{name}.txt") for name in ("first", "second")]
    for file in files:
        Path(file).write_text(f"a {Path(file).stem} prompt")
    capture_prompts(replace(model, norm=None), {"short": files}, False, tmp_path / "out")
    with pytest.raises(
        ValueError, match="tiny_language: the model has no norms; leave out what is measured after them"
    ):
        replace(tiny_language, prompts={TRAINED: tmp_path / "out"}).norm()


def test_nothing_captured_is_said_so():
    run = LanguageRun("tiny", {}, {}, {})
    with pytest.raises(ValueError, match="tiny: nothing was captured of it"):
        run.sizes()
    with pytest.raises(KeyError, match="no text 'a' was captured"):
        run.moments("a", "layers.0.mlp.output")
    with pytest.raises(KeyError, match="no prompts with trained weights"):
        run.prompt_names()


def test_packing_keeps_symmetric_matrices():
    square = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(unpacked(packed(square + square.T), 3), square + square.T)


@pytest.mark.parametrize("settle_after", [1, 10**9])
def test_sums_are_right_however_often_float32_is_settled(tmp_path, monkeypatch, model, settle_after):
    monkeypatch.setattr(language_capture, "SETTLE_AFTER", settle_after)
    sums = language_capture.Sums(model, 10**9, tmp_path, {})
    vectors = seeded(0).standard_normal((40, 7, 16), dtype="float32") + np.float32(100)
    for batch in torch.from_numpy(vectors).split(5):
        sums.add("final", batch)
        sums.added(35)
    of, exact = sums._moments("final"), moments(vectors.reshape(-1, 16))
    assert of.n == exact.n == 280
    np.testing.assert_allclose(of.mean, exact.mean, rtol=1e-6)
    np.testing.assert_allclose(of.scatter, exact.scatter, atol=2e-6 * exact.scatter.max())


def test_what_another_device_began_is_not_continued(tmp_path, monkeypatch):
    def folders(there):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        return [working_folder(tmp_path, {"key": "a"}, device) for device in ("auto", "cpu")]

    (without, cpu), (with_gpu, same) = folders(False), folders(True)
    assert without == cpu == same != with_gpu
