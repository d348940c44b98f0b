"""Run every benchmark of this folder and write results/benchmarks.csv: ``python -m benchmarks [name ...]``."""

import argparse
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pandas as pd

from benchmarks._timing import COLUMNS, row

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # as the workflow sets them: freed memory is kept, and memory comes in huge pages where the system lends them
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
FOLDER = Path(__file__).parent
OUTPUT = Path("results/benchmarks.csv")


def discover(folder: Path = FOLDER) -> list[str]:
    """Return the names of the benchmarks: the modules of the folder without a leading underscore."""
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def on_demand(name: str) -> bool:
    """Whether a benchmark runs only when it is named, as it takes long."""
    return bool(getattr(import_module(f"benchmarks.{name}"), "ON_DEMAND", False))


def main(names: Iterable[str], rounds: int, output: Path = OUTPUT, small: bool = False) -> None:
    """Time the cases of the named benchmarks, print the table and write it to ``output``."""
    rows = []
    for name in names:
        for case in import_module(f"benchmarks.{name}").cases(small):
            rows.append(row(case, rounds))
            print(f"{case.benchmark}: done", file=sys.stderr)
    table = pd.DataFrame(rows, columns=COLUMNS)
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    # the C library and OpenMP read these once, when a process starts
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], os.environ | ENVIRONMENT)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"which to run, of {', '.join(discover())} (default: all but those that take half an hour)",
    )
    parser.add_argument("--rounds", type=int, default=100, help="timings of each side (default: 100)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(discover()))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(discover())}")
    main(options.names or [name for name in discover() if not on_demand(name)], options.rounds)
