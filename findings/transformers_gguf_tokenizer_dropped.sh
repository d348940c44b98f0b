#!/usr/bin/env bash
# transformers 5.24.0 makes tokenizers of GGUF files that cut texts otherwise than the file says, without a word:
# names in tokenizer.ggml.pre that it does not know are split as GPT-2's, and tokenizer.ggml.add_space_prefix = false
# of sentence pieces is passed over.
#
# Expected: "deepseek-llm" and "smollm" split numbers into single digits before byte pairs are merged, as the models'
#   own tokenizer.json do, and no space is put before a text; or an error or warning.
# Seen: digits are merged with each other, and a text begins with a space.
#
# The script installs public packages in a temporary folder, makes tiny files, and ends with 1 if the behaviour has
# changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 gguf==0.19.0 numpy
cat > "$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

import gguf
import transformers
from transformers import AutoTokenizer

folder = Path(sys.argv[1])
print(f"transformers {transformers.__version__}, gguf 0.19.0")


def tokenizer(name, write):
    path = folder / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return AutoTokenizer.from_pretrained(folder, gguf_file=path.name)


def byte_pairs(pre):
    def write(writer):
        words = ["1", "2", "3", "12", "123", "<end>"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(words)
        writer.add_token_types([1] * 5 + [3])
        writer.add_token_merges(["1 2", "12 3"])
        writer.add_eos_token_id(5)

    return write


def sentence_pieces(writer):
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"])
    writer.add_token_scores([0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -0.5])
    writer.add_token_types([2, 3, 3, 1, 1, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)


CASES = [
    ("smollm", byte_pairs("smollm"), "123", ["1", "2", "3"], ["123"]),
    ("deepseek-llm", byte_pairs("deepseek-llm"), "123", ["1", "2", "3"], ["123"]),
    ("add_space_prefix = false", sentence_pieces, "ab", ["ab"], ["▁ab"]),
]
as_found = True
for name, write, text, expected, found in CASES:
    seen = tokenizer(name.split()[0], write).tokenize(text, add_special_tokens=False)
    print(f"{name}: {text!r} expected {expected}, seen {seen}")
    as_found &= seen == found
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder"
