"""GGUF files: every key and tensor that changes a number is applied, or refused by name."""

import math
import os
import struct

import numpy as np
import pytest
import torch

from learning_geometry.model_files import check_files
from learning_geometry.model_files.gguf_settings import CHANGES_NOTHING
from learning_geometry.model_files.headers import TYPES, gguf_header
from learning_geometry.models.language.loading import import_transformers, load
from learning_geometry.models.language.weights import gguf_tensor
from learning_geometry.seeding import seeded
from tests.gguf_files import CONFIG, LLAMA, TOKENIZER, gpt2_tensors, llama_tensors, write_gguf

transformers = import_transformers()


def drawn(module, seed=0):
    """The module with random parameters; every one differs from what it would be without being read."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            draws = torch.from_numpy(generator.standard_normal(tuple(parameter.shape), dtype="float32"))
            parameter.copy_(draws / 3 if parameter.ndim == 2 else 1 + draws / 5)
    return module.eval()


def llama(**changes):
    return drawn(transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG | changes)))


def some_tokens(length=60, vocabulary=31):
    return torch.from_numpy(seeded(1).integers(vocabulary, size=(2, length)))


def assert_computes_the_same(path, module, folder, vocabulary=31):
    """Of the GGUF file, of the module and of the module saved as safetensors: the stream of all layers, and logits."""
    module.save_pretrained(folder)
    found, other = load(path, tokenizer=False), load(folder, tokenizer=False)
    tokens = some_tokens(min(60, found.sizes.context), vocabulary)
    states, others = found.activations(tokens, found.names), other.activations(tokens, other.names)
    for name in found.names:
        torch.testing.assert_close(states[name], others[name], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        expected = module(tokens).logits
        torch.testing.assert_close(found.forward(tokens), expected, rtol=1e-5, atol=1e-5)
    assert found.sizes == other.sizes
    return expected


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def llama3_factors(head_width=8, base=10000.0):
    """As llama.cpp's converter makes them: wavelengths above a context are stretched, those in between in part."""
    found = []
    for frequency in base ** (-np.arange(0, head_width, 2) / head_width):
        length = 2 * math.pi / frequency
        low, high = (
            LLAMA3["original_max_position_embeddings"] / LLAMA3[f"{end}_freq_factor"] for end in ("low", "high")
        )
        if length < high:
            found.append(1.0)
        elif length > low:
            found.append(LLAMA3["factor"])
        else:
            context, ends = LLAMA3["original_max_position_embeddings"], (1.0, 4.0)
            smooth = (context / length - ends[0]) / (ends[1] - ends[0])
            found.append(1 / ((1 - smooth) / LLAMA3["factor"] + smooth))
    return np.array(found, dtype=np.float32)


def test_rope_factors_of_llama_3_are_applied(tmp_path):
    factors = llama3_factors()
    assert 1.0 in factors and 8.0 in factors
    module = llama(rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3})
    path = write_gguf(tmp_path / "a.gguf", LLAMA, llama_tensors(module) | {"rope_freqs.weight": factors})
    expected = assert_computes_the_same(path, module, tmp_path / "folder")
    plain = llama()
    with torch.no_grad():  # without the factors it is another model
        assert (plain(some_tokens()).logits - expected).norm() > 0.01 * expected.norm()
    # a null keeps them: they are no weights
    null = load(path, tokenizer=False, untrained=seeded(0))
    other = load(tmp_path / "folder", tokenizer=False, untrained=seeded(0))
    torch.testing.assert_close(null.forward(some_tokens()), other.forward(some_tokens()), rtol=1e-5, atol=1e-6)


