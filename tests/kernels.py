"""The kernels that products and sums run on, and a second run of the tests that compute, on others.

OpenBLAS (in NumPy and in SciPy), MKL and ATen (in PyTorch) and NumPy itself choose their code by the processor, and
each code rounds in an order of its own. ``python -m tests.kernels`` runs the tests that compute on what this processor
would not choose; arguments go to pytest.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import scipy.linalg  # noqa: F401  loads SciPy's OpenBLAS
import torch
from threadpoolctl import threadpool_info

REPOSITORY = Path(__file__).resolve().parents[1]

COMPUTING = ["claims", "dictionaries", "geometry", "measurements", "models", "sources", "tables", "training"]
"""Folders of tests whose outcome may hang on the last digits; the examples in ``src`` come with them."""

NOT_COMPUTING = ["figures", "planning", "tasks", "workflow"]
"""Folders of tests of drawings, of what is planned, of integers, and of whole workflows, which take longest and compare
with themselves."""

AVX2, AVX512 = "avx2", "avx512f"


def in_use():
    """Kernel that each library of this process has loaded, by the library's name."""
    found = {}
    for library in threadpool_info():
        if library["user_api"] == "blas":
            owner = "SciPy" if "scipy.libs" in library["filepath"] else "NumPy"
            found[f"{owner}'s {library['internal_api']}"] = library.get("architecture", library["version"])
    found["ATen"] = torch.backends.cpu.get_cpu_capability()
    # MKL does not say what it chose
    found["MKL"] = os.environ.get("MKL_ENABLE_INSTRUCTIONS", "its own choice")
    found["NumPy's loops"] = [*loops("baseline"), *loops("found")][-1]
    return found


def loops(which):
    """Instruction sets of NumPy's own loops: its ``baseline``, or what it ``found`` on this processor besides."""
    return np.show_config(mode="dicts")["SIMD Extensions"].get(which, [])


def described(kernels):
    """One line of what :func:`in_use` found."""
    return ", ".join(f"{library} {kernel}" for library, kernel in kernels.items())


def features():
    """Flags of the processor; none where the system does not list them."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())


def others(flags, here, found):
    """Environment variables under which the libraries choose other kernels that this processor has, too.

    Args:
        flags: of the processor.
        here: of :func:`in_use`.
        found: instruction sets of NumPy's loops that this processor has.

    Returns:
        None for a processor of which no second set is known.
    """
    if AVX2 not in flags:
        return None
    known = ["Haswell", "SkylakeX"] if AVX512 in flags else ["Haswell", "Zen"]
    changed = {
        "OPENBLAS_CORETYPE": next(name for name in known if name != here.get("NumPy's openblas")),
        # its sums with AVX2 and with AVX-512 have the same bits
        "ATEN_CPU_CAPABILITY": "avx2" if here["ATen"] == "DEFAULT" else "default",
    }
    if AVX512 in flags:
        changed["MKL_ENABLE_INSTRUCTIONS"] = "AVX512" if here["MKL"] == "AVX2" else "AVX2"
        changed["NPY_DISABLE_CPU_FEATURES"] = " ".join(
            name for name in found if name.startswith("AVX512") or name == "X86_V4"
        )
    return {name: value for name, value in changed.items() if value}


CHANGES = {
    "OPENBLAS_CORETYPE": ("NumPy's openblas", "SciPy's openblas"),
    "ATEN_CPU_CAPABILITY": ("ATen",),
    "MKL_ENABLE_INSTRUCTIONS": ("MKL",),
    "NPY_DISABLE_CPU_FEATURES": ("NumPy's loops",),
}
"""Environment variable -> the libraries that must have loaded something else."""


def main(arguments):
    """Run the tests that compute on other kernels; the exit status is pytest's, or 1 if a kernel did not change."""
    here = in_use()
    print(f"kernels of `make test`: {described(here)}", flush=True)
    changed = others(features(), here, loops("found"))
    if changed is None:
        print("no second set of kernels is known for this processor: the tests that compute are not run again")
        return 0
    environment = os.environ | changed
    program = [sys.executable, "-c", "import json; from tests.kernels import in_use; print(json.dumps(in_use()))"]
    loaded = json.loads(subprocess.run(program, cwd=REPOSITORY, env=environment, check=True, stdout=-1).stdout)
    print(f"kernels of this run:    {described(loaded)}", flush=True)
    same = [name for variable in changed for name in CHANGES[variable] if name in here and loaded[name] == here[name]]
    if same:
        print(f"{', '.join(same)}: not changed by {changed}; correct `others` in tests/kernels.py", file=sys.stderr)
        return 1
    tests = [*(f"tests/{folder}" for folder in COMPUTING), "src"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *tests], cwd=REPOSITORY, env=environment
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
