#!/usr/bin/env bash
# scipy 1.17.1: the BCa interval of a mean changes with the unit of the data. The same resamples of the same values over ten
# give an interval that is not a tenth of the first, by far more than rounding.
#
# Expected: stats.bootstrap(method="BCa") of a mean is equivariant: data / 10 have the interval / 10 (Efron 1987 states that
#   BCa intervals respect transformations), for one seed to within rounding.
# Seen: the bias correction counts resamples whose mean equals the data's mean by ==, as half. Means of rounded numbers that
#   are equal on paper differ in the last bit, in one unit and not in another; with tied data that is many resamples, and
#   both ends of the interval move.
#
# The script installs public packages in a temporary folder, prints the intervals, and ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import scipy
from scipy import stats

print("scipy", scipy.__version__, "numpy", np.__version__)
counts = np.array([0, 0, 1, 1, 2, 3, 1, 2, 0, 4, 1, 2], dtype=float)
ends = {}
for unit in (1.0, 0.1, 0.01):
    seeded = np.random.default_rng(0)
    found = stats.bootstrap((counts * unit,), np.mean, method="BCa", rng=seeded, n_resamples=999).confidence_interval
    ends[unit] = np.array([found.low, found.high]) / unit
    print(f"data times {unit}: [{ends[unit][0]:.4f}, {ends[unit][1]:.4f}] in units of the data")
largest = max(np.abs(ends[unit] - ends[1.0]).max() for unit in ends)
print(f"largest difference {largest:.4f}, of a standard error of {counts.std(ddof=1) / np.sqrt(len(counts)):.4f}")
if largest < 0.01:
    print("changed: the interval no longer depends on the unit")
    sys.exit(1)
PYTHON