SCALED = {
    "linear": ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
    "a factor alone": ({"factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
    "none": ({"type": "none", "factor": 4.0}, {"rope_type": "default"}),
    "linear, 1": ({"type": "linear", "factor": 1.0, "original_context_length": 64}, {"rope_type": "default"}),
    "yarn": (
        {"type": "yarn", "factor": 4.0, "original_context_length": 16, "finetuned": True},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ),
    "yarn with its ends": (
        {"type": "yarn", "factor": 2.0, "original_context_length": 32, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0},
        {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
        },
    ),
}


@pytest.mark.parametrize("case", SCALED)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_rope_scaling_is_applied(tmp_path, family, case):
    scaling, rope = SCALED[case]
    rope = {"rope_theta": 10000.0, **rope}
    if family == "llama":
        module = llama(rope_parameters=rope)
    else:
        module = drawn(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**CONFIG, rope_parameters=rope)))
    keys = {key.replace("llama", family): value for key, value in (LLAMA | {"general.architecture": family}).items()}
    keys["general.architecture"] = family
    keys |= {f"{family}.rope.scaling.{key}": value for key, value in scaling.items()}
    path = write_gguf(tmp_path / "a.gguf", keys, llama_tensors(module))
    assert_computes_the_same(path, module, tmp_path / "folder")


