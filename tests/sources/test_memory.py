"""What reading takes: one tensor in memory beside the file's map, and of the file what is asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import learning_geometry

TENSORS, NUMBERS = 25, 10**6

READ = """
import json, sys
from learning_geometry.sources.readers import open_checkpoint

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

with open_checkpoint(sys.argv[1]) as opened:  # what is imported is there already
    opened.read("tensor")
start, peaks = peak(), []
with open_checkpoint(sys.argv[2]) as opened:
    for name in opened.tensors:
        last = opened.read(name).sum()
        peaks.append(peak() - start)
print(json.dumps([peaks[0], peaks[-1]]))
"""


def write(path, tensors, dtype):
    state = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "optimizer": {}}, path, _use_new_zipfile_serialization=path.suffix == ".pt")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process is read from Linux's /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "of_file", "of_first"), [("safetensors", 0.3, 0.15), ("pt", 1.3, 0.3), ("old", 1.3, 1.3)]
)
def test_reading_takes_a_tensor_and_the_file_once_at_most(tmp_path, dtype, kind, of_file, of_first):
    write(tmp_path / f"small.{kind}", {"tensor": torch.zeros(2)}, dtype)
    path = tmp_path / f"large.{kind}"
    write(path, {f"layers.{number}": torch.randn(NUMBERS) for number in range(TENSORS)}, dtype)
    # left to itself glibc keeps up to 32 MB of what was freed; here all that is large is given back at once
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    plain |= {"MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    environment = plain | {"PYTHONPATH": str(Path(learning_geometry.__file__).parents[1])}
    command = [sys.executable, "-c", READ, str(tmp_path / f"small.{kind}"), str(path)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    first, last = json.loads(process.stdout)
    size = path.stat().st_size
    assert size >= TENSORS * NUMBERS * dtype.itemsize
    assert 0 < first <= last
    assert last / size <= of_file and first / size <= of_first
