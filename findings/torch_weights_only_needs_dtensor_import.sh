#!/usr/bin/env bash
# torch 2.13.0: torch.load(weights_only=True) loads a state dict of fully_shard (FSDP2) or refuses it by whether something
# else has imported torch.distributed.tensor before: the same file, the same call, in the same version.
#
# Expected: what torch.save writes of a module that torch itself sharded loads with weights_only=True, or never does.
# Seen: it is refused ("Unsupported global: torch.distributed.tensor.DTensor"), with the advice to allow the class; after
#   `import torch.distributed.tensor`, which takes a second or two, it loads, with nothing allowed.
#
# The script installs a public package in a temporary folder, shards a small layer over one process, and ends with 1 if
# the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/save.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

store = dist.FileStore(f"{sys.argv[1]}/store", 1)
dist.init_process_group("gloo", store=store, rank=0, world_size=1)
layer = torch.nn.Linear(4, 4)
fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
torch.save(layer.state_dict(), f"{sys.argv[1]}/state.pt")
print("written:", {name: type(value).__name__ for name, value in layer.state_dict().items()})
dist.destroy_process_group()
PYTHON
cat > "$folder/show.py" <<'PYTHON'
import importlib
import sys

import torch

print(f"torch {torch.__version__}")


def attempt():
    try:
        state = torch.load(f"{sys.argv[1]}/state.pt", weights_only=True)
    except Exception as error:
        return f"refused: {type(error).__name__}: " + next(
            (line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), str(error)
        ).strip()
    return f"loads: {sorted(state)}"


before = attempt()
print("before the import:", before)
importlib.import_module("torch.distributed.tensor")
after = attempt()
print("after the import: ", after)
sys.exit(0 if before.startswith("refused") and "DTensor" in before and after.startswith("loads") else 1)
PYTHON
"$folder/venv/bin/python" "$folder/save.py" "$folder"
"$folder/venv/bin/python" "$folder/show.py" "$folder"
