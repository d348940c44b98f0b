"""Why attention outputs of a language model are low-dimensional: what W_O makes of z, and what others would."""

from typing import Any

import pandas as pd

from learning_geometry.geometry.activation_ranks import isotropic_ranks
from learning_geometry.geometry.moments import covariance
from learning_geometry.geometry.output_projection import projection_ranks, share_of_drop
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.language_models.activation_ranks import measured_layers
from learning_geometry.streams import stream
from learning_geometry.tables.tidy import tidy

NEEDS = ("texts", "model")

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

    Rows, data = text, n = vectors, all tokens but the first of each window:

    - ``white_z_directions_99`` and ``white_z_effective_rank``, part ``layers.<l>.attention.z``; null ``isotropic``:
      one sample of as many Gaussian vectors;
    - ``projected_directions_99`` and ``projected_effective_rank``, part ``layers.<l>.attention.output``; as nulls the
      same of each counterfactual, means over n random W_O: ``white_input`` and ``orthogonal_writing``, which are exact
      (n = 1), ``random_reading`` and ``random_writing``; and null ``random_weight``, of Gaussian W_O of the same shape;
    - ``drop_explained`` (of the directions) and ``drop_explained_effective_rank``, part
      ``layers.<l>.<counterfactual>``: share of the drop from white z to output that the counterfactual undoes, 0 if it
      changes nothing, negative if the rank is lower still; NaN where there is no drop. Causes are not exclusive: shares
      need not add up to 1.

    ``orthogonal_writing`` has no rows where all heads together are wider than the model, which has no room for it.
    """
    model = run.load()
    sizes, rows = model.sizes, list[dict[str, Any]]()
    roomy = sizes.heads * sizes.head_width <= sizes.width
    counterfactuals = [name for name in COUNTERFACTUALS if roomy or name != "orthogonal_writing"]
    for text in run.texts:
        for layer in measured_layers(sizes.layers, settings["every_layer"]):
            of_z = run.moments(text, f"layers.{layer}.attention.z")
            weight = model.layer_weights(layer).output.double().cpu().numpy()
            found = projection_ranks(
                covariance(of_z),
                weight,
                sizes.heads,
                settings["draws"],
                stream("output_projection", text, layer),
            )
            null = stream("output_projection", "isotropic", text, layer)
            isotropic = isotropic_ranks(of_z.n, len(of_z.mean), 1, null)[0]
            here = {"step": 0, "data": text, "n": of_z.n}
            for place, kind in enumerate(KINDS):
                row = here | {"part": f"layers.{layer}.attention.z", "quantity": f"white_z_{kind}"}
                rows.append(row | {"value": found.z[place]})
                rows.append(row | {"null": "isotropic", "value": isotropic[place], "n": 1})
                row = here | {"part": f"layers.{layer}.attention.output", "quantity": f"projected_{kind}"}
                rows.append(row | {"value": found.output[place]})
                for name in (*counterfactuals, "random_weight"):
                    draws = settings["draws"] if name in RANDOM else 1
                    rows.append(row | {"null": name, "value": getattr(found, name)[place], "n": draws})
            for name in counterfactuals:
                shares = share_of_drop(found, getattr(found, name))
                row = here | {"part": f"layers.{layer}.{name}"}
                rows.append(row | {"quantity": "drop_explained", "value": shares.directions})
                rows.append(row | {"quantity": "drop_explained_effective_rank", "value": shares.effective_rank})
    return tidy(rows, run.experiment, 0)
