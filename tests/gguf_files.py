"""GGUF files of tiny models, as llama.cpp's converter writes them, with the keys and tensors that a test changes."""

import numpy as np

CONFIG = {
    "vocab_size": 31,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
"""The tiny Llama of the tests, as Hugging Face configures it."""

LLAMA = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 8,
    "llama.vocab_size": 31,
}
"""Keys of the model that ``tests.models.language.test_loading.tiny`` makes."""

WORDS = ["Ġ", "a", "b", "1", "2", "3", ".", "ab", "Ġa", "12", "123", "<|end|>"]
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.token_type": [1] * (len(WORDS) - 1) + [3],
    "tokenizer.ggml.merges": ["a b", "Ġ a", "1 2", "12 3"],
    "tokenizer.ggml.eos_token_id": len(WORDS) - 1,
}
"""A tokenizer of byte pairs in which digits show how a text was split."""


def llama_tensors(module):
    """Tensors of a Llama, of which the halves of each head are interleaved in queries and keys, or of a Qwen2."""
    import gguf

    config = module.config
    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[config.model_type]
    names, found = gguf.get_tensor_name_map(architecture, config.num_hidden_layers), {}
    for name, parameter in module.named_parameters():
        weight = parameter.detach().numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name and config.model_type == "llama":
                weight = weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
        found[names.get_name(name, (".weight", ".bias"))] = np.ascontiguousarray(weight)
    return found


def gpt2_tensors(module):
    """Tensors of a GPT-2: linear maps with the output dimension first."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, module.config.n_layer)
    found = {}
    for name, parameter in module.named_parameters():
        weight = parameter.detach().numpy()
        if any(f"{part}.weight" in name for part in ("c_attn", "c_proj", "c_fc")):
            weight = weight.T
        found[names.get_name(name, (".weight", ".bias"))] = np.ascontiguousarray(weight)
    return found


def write_gguf(path, keys, tensors, types=None):
    """Write a file with these keys and tensors; keys of None are left out."""
    import gguf

    writer = gguf.GGUFWriter(path, keys["general.architecture"])
    for key, value in keys.items():
        if key == "general.architecture" or value is None:
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](key, value)
    for name, tensor in tensors.items():
        kind = (types or {}).get(name)
        if kind is not None:
            tensor = gguf.quantize(tensor, kind)
        writer.add_tensor(name, tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