def test_linear_scaling_and_factors_go_together(tmp_path):
    module = llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    keys = LLAMA | {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    factors = {"rope_freqs.weight": np.full(4, 2.0, dtype=np.float32)}
    path = write_gguf(tmp_path / "a.gguf", keys, llama_tensors(module) | factors)
    assert_computes_the_same(path, module, tmp_path / "folder")


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mlp_bias": True}, {"tie_word_embeddings": True}])
def test_biases_and_a_tied_embedding_follow_from_the_tensors(tmp_path, changes):
    module = llama(**changes)
    tensors = llama_tensors(module)
    if "tie_word_embeddings" in changes:
        assert "output.weight" not in tensors
    assert_computes_the_same(write_gguf(tmp_path / "a.gguf", LLAMA, tensors), module, tmp_path / "folder")


def gpt2_keys(context):
    sizes = {"block_count": 2, "context_length": context, "embedding_length": 24, "feed_forward_length": 60}
    sizes |= {"attention.head_count": 6, "attention.layer_norm_epsilon": 1e-5}
    return {"general.architecture": "gpt2"} | {f"gpt2.{key}": value for key, value in sizes.items()}


@pytest.mark.parametrize("context", [16, 1024, 1500])
def test_gpt2_of_any_context(tmp_path, context):
    config = transformers.GPT2Config(vocab_size=31, n_embd=24, n_layer=2, n_head=6, n_positions=context, n_inner=60)
    module = drawn(transformers.GPT2LMHeadModel(config))
    path = write_gguf(tmp_path / "a.gguf", gpt2_keys(context), gpt2_tensors(module))
    assert_computes_the_same(path, module, tmp_path / "folder")
    assert load(path, tokenizer=False).sizes.context == context


def test_gpt_neox_is_refused_with_the_reason(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", {"general.architecture": "gptneox"}, {})
    with pytest.raises(ValueError, match=r"a\.gguf: general\.architecture: 'gptneox' .*use its safetensors"):
        load(path, tokenizer=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type: 'longrope' is not read"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "YaRN needs original_context_length"),
        ({"llama.rope.scaling.attn_factor": 2.0}, "llama.rope.scaling.attn_factor: 2"),
        ({"llama.rope.scaling.factor": 4.0, "llama.rope.scale_linear": 2.0}, "one number under two names"),
        ({"llama.rope.scaling.factor": "4"}, "llama.rope.scaling.factor: '4', and must be a positive number"),
        ({"llama.rope.freq_base": [1.0, 2.0]}, "llama.rope.freq_base: a list of 2, and must be a positive number"),
        ({"llama.block_count": 2.0}, "llama.block_count: 2.0, and must be an integer"),
        ({"llama.block_count": 20_000}, "llama.block_count: 20000, and at most 10000 are read"),
        ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base: 0.0, and must be a positive number"),
        ({"llama.rope.freq_base": -1.0}, "llama.rope.freq_base: -1"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count: 4, and heads have a width of 8"),
        ({"llama.attention.key_length": 8, "llama.attention.value_length": 16}, "llama.attention.value_length: 16"),
        ({"llama.expert_count": 8}, "llama.expert_count: 8"),
        ({"llama.attention.sliding_window": 32}, "llama.attention.sliding_window: 32, less than the context"),
        ({"llama.logit_scale": 0.5}, "llama.logit_scale: 0.5"),
        ({"llama.residual_scale": 0.22}, "llama.residual_scale: 0.22"),
        ({"llama.embedding_scale": 12.0}, "llama.embedding_scale: 12"),
        ({"llama.final_logit_softcapping": 30.0}, "llama.final_logit_softcapping: 30"),
        ({"llama.attention.causal": False}, "llama.attention.causal: False"),
        ({"llama.use_parallel_residual": True}, "llama.use_parallel_residual: True"),
        ({"llama.made_up": 1}, "llama.made_up: 1, and what this key does is not known"),
        ({"llama.attention.head_count": [4, 2]}, r"llama.attention.head_count: \[4, 2\]"),
        ({"llama.attention.head_count_kv": 3}, "3 key and value heads do not divide the 4"),
        ({"llama.vocab_size": 30}, "llama.vocab_size: 30, and token_embd.weight has 31 rows"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "llama.attention.layer_norm_rms_epsilon: the file lacks"),
        ({"llama.context_length": None}, "llama.context_length: the file lacks"),
        ({"llama.block_count": 3}, "9 weights are not in its files, such as blk.2"),
        ({"llama.block_count": 1}, "9 tensors in its files are not of the model .*blk.1"),
        ({"llama.feed_forward_length": 48}, r"blk.0.ffn_gate.weight: of shape \(64, 32\), .*\(48, 32\)"),
        ({"llama.attention.head_count_kv": None}, r"blk.0.attn_k.weight: of shape \(16, 32\)"),
        ({"general.architecture": "gemma3"}, "general.architecture: 'gemma3' is not read from GGUF"),
        ({"general.type": "adapter"}, "general.type: 'adapter'"),
        ({"split.count": 2}, "one of 2 parts"),
        ({"adapter.lora.alpha": 16.0}, "adapter.lora.alpha: the file is an adapter"),
    ],
)
def test_a_key_that_is_not_understood_is_refused(tmp_path, changes, says):
    path = write_gguf(tmp_path / "a.gguf", LLAMA | changes, llama_tensors(llama()))
    for read in (load, check_files):  # the same before any job as when it is loaded
        with pytest.raises(ValueError, match=rf"a\.gguf: .*({says})"):
            read(path, tokenizer=False)


def test_keys_that_change_nothing_pass(tmp_path):
    neutral = {f"llama.{key}": values[0] for key, values in CHANGES_NOTHING.items()}
    other = {"mradermacher.quantize_version": "2", "quantize.imatrix.chunks_count": 3, "general.url": "none"}
    keys = LLAMA | neutral | other | {"llama.attention.sliding_window": 64, "llama.attention.key_length": 8}
    keys |= {"llama.feed_forward_length": [64, 64]}  # one for each layer
    path = write_gguf(tmp_path / "a.gguf", keys, llama_tensors(llama()))
    assert_computes_the_same(path, llama(), tmp_path / "folder")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("rope_factors_long.weight", (4,)),
        ("blk.0.attn_q_norm.weight", (8,)),
        ("blk.1.post_attention_norm.weight", (32,)),
        ("blk.0.attn_q.bias", (32,)),
        ("blk.2.attn_norm.weight", (32,)),
        ("blk.0.ffn_gate_exps.weight", (2, 64, 32)),
        ("output.bias", (31,)),
        ("rope_freqs.weight", (8,)),
    ],
)
def test_a_tensor_that_the_model_does_not_take_is_refused(tmp_path, name, shape):
    tensors = llama_tensors(llama()) | {name: np.ones(shape, dtype=np.float32)}
    path = write_gguf(tmp_path / "a.gguf", LLAMA, tensors)
    for read in (load, check_files):
        with pytest.raises(ValueError, match=rf"a\.gguf: (.*{name}|\d weights are not in its files)"):
            read(path, tokenizer=False)


