"""The variance spectrum of 400 snapshots of 300,000 parameters, against scikit-learn's PCA."""

import subprocess
import sys
from functools import cache

import numpy as np
from sklearn.decomposition import PCA

from benchmarks._memory import peak
from benchmarks._timing import Case, Count
from learning_geometry.geometry.trajectories import inner_products, variances

SHAPE = (400, 300_000)
SMALL = (20, 500)
TOLERANCE = 1e-3
"""Relative difference of variances; scikit-learn computes in the data's float32."""
FEW = 10
"""Components that are asked of the randomised PCA."""
PEERS = {"pca": "scikit-learn's PCA", "randomised": f"scikit-learn's randomised PCA, {FEW} components"}


def cases(small: bool) -> list[Case | Count]:
    """Return the cases on 400 x 300,000 numbers, or on 20 x 500."""
    snapshots = walk(SMALL if small else SHAPE)
    values: dict[str, np.ndarray] = {}

    def timed(side: str) -> None:
        values[side] = SIDES[side](snapshots)
        check(values)

    name = "trajectory pca"
    all_cases: list[Case | Count] = [
        Case(name, peer, lambda: timed("ours"), lambda side=side: timed(side), parts=1) for side, peer in PEERS.items()
    ]
    for side, peer in PEERS.items():
        peaks = [lambda each=each: peak_memory(each, small) for each in ("ours", side)]
        all_cases.append(Count(f"{name}, peak memory", peer, *peaks, "MB"))
    return all_cases


def walk(shape: tuple[int, int]) -> np.ndarray:
    """Return a random walk far from the origin, in float32 as checkpoints are."""
    generator = np.random.default_rng(0)
    snapshots = np.empty(shape, dtype=np.float32)
    snapshots[0] = generator.standard_normal(shape[1], dtype=np.float32)
    for t in range(1, len(snapshots)):
        snapshots[t] = snapshots[t - 1] + 0.01 * generator.standard_normal(shape[1], dtype=np.float32)
    return snapshots


def check(values: dict[str, np.ndarray]) -> None:
    """Raise ArithmeticError if a side's variances are not ours, as many as it has."""
    for side, side_variances in values.items():
        if side == "ours" or "ours" not in values:
            continue
        difference = float(np.max(np.abs(side_variances / values["ours"][: len(side_variances)] - 1)))
        print(f"trajectory pca: {side} within {difference:.1e} of our variances", file=sys.stderr)
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"{side}: its variances {side_variances} differ from ours {values['ours']}")


def ours(snapshots: np.ndarray) -> np.ndarray:
    return variances(inner_products([snapshots]).displacements)


def pca(snapshots: np.ndarray) -> np.ndarray:
    # the last of as many components as snapshots is zero
    return PCA().fit(snapshots).explained_variance_[:-1]


def randomised(snapshots: np.ndarray) -> np.ndarray:
    return PCA(FEW, svd_solver="randomized", random_state=0).fit(snapshots).explained_variance_


SIDES = {"ours": ours, "pca": pca, "randomised": randomised}


@cache
def peak_memory(side: str, small: bool) -> float:
    """Return by how much one side raises the peak memory (MB) of a process of its own that has the snapshots."""
    command = [sys.executable, "-m", "benchmarks.trajectory_pca", side, str(int(small))]
    return float(subprocess.check_output(command, text=True).split()[-1])


if __name__ == "__main__":
    chosen = walk(SMALL if sys.argv[2] == "1" else SHAPE)
    # load what the first call loads
    SIDES[sys.argv[1]](chosen[:20, :500])
    before = peak()
    SIDES[sys.argv[1]](chosen)
    # never 0: a small case may fit into what start-up left
    print(max(peak() - before, 1.0))
