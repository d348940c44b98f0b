"""Why attention outputs of a language model are low-dimensional: what W_O makes of z, and what others would."""

from typing import Any

import numpy as np
import pandas as pd

from learning_geometry import failures
from learning_geometry.geometry.activation_ranks import Ranks, isotropic_ranks
from learning_geometry.geometry.moments import Moments, covariance, restricted, varies
from learning_geometry.geometry.output_projection import ProjectionRanks, projection_ranks, share_of_drop
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models.activation_ranks import measured_layers
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy

NEEDS = {"reads": ["texts", "model"]}

SETTINGS = {
    "every_layer": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Measure the layers whose number is a multiple of this, and the last.",
    },
    "draws": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "Random W_O of each kind, layer and text; at a width of some hundreds they hardly differ.",
    },
}

COUNTERFACTUALS = ("white_input", "random_reading", "random_writing", "orthogonal_writing")
RANDOM = ("random_reading", "random_writing", "random_weight")
KINDS = ("directions_99", "effective_rank")
"""Of the ranks, in the order of ``geometry.activation_ranks.Ranks``; the third is not measured."""


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    """Measure the ranks of z, of the attention output, and of what counterfactual W_O make of the same z.

    z is taken in the gauge in which each head's z is white, since its rank in any other means nothing
    (``geometry.output_projection``, which defines the counterfactuals). Ranks are shares of the directions that there
    can be: of all heads' widths together for z, of the smaller of that and the model's width for the output.

    The output is W_O z, attention.projected: the question is what W_O does. Where a norm stands between W_O and the
    residual stream (``LanguageModel.between``), what attention adds is another vector, and ``activation_ranks`` has its
    ranks; a factor changes none. Rows keep the part ``attention.output`` in all models.

    Rows, data = text, n = vectors, all tokens but the first of each window:

    - ``white_z_directions_99`` and ``white_z_effective_rank``, part ``layers.<l>.attention.z``; null ``isotropic``:
      one sample of as many Gaussian vectors;
    - ``projected_directions_99`` and ``projected_effective_rank``, part ``layers.<l>.attention.output``; as nulls the
      same of each counterfactual, means over n random W_O: ``white_input`` and ``orthogonal_writing``, which are exact
      (n = 1), ``random_reading`` and ``random_writing``; and null ``random_weight``, of Gaussian W_O of the same shape;
    - ``drop_explained`` (of the directions) and ``drop_explained_effective_rank``, part
      ``layers.<l>.<counterfactual>``: share of the drop from white z to output that the counterfactual undoes, 0 if it
      changes nothing, negative if the rank is lower still. Causes are not exclusive: shares need not add up to 1.

    A z that is the same at every token, to the rounding of float32, has no rank, and neither has what W_O makes of it,
    nor that of a W_O that reads nothing that varies; and where the rank does not drop there is nothing to explain. Of
    each there is one row ``not_measured`` instead, and no other row counts it. A single head whose z is the same at
    every token counts as a z of zeros.

    ``orthogonal_writing`` has no rows where all heads together are wider than the model, which has no room for it, and
    layers have none whose moments are not summed (``text.moment_layers``).
    """
    model = run.load()
    sizes, rows = model.sizes, list[dict[str, Any]]()
    roomy = sizes.heads * sizes.head_width <= sizes.width
    counterfactuals = [name for name in COUNTERFACTUALS if roomy or name != "orthogonal_writing"]
    for text in run.texts:
        summed = run.moment_names(text)
        for layer in measured_layers(sizes.layers, settings["every_layer"]):
            if f"layers.{layer}.attention.z" not in summed:
                continue
            of_z = run.moments(text, f"layers.{layer}.attention.z")
            weight = model.layer_weights(layer).output.double().cpu().numpy()
            parts = [f"layers.{layer}.{part}" for part in ("attention.z", "attention.output", *counterfactuals)]
            if not varies(of_z):
                rows += [failures.row(part, "no projection, as z is the same at every token", text) for part in parts]
                continue
            measured = projection_ranks(
                covariance(of_varying_heads(of_z, sizes.heads)),
                weight,
                sizes.heads,
                settings["draws"],
                seeded("output_projection", text, layer),
            )
            null = seeded("output_projection", "isotropic", text, layer)
            isotropic = isotropic_ranks(of_z.n, len(of_z.mean), 1, null)[0]
            here = {"step": 0, "data": text, "n": of_z.n}
            for place, kind in enumerate(KINDS):
                row = here | {"part": f"layers.{layer}.attention.z", "quantity": f"white_z_{kind}"}
                rows.append(row | {"value": measured.z[place]})
                rows.append(row | {"null": "isotropic", "value": isotropic[place], "n": 1})
                if np.isnan(measured.output[place]):
                    continue
                row = here | {"part": f"layers.{layer}.attention.output", "quantity": f"projected_{kind}"}
                rows.append(row | {"value": measured.output[place]})
                for name in (*counterfactuals, "random_weight"):
                    draws = settings["draws"] if name in RANDOM else 1
                    rows.append(row | {"null": name, "value": getattr(measured, name)[place], "n": draws})
            if np.isnan(measured.output.directions):
                rows += [failures.row(part, "no projection, as W_O reads nothing of z", text) for part in parts[1:]]
                continue
            for name in counterfactuals:
                rows += _drop_rows(here | {"part": f"layers.{layer}.{name}"}, measured, getattr(measured, name))
    return tidy(rows, run.experiment, 0)


def of_varying_heads(of_z: Moments, heads: int) -> Moments:
    """Return the moments of z with those of heads that are the same at every token as exact zeros.

    Whitening would make unit variances of their rounding.
    """
    scatter, width = of_z.scatter.copy(), len(of_z.mean) // heads
    for start in range(0, len(of_z.mean), width):
        of_head = np.zeros(len(of_z.mean), bool)
        of_head[start : start + width] = True
        if not varies(restricted(of_z, of_head)):
            scatter[of_head] = scatter[:, of_head] = 0.0
    return of_z._replace(scatter=scatter)


def _drop_rows(here: dict[str, Any], measured: ProjectionRanks, counterfactual: Ranks) -> list[dict[str, Any]]:
    """Rows of the share of the drop that a counterfactual undoes, or why there is none."""
    shares, rows = share_of_drop(measured, counterfactual), list[dict[str, Any]]()
    for quantity, share in (
        ("drop_explained", shares.directions),
        ("drop_explained_effective_rank", shares.effective_rank),
    ):
        if np.isnan(share):
            reason = f"no {quantity}, as the rank does not drop"
            rows.append(failures.row(here["part"], reason, here["data"]))
        else:
            rows.append(here | {"quantity": quantity, "value": share})
    return rows
