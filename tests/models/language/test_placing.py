"""Weights of fewer bits, layers that do not fit on the device, and how much is held while a model is loaded."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from learning_geometry.measurements.common.language_capture import capture_text
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.models.language import families
from learning_geometry.models.language.loading import import_transformers, load
from learning_geometry.models.language.placing import chosen_device, place
from learning_geometry.models.language.self_check import check_identities
from learning_geometry.seeding import seeded
from tests.tiny_families import CONFIGS, LLAMA, module_of, randomised
from tests.tiny_language_model import write_tiny_language_model

TOKENS = torch.from_numpy(seeded(0).integers(31, size=(2, 9)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_tiny_language_model(tmp_path_factory.mktemp("model"))


def activations(model):
    return model.activations(TOKENS, [*model.names])


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.03), ("float16", 0.004)])
def test_of_fewer_bits_activations_are_the_same_but_for_their_rounding(directory, dtype, most):
    exact, rounded = load(directory, tokenizer=False), load(directory, tokenizer=False, dtype=dtype)
    assert {each.dtype for each in rounded.parameters.values()} == {getattr(torch, dtype)}
    assert rounded.origin["dtype"] == dtype and "dtype" not in exact.origin
    assert rounded.digest() != exact.digest() == load(directory, tokenizer=False).digest()
    for name, value in activations(exact).items():
        found = activations(rounded)[name].float()
        assert 0 < float((found - value).norm()) < most * float(value.norm()), name
    expected = exact.query_key(1)
    assert np.abs(rounded.query_key(1) - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_check_at_loading_holds_in_fewer_bits(name):
    module = module_of(name).to(torch.bfloat16)
    check_identities(families.wrap(module, name), module)


def test_the_check_at_loading_tells_in_fewer_bits_what_is_passed_over(monkeypatch):
    module = module_of("llama").to(torch.bfloat16)
    for block in module.model.layers:
        # as a norm or a factor that the description does not know
        block.self_attn.register_forward_hook(lambda _module, _inputs, output: (0.8 * output[0], *output[1:]))
    with pytest.raises(ValueError, match=r"residual_post is off by .* and 0.031 is allowed"):
        check_identities(families.wrap(module, "llama"), module)


def test_layers_that_do_not_fit_pass_through_the_device():
    # on the CPU, which is the device as well
    config = import_transformers().LlamaConfig(**LLAMA | {"num_hidden_layers": 6})
    module = randomised(config, "llama")
    expected, blocks, cpu = module(TOKENS).logits, list(module.model.layers), torch.device("cpu")
    size = sum(4 * each.numel() for each in blocks[0].parameters())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    outside = sum(4 * each.numel() for name, each in tensors if ".layers." not in name)
    with pytest.raises(ValueError, match="too little memory for the embedding and two layers"):
        place(module, blocks, cpu, lambda: outside + size)
    assert place(module, blocks, cpu, lambda: outside + 6 * size) == 0
    assert place(module, blocks, cpu, lambda: outside + int(3.5 * size)) == 5
    model = families.wrap(module, "passed through")
    check_identities(model, module)
    assert torch.equal(model.forward(TOKENS), expected)
    # each makes way for the next, and the last for the first of the next pass
    assert not hasattr(blocks[0], "_hf_hook")
    assert [blocks.index(each._hf_hook.prev_module_hook.model) for each in blocks[1:]] == [5, 1, 2, 3, 4]
    assert torch.equal(model.layer_weights(2).output, blocks[2].self_attn.o_proj.weight)


def test_a_device_or_type_that_there_is_not_is_named(directory, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto").type == chosen_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device: cuda, and PyTorch finds no such device here"):
        load(directory, device="cuda")
    with pytest.raises(ValueError, match="device: 'tpu' is not known; use one of auto, cpu, cuda"):
        load(directory, device="tpu")
    with pytest.raises(ValueError, match="dtype: 'int8' is not known; use one of float32, bfloat16, float16"):
        load(directory, dtype="int8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device("auto").type == "cuda" and chosen_device("cpu").type == "cpu"


def test_moments_of_fewer_bits_are_those_of_float32_but_for_rounding(directory, tmp_path):
    text = {"tokens": 2560, "window": 32, "layers": [1], "parts": ["attention.output"], "moment_layers": [0, -1]}
    (tmp_path / "letters.txt").write_text("abc hello bcd " * 500)
    runs = {}
    for dtype in ("float32", "bfloat16"):
        folder = tmp_path / dtype
        capture_text(load(directory, dtype=dtype), str(tmp_path / "letters.txt"), text, folder)
        runs[dtype] = LanguageRun("tiny", {}, {"letters": folder}, {})
    names = runs["float32"].moment_names("letters")
    assert {name.split(".")[1] for name in names} == {"0", "3"}
    for name in names:
        exact, found = (run.moments("letters", name) for run in runs.values())
        assert 0 < np.linalg.norm(found.scatter - exact.scatter) < 0.05 * np.linalg.norm(exact.scatter)
    first, second = (run.activations("letters").read("layers.1.attention.output") for run in runs.values())
    assert first.dtype == second.dtype == np.float32 and not np.array_equal(first, second)


def held():
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")
def test_loading_holds_the_weights_and_no_more_than_a_shard_besides(tmp_path):
    transformers = import_transformers()
    sizes = {"vocab_size": 31, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 12}
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=8))
    weights = 4 * sum(each.numel() for each in module.parameters())
    module.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="12MB")
    del module
    load(tmp_path, tokenizer=False, dtype="bfloat16")  # what is imported and kept by the first load
    before, most, done = held(), [0], threading.Event()

    def watch():
        while not done.wait(0.001):
            most[0] = max(most[0], held() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    model = load(tmp_path, tokenizer=False)
    done.set()
    watching.join()
    assert weights == 4 * sum(each.numel() for each in model.parameters.values()) > 1e8
    assert 0.8 * weights < most[0] < weights + 2 * 12e6 + 2e7