def test_a_missing_tensor_is_named(tmp_path):
    tensors = llama_tensors(llama())
    del tensors["blk.1.ffn_down.weight"]
    with pytest.raises(ValueError, match=r"1 weights are not in its files, such as blk\.1\.ffn_down\.weight"):
        load(write_gguf(tmp_path / "a.gguf", LLAMA, tensors), tokenizer=False)


def test_factors_that_are_not_known_to_go_with_the_rest_are_refused(tmp_path):
    factors = {"rope_freqs.weight": np.ones(4, dtype=np.float32)}
    scaling = {"type": "yarn", "factor": 4.0, "original_context_length": 16}
    keys = LLAMA | {f"llama.rope.scaling.{key}": value for key, value in scaling.items()}
    with pytest.raises(ValueError, match=r"rope_freqs\.weight: the file has it and YaRN too"):
        load(write_gguf(tmp_path / "a.gguf", keys, llama_tensors(llama()) | factors), tokenizer=False)
    config = transformers.GPT2Config(vocab_size=31, n_embd=24, n_layer=2, n_head=6, n_positions=16, n_inner=60)
    tensors = gpt2_tensors(drawn(transformers.GPT2LMHeadModel(config)))
    path = write_gguf(tmp_path / "a.gguf", gpt2_keys(16), tensors | factors)
    with pytest.raises(ValueError, match=r"rope_freqs\.weight: the file has it, and gpt2 has no rotary positions"):
        load(path, tokenizer=False)
    path = write_gguf(tmp_path / "a.gguf", gpt2_keys(16) | {"gpt2.attention.head_count_kv": 3}, tensors)
    with pytest.raises(ValueError, match=r"gpt2\.attention\.head_count_kv: 3, and GPT-2 has as many as heads, 6"):
        load(path, tokenizer=False)


def test_a_file_without_tokens_has_no_tokenizer(tmp_path):
    keys = LLAMA | {key: value for key, value in TOKENIZER.items() if key != "tokenizer.ggml.tokens"}
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.tokens: the file has none"):
        load(write_gguf(tmp_path / "a.gguf", keys, llama_tensors(llama())))


def test_factors_that_are_not_positive_are_refused(tmp_path):
    tensors = llama_tensors(llama()) | {"rope_freqs.weight": np.array([1, 0, 1, 1], dtype=np.float32)}
    with pytest.raises(ValueError, match=r"rope_freqs\.weight holds numbers that are not positive"):
        load(write_gguf(tmp_path / "a.gguf", LLAMA, tensors), tokenizer=False)


