"""What a measurement of a language model is given: what was captured of it, on disk, and how to load its weights.

Importing this module imports no torch; loading the model does.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int64

from learning_geometry.files import (
    WithoutDigestsError,
    check_folder,
    read_tensor,
    read_tensor_metadata,
    read_tensor_shapes,
)
from learning_geometry.geometry.moments import Moments

if TYPE_CHECKING:
    from learning_geometry.models.language import LanguageModel, ModelSizes, Norm
    from learning_geometry.models.language.cache import Activations

MOMENTS, ACTIVATIONS = "moments.safetensors", "activations"
"""What a captured text holds: moments of all layers, and the activations themselves of some."""

TRAINED, UNTRAINED = WEIGHTS = ("trained", "untrained")


@dataclass(frozen=True)
class LanguageRun:
    """One language model of the config: its settings, and where what was captured of it lies."""

    experiment: str
    settings: dict[str, Any]
    """The sections ``model``, ``texts``, ``text``, ``prompts``, ``chat_template`` and ``prepend_bos`` of the config."""
    texts: dict[str, Path]
    """Name of a text -> folder of what was captured of it."""
    prompts: dict[str, Path]
    """``trained`` or ``untrained`` -> folder of the activations at the last token of every prompt."""
    output: Path | None = None
    """A folder where a measurement may leave files beside its table; None: nowhere."""
    dequantised: Path | None = None
    """What was dequantised of the model's GGUF file; None: nothing, and :meth:`load` does it, or has none to."""
    _loaded: list[str] = field(default_factory=list, repr=False, compare=False)
    """Hashes of the weights that were loaded."""

    def load(self, tokenizer: bool = False) -> "LanguageModel":
        """Load the weights, which takes seconds.

        Raises:
            ValueError: as ``models.language.loading.load``.
        """
        from learning_geometry.models.language.loading import load

        model = load(**self.settings["model"], tokenizer=tokenizer, dequantised=self.dequantised)
        self._loaded.append(model.digest())
        return model

    def weights(self) -> str | None:
        """Return the hash of the weights that were read, by :meth:`load` or when the model was captured; None: of none.

        Raises:
            ValueError: not all were the same.
        """
        read = {f"text {name}": each["weights"] for name, each in self.reading()["texts"].items()}
        read |= {f"prompts, {name} weights": each["weights"] for name, each in self.reading()["prompts"].items()}
        read.pop(f"prompts, {UNTRAINED} weights", None)
        by_digest = {digest: what for what, digest in reversed(read.items())} | dict.fromkeys(self._loaded, "the model")
        if len(by_digest) > 1:
            raise ValueError(
                f"{self.experiment}: {' and '.join(by_digest.values())} are of other weights than each other; delete "
                "what was captured and run again"
            )
        return next(iter(by_digest), None)

    def reading(self) -> dict[str, dict[str, Any]]:
        """Return how what was captured had been read, ``texts`` and ``prompts`` by name; what JSON can hold.

        Of each the hashes of the ``weights`` and of the ``tokens``, and ``reading`` of ``models.language.tokens``.
        """
        keys = ("weights", "tokens", "reading")
        texts = {name: self._moments_metadata(folder) for name, folder in self.texts.items()}
        prompts = {name: _opened(folder).provenance for name, folder in self.prompts.items()}
        return {
            "texts": {name: {key: metadata[key] for key in keys} for name, metadata in texts.items()},
            "prompts": {name: {key: provenance[key] for key in keys} for name, provenance in prompts.items()},
        }

    def sizes(self) -> "ModelSizes":
        """Sizes of the model, as recorded when it was captured.

        Raises:
            ValueError: nothing was captured.
        """
        from learning_geometry.models.language import ModelSizes

        for folder in self.texts.values():
            return ModelSizes(**self._moments_metadata(folder)["sizes"])
        for folder in self.prompts.values():
            return ModelSizes(**_opened(folder).provenance["sizes"])
        raise ValueError(f"{self.experiment}: nothing was captured of it; give it texts or prompts")

    def moment_names(self, text: str) -> list[str]:
        """Names of the activations whose moments over a text there are, in the order of the model."""
        return list(self._moments_metadata(self._text(text))["names"])

    def moments(self, text: str, name: str) -> Moments:
        """Return the moments of an activation over all tokens of a text but the first of each window.

        Raises:
            KeyError: no such text or activation.
        """
        path = self._text(text) / MOMENTS
        mean = read_tensor(path, f"{name}.mean")
        scatter = unpacked(read_tensor(path, f"{name}.scatter"), len(mean))
        return Moments(int(self._moments_metadata(self._text(text))["vectors"]), mean, scatter)

    def spectra(self, text: str, name: str) -> dict[int, Float[np.ndarray, " width"]]:
        """Return the principal variances, times their number, of the first vectors of a text, by how many.

        They were taken of some layers and parts only; of others there are none. Those of all vectors follow from
        :meth:`moments`.

        Raises:
            KeyError: no such text.
        """
        path, counts = self._text(text) / MOMENTS, self._moments_metadata(self._text(text))["counts"]
        if f"{name}.spectra" not in read_tensor_shapes(path):
            return {}
        variances = read_tensor(path, f"{name}.spectra")
        return {int(count): values for count, values in zip(counts, variances, strict=True)}

    def activations(self, text: str) -> "Activations":
        """Open the activations that were kept of a text: every token but the first of each window.

        Raises:
            KeyError: no such text.
            ValueError: a shard is corrupt.
        """
        return _opened(self._text(text) / ACTIVATIONS)

    def prompt_names(self) -> list[str]:
        """Names of the activations that there are of every prompt, in the order of the model."""
        return list(_opened(self._prompts(TRAINED)).provenance["names"])

    def prompt_states(self, weights: str, name: str) -> Float[np.ndarray, "prompts width"]:
        """Return an activation at the last token of every prompt, in the order of :attr:`contrasts`.

        Args:
            weights: ``trained`` or ``untrained``.
            name: of :meth:`prompt_names`.

        Raises:
            KeyError: nothing was captured with these weights.
            ValueError: no such activation, or a shard is corrupt.
        """
        return _opened(self._prompts(weights)).read(name)

    def norm(self) -> "Norm":
        """Return what the model's norms do before their weights, as recorded when prompts were captured.

        Raises:
            KeyError: no prompts were captured.
            ValueError: the model has no norms.
        """
        from learning_geometry.models.language import Norm

        recorded = _opened(self._prompts(TRAINED)).provenance["norm"]
        if recorded is None:
            raise ValueError(f"{self.experiment}: the model has no norms; leave out what is measured after them")
        return Norm(**recorded)

    @cached_property
    def contrasts(self) -> dict[str, tuple[slice, slice]]:
        """Name of a contrast -> where its first and its second set are among the prompts, pair by pair."""
        slices, start = {}, 0
        for name, pairs in _opened(self._prompts(TRAINED)).provenance["pairs"]:
            slices[name] = slice(start, start + pairs), slice(start + pairs, start + 2 * pairs)
            start += 2 * pairs
        return slices

    def _text(self, text: str) -> Path:
        if text not in self.texts:
            raise KeyError(f"{self.experiment}: no text {text!r} was captured; there are {list(self.texts)}")
        return _whole(self.texts[text])

    def _prompts(self, weights: str) -> Path:
        if weights not in self.prompts:
            raise KeyError(f"{self.experiment}: no prompts with {weights} weights were captured")
        return _whole(self.prompts[weights])

    def _moments_metadata(self, folder: Path) -> dict[str, Any]:
        return read_tensor_metadata(folder / MOMENTS)


