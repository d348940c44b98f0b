#!/usr/bin/env bash
# transformers 5.24.0: Falcon with ALiBi computes other logits with eager attention than with scaled_dot_product_attention, by far
# more than rounding: the eager path adds the position bias to the scores twice, once within the mask.
#
# Expected: attn_implementation chooses a kernel; logits are the same but for rounding, as they are for the same model without ALiBi.
# Seen: without ALiBi both agree to 1e-6 of the largest logit; with alibi=True they differ by some hundredth to a tenth of it. Asking
#   for output_attentions=True falls back to the eager path and so changes the logits too.
#
# The script installs public packages in a temporary folder, prints the differences, and ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers

print("transformers", transformers.__version__, "torch", torch.__version__)
SIZES = dict(vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_hidden_size=64)
SIZES |= dict(new_decoder_architecture=False, multi_query=False, parallel_attn=False, bias=True)
tokens = torch.arange(40)[None]


def difference(alibi):
    first, second = (
        transformers.AutoModelForCausalLM.from_config(
            transformers.FalconConfig(**SIZES, alibi=alibi), attn_implementation=kernel
        ).eval()
        for kernel in ("sdpa", "eager")
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_(std=0.3)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        one, other = first(tokens).logits, second(tokens).logits
    found = float((one - other).abs().max() / one.abs().max())
    print(f"alibi={alibi}: logits of eager and sdpa differ by {found:.1e} of the largest")
    return found


without, with_alibi = difference(False), difference(True)
if without > 1e-5 or with_alibi < 1e-3:
    print("changed: both kernels now compute the same, or differ without ALiBi as well")
    sys.exit(1)
PYTHON
