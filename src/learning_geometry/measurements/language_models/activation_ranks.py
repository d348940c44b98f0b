"""How many directions the activations of a language model use: layer by layer, part by part, text by text."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from learning_geometry import failures
from learning_geometry.geometry.activation_ranks import (
    Ranks,
    activation_ranks,
    isotropic_ranks,
    ranks,
    rogue_dimensions,
)
from learning_geometry.geometry.moments import restricted, varies
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import central_range, tidy

NEEDS = {"reads": ["texts"]}

SETTINGS = {
    "every_layer": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Measure the layers whose number is a multiple of this, and the last.",
    },
    "null_draws": {
        "type": "integer",
        "minimum": 2,
        "default": 20,
        "description": "Samples of isotropic vectors.",
    },
}

QUANTITIES = ("directions_99", "effective_rank", "effective_rank_of_variances")
"""Names of the ranks, in the order of ``geometry.activation_ranks.Ranks``."""

WITHOUT_ROGUES = "_without_rogues"

THE_SAME = "no ranks, as it is the same at every token"


def measured_layers(layers: int, every: int) -> list[int]:
    """Return the layers whose number is a multiple of ``every``, and the last.

    >>> measured_layers(6, 2)
    [0, 2, 4, 5]
    """
    return sorted({*range(0, layers, every), layers - 1})


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the ranks of every captured activation of every text, about its mean, as shares of its width.

    Rows, part ``layers.<l>.<part>``, data = text, n = vectors, which are all tokens but the first of each window:

    - ``directions_99`` (principal directions that hold 99 % of the variance), ``effective_rank`` (exponential of the
      entropy of the singular values) and ``effective_rank_of_variances`` (of their squares); index 0: of all vectors;
    - the first two at index N: of the first N vectors of the text alone, up to all of them, which shows whether there
      are enough; of the layers and parts whose spectra were taken on the way;
    - the three with the suffix ``_without_rogues``: as shares of the coordinates that are left without the rogue ones;
    - ``rogue_dimensions``: how many coordinates have a root mean square above 6 times the median's.

    Null ``isotropic``: as many Gaussian vectors of that width, whose coordinates are independent and of equal variance.

    An activation that is the same at every token, to the rounding of float32, has no ranks, as that of a layer that
    writes nothing: of each and every text there is one row ``not_measured`` instead, and no other row counts it. So it
    is where the first vectors are the same, or those without the rogue coordinates.

    There is no interval: neighbouring tokens of a text are no independent sample. Layers whose moments are not summed
    (``text.moment_layers``) have no rows.
    """
    rows: list[dict[str, Any]] = []
    draws = settings["null_draws"]
    layers = measured_layers(run.sizes().layers, settings["every_layer"])

    @cache
    def isotropic(count: int, width: int) -> dict[str, dict[str, Any]]:
        drawn = np.array(isotropic_ranks(count, width, draws, seeded("activation_ranks", "isotropic", count, width)))
        return {kind: central_range(drawn[:, i], "isotropic") for i, kind in enumerate(QUANTITIES)}

    def add(here: dict[str, Any], values: Ranks, count: int, width: int, suffix: str = "", index: int = 0) -> None:
        null = isotropic(count, width)
        for kind, value in zip(QUANTITIES, values, strict=True):
            if index and kind == "effective_rank_of_variances":
                continue
            row = here | {"quantity": f"{kind}{suffix}", "index": index}
            rows.extend([row | {"value": value, "n": count}, row | null[kind]])

    for text in run.texts:
        for name in run.moment_names(text):
            if int(name.split(".")[1]) not in layers:
                continue
            here = {"step": 0, "part": name, "data": text}
            of, spectra = run.moments(text, name), run.spectra(text, name)
            width, rogue = len(of.mean), rogue_dimensions(of)
            if varies(of):
                measured = ranks(spectra[of.n]) if of.n in spectra else activation_ranks(of)
                add(here, measured, of.n, width)
                for count, variances in spectra.items():
                    if variances.any():
                        add(here, ranks(variances), count, width, index=count)
                    else:
                        rows.append(failures.row(name, f"{THE_SAME} of the first {count}", text))
                if spectra and of.n not in spectra:
                    add(here, measured, of.n, width, index=of.n)
                others = restricted(of, ~rogue)
                if not rogue.any():
                    add(here, measured, of.n, width, WITHOUT_ROGUES)
                elif varies(others):
                    add(here, activation_ranks(others), of.n, width - int(rogue.sum()), WITHOUT_ROGUES)
                else:
                    rows.append(failures.row(name, f"{THE_SAME} without the rogue coordinates", text))
            else:
                rows.append(failures.row(name, THE_SAME, text))
            row = here | {"quantity": "rogue_dimensions", "unit": "dimensions"}
            none = {"null": "isotropic", "value": 0.0, "low": 0.0, "high": 0.0}
            rows.extend([row | {"value": float(rogue.sum()), "n": of.n}, row | none])
    return tidy(rows, run.experiment, 0)