def packed(scatter: Float[np.ndarray, "width width"]) -> Float[np.ndarray, " entries"]:
    """Return the upper triangle of a symmetric matrix, row by row.

    >>> packed(np.array([[1.0, 2.0], [2.0, 3.0]]))
    array([1., 2., 3.])
    """
    return scatter.reshape(-1)[_upper_triangle(len(scatter))]


def unpacked(entries: Float[np.ndarray, " entries"], width: int) -> Float[np.ndarray, "width width"]:
    """Return the symmetric matrix of which :func:`packed` gives these entries.

    >>> unpacked(np.array([1.0, 2.0, 3.0]), 2)
    array([[1., 2.],
           [2., 3.]])
    """
    upper = np.zeros((width, width))
    upper.reshape(-1)[_upper_triangle(width)] = entries
    return upper + np.triu(upper, 1).T


@lru_cache(maxsize=4)
def _upper_triangle(width: int) -> Int64[np.ndarray, " entries"]:
    """Places of the upper triangle of a square matrix, row by row, in all its entries, row by row."""
    return np.flatnonzero(np.triu(np.ones((width, width), dtype=bool)))


def _whole(folder: Path) -> Path:
    """Return a folder after comparing its files with its manifest, if it has one, by names and sizes."""
    with suppress(WithoutDigestsError):
        check_folder(folder)
    return folder


def _opened(folder: Path) -> "Activations":
    from learning_geometry.models.language.cache import open_activations

    return open_activations(folder)
