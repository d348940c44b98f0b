#!/usr/bin/env bash
# transformers 5.24.0: the output matrix of GPTNeoXForCausalLM has one name in the model and another in the files that
# save_pretrained writes. Whoever compares a state_dict() with a checkpoint by names misses it in both.
#
# Expected: the names of model.safetensors are those of the model's state_dict(), less tied copies; nothing is tied here.
# Seen: `lm_head.weight` in the state_dict, `embed_out.weight` in the file; loading renames it without a word. All other
#   names agree. A file with the model's own name loads too.
#
# The script installs public packages in a temporary folder, makes a model of random weights, and ends with 1 if the
# behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 safetensors==0.8.0
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

print(f"transformers {transformers.__version__}, torch {torch.__version__}")
transformers.logging.set_verbosity_error()
torch.manual_seed(0)
folder = sys.argv[1]
config = GPTNeoXConfig(
    vocab_size=16, hidden_size=8, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=False
)
model = GPTNeoXForCausalLM(config)
model.save_pretrained(folder)
written = load_file(f"{folder}/model.safetensors")
in_model, in_file = set(model.state_dict()), set(written)
print("in the model alone:", sorted(in_model - in_file))
print("in the file alone: ", sorted(in_file - in_model))
loaded = GPTNeoXForCausalLM.from_pretrained(folder).lm_head.weight
same = torch.equal(loaded, model.lm_head.weight)
print("the file loads with the same matrix:", same)
written["lm_head.weight"] = written.pop("embed_out.weight")
save_file(written, f"{folder}/model.safetensors", {"format": "pt"})
renamed = torch.equal(GPTNeoXForCausalLM.from_pretrained(folder).lm_head.weight, model.lm_head.weight)
print("with the model's own name it loads too:", renamed)
as_described = (
    in_model - in_file == {"lm_head.weight"} and in_file - in_model == {"embed_out.weight"} and same and renamed
)
sys.exit(0 if as_described else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder/model"
