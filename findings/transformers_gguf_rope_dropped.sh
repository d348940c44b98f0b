#!/usr/bin/env bash
# transformers 5.24.0 drops rotary scaling of GGUF files without a word: the tensor rope_freqs.weight, which files of
# Llama 3.1 and later hold, and the keys llama.rope.scaling.*.
#
# Expected: frequencies are divided by the factors, or by the factor of linear scaling, as llama.cpp does and as
#   transformers does for the same model in safetensors; or an error.
# Seen: the model loads without an error or warning, with unscaled frequencies.
#
# The script installs public packages in a temporary folder, makes tiny files of random weights, and ends with 1 if the
# behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 gguf==0.19.0 accelerate==1.15.0 numpy
cat > "$folder/show.py" <<'PYTHON'
import math
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

folder = Path(sys.argv[1])
print(f"transformers {transformers.__version__}, gguf 0.19.0, torch {torch.__version__}")

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
CASES = {
    "rope_freqs.weight": {"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3},
    "llama.rope.scaling.type = linear, factor = 4": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
}


def model(rope):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, initializer_range=0.3, rope_parameters=rope,
    )
    return LlamaForCausalLM(config).eval()


def factors(head_width=16, base=10000.0):
    """Frequencies without scaling over those of transformers' own Llama 3 scaling."""
    plain = base ** -(torch.arange(0, head_width, 2) / head_width)
    scaled = model(CASES["rope_freqs.weight"]).model.rotary_emb.inv_freq
    return (plain / scaled).numpy().astype(np.float32)


def write(path, module, case):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(64)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, parameter in module.named_parameters():
        weight = parameter.detach().numpy()
        if "q_proj" in name or "k_proj" in name:
            weight = weight.reshape(4, 2, -1, 64).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(weight))
    if case == "rope_freqs.weight":
        writer.add_tensor("rope_freqs.weight", factors())
    else:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(module):
    with torch.no_grad():
        return module(torch.arange(256)[None] * 7 % 64).logits


transformers.utils.logging.disable_progress_bar()
as_found = True
for number, (case, rope) in enumerate(CASES.items()):
    module = model(rope)
    module.save_pretrained(folder / f"safetensors-{number}")
    write(folder / f"{number}.gguf", module, case)
    expected = logits(module)
    right = logits(LlamaForCausalLM.from_pretrained(folder / f"safetensors-{number}", dtype=torch.float32))
    seen = logits(LlamaForCausalLM.from_pretrained(folder, gguf_file=f"{number}.gguf", dtype=torch.float32))
    plain = logits(model({"rope_type": "default", "rope_theta": 10000.0}))
    off = {name: float((each - expected).norm() / expected.norm()) for name, each in
           {"safetensors": right, "GGUF": seen}.items()}
    same_as_plain = float((seen - plain).norm() / plain.norm())
    print(f"{case}: expected a relative difference of logits below 1e-4")
    print(f"  seen: safetensors {off['safetensors']:.1e}, GGUF {off['GGUF']:.2f}; GGUF to unscaled {same_as_plain:.1e}")
    as_found &= off["safetensors"] < 1e-4 and off["GGUF"] > 0.01 and same_as_plain < 1e-4
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder"