def test_a_file_that_is_empty_cut_or_another_is_named(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", LLAMA, llama_tensors(llama()))
    whole = path.read_bytes()
    for content, says in [
        (b"", "it is empty"),
        (b"GGML" + whole[4:], "it does not begin with GGUF"),
        (whole[:4] + b"\x09" + whole[5:], "it is of version 9"),
        (whole[:300], "it ends within|requires a buffer"),
        (whole[:-40], "it ends before the tensor"),
    ]:
        path.write_bytes(content)
        for read in (load, check_files):
            with pytest.raises(ValueError, match=rf"a\.gguf: cannot be read as GGUF \(.*({says})"):
                read(path, tokenizer=False)


def packed(form, *numbers):
    return struct.pack(f"<{form}", *numbers)


def text(words):
    return packed("Q", len(words)) + words.encode()


def head(keys=(), tensors=(), count=None):
    """The head of a file of version 3: names and contents of keys, names and shapes of tensors of float32."""
    content = b"GGUF" + packed("IQQ", 3, len(tensors), len(keys) if count is None else count)
    content += b"".join(text(name) + value for name, value in keys)
    return content + b"".join(
        text(name) + packed(f"I{len(shape)}QIQ", len(shape), *shape, kind, 0) for name, shape, kind in tensors
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (head([("a", packed("IB", 0, 1))] * 2), "the key a is there twice"),
        (head([("general.alignment", packed("II", 4, 0))]), "general.alignment is 0"),
        (head([("general.alignment", packed("If", 6, 32.0))]), "general.alignment is 32.0"),
        (head([], [("a", (2,), 0)] * 2), "the tensor a is there twice"),
        (head([], [("a", (), 0)]), r"the tensor a of shape \(\) cannot be of type F32"),
        (head([], [("a", (40, 2), 2)]), r"the tensor a of shape \(2, 40\) cannot be of type Q4_0, with blocks of 32"),
        (head([("a", packed("I", 13))]), "the key a is of type 13, which there is not"),
        (head([("a", packed("IIQ", 9, 4, 1000))]), "it ends within the key a"),
        (head([("a", packed("IIQ", 9, 9, 1))]), "the key a is an array of type 9, which is not read"),
        (head(count=1) + packed("Q", 1000), "it ends within a text"),
    ],
)
def test_a_head_that_cannot_be_is_refused(tmp_path, content, says):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.gguf: cannot be read as GGUF \({says}"):
        gguf_header(tmp_path / "a.gguf")


def test_the_head_of_these_tests_is_read(tmp_path):
    (tmp_path / "a.gguf").write_bytes(head([("b", packed("IIQI", 9, 4, 1, 7))], [("a", (2,), 0)]) + bytes(100))
    header = gguf_header(tmp_path / "a.gguf")
    assert header.keys == {"b": [7]} and header.tensors == {"a": ("F32", (2,))}


def test_all_types_that_are_read_are_those_of_the_gguf_package(tmp_path):
    import gguf

    made = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"}
    matrix = seeded(0).standard_normal((3, 512), dtype=np.float32)
    for number, (name, block, size) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, size)
        if name in made:
            rows = (
                gguf.quantize(matrix, kind)
                if name not in ("F32", "F16")
                else matrix.astype(name.lower().replace("f", "float"))
            )
        else:  # the package reads it, and does not write it
            rows = seeded(1).integers(0, 120, (3, 512 // block * size), dtype=np.uint8)
        path = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tensor("a", rows, raw_dtype=None if name in ("F32", "F16") else kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        header = gguf_header(path)
        assert header.tensors["a"] == (name, (3, 512))
        with np.errstate(all="ignore"):
            expected = gguf.dequantize(rows, kind)
            np.testing.assert_array_equal(gguf_tensor(header, path, "a"), expected)
    writer = gguf.GGUFWriter(tmp_path / "I32.gguf", "llama")
    writer.add_tensor("a", np.ones((2, 4), dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="the tensor a is of type 26; read are F32"):
        gguf_header(tmp_path / "I32.gguf")


def test_a_header_is_that_of_the_gguf_package(tmp_path):
    import gguf

    path = write_gguf(tmp_path / "a.gguf", LLAMA | TOKENIZER, llama_tensors(llama()))
    header, reader = gguf_header(path), gguf.GGUFReader(path)
    assert header.tensors.keys() == {tensor.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        assert header.places[tensor.name] == (tensor.data_offset, tensor.n_bytes)
    for key, value in header.keys.items():
        contents = reader.fields[key].contents()
        assert value == (len(contents) if key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges") else contents), key


def with_tokenizer(tmp_path, **changes):
    keys = LLAMA | TOKENIZER | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    words = len(keys["tokenizer.ggml.tokens"])
    module = llama(vocab_size=words)
    return write_gguf(tmp_path / "a.gguf", keys | {"llama.vocab_size": words}, llama_tensors(module))


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("split", "digits"),
    [
        ("gpt-2", ["123", "123", "1"]),  # all together; then merged as far as merges go
        ("smollm", ["1", "2", "3", "1", "2", "3", "1"]),
        ("qwen2", ["1", "2", "3", "1", "2", "3", "1"]),
        ("deepseek-r1-qwen", ["1", "2", "3", "1", "2", "3", "1"]),
        ("llama-bpe", ["123", "123", "1"]),
    ],
)
def test_texts_are_split_as_the_file_says(tmp_path, split, digits):
    tokenizer = load(with_tokenizer(tmp_path, pre=split)).tokenizer
    assert pieces(tokenizer, "ab 1231231") == ["ab", "Ġ", *digits]


def test_a_word_of_the_vocabulary_is_taken_whole_with_llama_3s_splits(tmp_path):
    merges = ["1 2"]  # "123" cannot be reached by merges
    for split, expected in (("llama-bpe", ["123"]), ("gpt-2", ["12", "3"])):
        tokenizer = load(with_tokenizer(tmp_path, pre=split, merges=merges)).tokenizer
        assert pieces(tokenizer, "123") == expected


@pytest.mark.parametrize("split", ["deepseek-llm", "deepseek-coder", "refact", "default", "tekken", "made-up", None])
def test_a_split_that_is_not_known_is_refused(tmp_path, split):
    path = with_tokenizer(tmp_path, pre=split)
    for read in (load, check_files):
        with pytest.raises(ValueError, match=r"a\.gguf: tokenizer\.ggml\.pre: (it is absent|'.*' is not known)"):
            read(path)
    assert load(path, tokenizer=False).tokenizer is None


SENTENCES = {
    "model": "llama",
    "pre": "default",
    "tokens": ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"],
    "scores": [0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -0.5],
    "token_type": [2, 3, 3, 1, 1, 1, 1, 1],
    "merges": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}


@pytest.mark.parametrize("prefix", [True, False, None])
def test_sentence_pieces_begin_with_a_space_where_the_file_says_so(tmp_path, prefix):
    tokenizer = load(with_tokenizer(tmp_path, **SENTENCES, add_space_prefix=prefix)).tokenizer
    assert pieces(tokenizer, "ab ab") == ["ab" if prefix is False else "▁ab", "▁ab"]
    assert tokenizer.decode(tokenizer("ab ab", add_special_tokens=False)["input_ids"]) == "ab ab"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model: 'bert'"),
        ({"model": None}, "tokenizer.ggml.model: None"),
        (SENTENCES | {"pre": "llama-bpe"}, "tokenizer.ggml.pre: 'llama-bpe' with the tokenizer 'llama'"),
        (SENTENCES | {"remove_extra_whitespaces": True}, "tokenizer.ggml.remove_extra_whitespaces: true"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        load(with_tokenizer(tmp_path, **changes))


def test_the_splits_are_those_of_the_models_themselves():
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf import gguf_tokenizer_mapping as mapping
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    published = (  # of Llama 3, https://github.com/meta-llama/llama3/blob/main/llama/tokenizer.py
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    for name in ("llama-bpe", "llama3", "llama-v3"):
        assert mapping.GGUF_PRE_TOKENIZER_SPLITS[name] == published
    for name in ("qwen2", "deepseek-r1-qwen"):
        assert mapping.GGUF_PRE_TOKENIZER_SPLITS[name] == PRETOKENIZE_REGEX
    assert "gpt-2" not in mapping.GGUF_PRE_TOKENIZER_SPLITS  # the one of byte pairs that is there without a name
    text = "it's  1234 x"
    assert [piece for piece, _ in pre_tokenizers.Split(Regex(published), "isolated").pre_tokenize_str(text)] == [
        *("it", "'s", " ", " ", "123", "4", " x")
    ]


def test_no_network_or_torch_is_needed_to_check(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", LLAMA | TOKENIZER | {"llama.vocab_size": 31}, llama_tensors(llama()))
    found = check_files(os.fspath(path))
    assert (found.layout.layers, found.layout.context, found.layout.width, found.layout.vocabulary) == (2, 64, 32, 31)
