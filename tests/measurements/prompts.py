"""States of contrastive prompts that tests plant, as measurements of language models are given captured ones."""

import numpy as np

from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.models.language import Norm


class PlantedRun(LanguageRun):
    def prompt_names(self):
        return list(self.settings["trained"])

    def prompt_states(self, weights, name):
        return self.settings[weights][name]

    def norm(self):
        return Norm("root_mean_square", 1e-12)

    @property
    def contrasts(self):
        return self.settings["contrasts"]


def planted_run(trained, pairs, untrained=None):
    """``trained`` and ``untrained`` map names to states; one contrast for each number of pairs in ``pairs``."""
    ends = np.cumsum([0, *pairs.values()]) * 2
    contrasts = {
        name: (slice(start, start + count), slice(start + count, start + 2 * count))
        for start, (name, count) in zip(ends[:-1].tolist(), pairs.items(), strict=True)
    }
    settings = {"trained": trained, "untrained": untrained or trained, "contrasts": contrasts}
    return PlantedRun("planted", settings, {}, {})


def walk(generator, prompts, layers=6, width=20, noise=0.3, shift=lambda layer: 0.0):
    """States that start at one embedding and take one step a layer in common and one each.

    ``shift`` of a layer is added to a coordinate of the second half of the prompts at its residual_mid.
    """
    state = np.repeat(generator.standard_normal((1, width)), prompts, axis=0)
    states = {}
    for layer in range(layers):
        for part in ("residual_pre", "residual_mid"):
            here = state.copy()
            if part == "residual_mid":
                here[prompts // 2 :, 0] += shift(layer)
            states[f"layers.{layer}.{part}"] = here.astype(np.float32)
            state = state + generator.standard_normal(width) + noise * generator.standard_normal((prompts, width))
    states[f"layers.{layers - 1}.residual_post"] = state.astype(np.float32)
    return states
