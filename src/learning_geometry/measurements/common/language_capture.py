"""Language models run once over texts and prompts, and what measurements read of that written to disk.

Of a text the moments of every layer's activations are kept (mean and covariance over tokens, from which all ranks
follow), and the activations themselves of the layers that are asked for. Of prompts the residual stream at the last
token is kept, in every layer. All of it continues after a kill where it was saved last.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.files import read_tensor_metadata, read_tensors, write_tensors
from learning_geometry.geometry.moments import Moments, image, principal_variances
from learning_geometry.measurements.common.language_run import ACTIVATIONS, MOMENTS, packed
from learning_geometry.models.language import LanguageModel, activation_names
from learning_geometry.models.language.cache import beyond_the_first, capture, shared_prefix
from learning_geometry.models.language.placing import chosen_device
from learning_geometry.models.language.tokens import Windows, chat_prompts, read_windows
from learning_geometry.summed import entries, summed_layers, upper_blocks
from learning_geometry.tasks.prompts import prompt_file, read_contrast_pairs
from learning_geometry.tasks.texts import read_text

COUNTED = ("residual_pre", "attention.z", "residual_mid", "mlp.output")
"""Parts of a layer whose moments are summed. Those of the attention's output follow from those of z, unless a norm
stands between, which is no linear map: then they are summed as well."""
ADDED = "attention.output"
PARTIAL = "moments-partial.safetensors"
SPECTRA = ".spectra"
CURVE = (0.25, 0.5)
"""Shares of the vectors after which spectra are taken, to see whether ranks still grow with their number."""
CURVE_PARTS = ("residual_pre", "attention.output", "mlp.output")
CURVE_LAYERS = 6
"""About how many layers these spectra are taken of."""
BATCH_SIZE = 8
SECONDS_BETWEEN_SAVES = 30.0
SETTLE_AFTER = 2**14
"""Vectors whose products are summed in float32, at most, before they are added to sums in float64."""
ORIGIN_FROM = 64
"""Vectors whose mean is the origin of deviations: near the mean is near enough."""

Report = Callable[[int, str], None]


def working_folder(base: Path, of: Mapping[str, Any], device: str = "cpu") -> Path:
    """Return a folder for unfinished work, another one for other settings, so that nothing of theirs is continued.

    Nor is what another device began, where a cluster sends a job again to a node without a GPU.

    Args:
        base: of all settings.
        of: what JSON can hold, such as settings and the code's fingerprint.
        device: as the config names it; ``auto`` is the one that there is.

    Raises:
        ValueError: there is no such device.
    """
    text = json.dumps([of, chosen_device(device).type], sort_keys=True, default=str)
    return base / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def capture_text(
    model: LanguageModel,
    source: str,
    settings: Mapping[str, Any],
    folder: Path,
    report: Report | None = None,
    batch_size: int = BATCH_SIZE,
    prepend_bos: bool | None = None,
) -> None:
    """Capture what measurements read of a text: ``moments.safetensors`` and the folder ``activations``.

    Windows are spread evenly over the whole text. The first token of each, on which attention rests as on a sink, is
    left out: the beginning-of-sequence token where windows begin with it, otherwise the first of the text. The text is
    read as text, whatever control tokens it spells; what was done is recorded as ``reading`` (``tokens.Windows``).

    Args:
        model: with its tokenizer.
        source: an embedded corpus or the path of a text file (``tasks.texts``).
        settings: the section ``text`` of the config: "tokens", "window", "layers" and "parts" kept, "moment_layers".
        folder: made if missing; what lies there of a capture that was killed is used.
        report: called with the number of tokens done, now and then.
        batch_size: windows run together.
        prepend_bos: as of ``tokens.read_windows``.

    Raises:
        ValueError: the text is too short, a layer or part is not there, an activation is not finite, or what lies in
            the folder is of another capture.
    """
    tokens, reading = text_tokens(model, source, settings, prepend_bos)
    layers = model.sizes.layers
    if missing := [layer for layer in settings["layers"] if not -layers <= layer < layers]:
        raise ValueError(f"text.layers: no layers {missing}; the model has 0 to {layers - 1}")
    names = activation_names(model.sizes, settings["parts"], sorted({layer % layers for layer in settings["layers"]}))
    keep = beyond_the_first(tokens)
    folder.mkdir(parents=True, exist_ok=True)
    recorded = {
        "text": source,
        "settings": dict(settings),
        "model": model.name,
        "origin": model.origin,
        "weights": model.digest(),
        "sizes": model.sizes._asdict(),
        "tokens": hashlib.blake2b(tokens.tobytes(), digest_size=16).hexdigest(),
        "reading": reading,
    }
    sizes = model.sizes
    summed = summed_layers(settings.get("moment_layers"), layers, sizes.width, sizes.heads * sizes.head_width)
    sums = Sums(model, int(keep.sum()), folder, recorded, report, summed)
    capture(
        model,
        tokens,
        names,
        folder / ACTIVATIONS,
        keep=keep,
        batch_size=batch_size,
        provenance={"text": source, "family": model.family, "sizes": model.sizes._asdict(), "reading": reading},
        observer=sums,
    )
    sums.finish()


def text_tokens(
    model: LanguageModel, source: str, settings: Mapping[str, Any], prepend_bos: bool | None = None
) -> Windows:
    """Return the windows of a text that :func:`capture_text` reads, spread evenly over it; its arguments and errors."""
    windows, reading = read_windows(model, read_text(source), settings["window"], prepend_bos=prepend_bos)
    wanted = settings["tokens"] // settings["window"]
    if not 1 <= wanted <= len(windows):
        raise ValueError(
            f"{source}: its {windows.size} tokens in windows of {settings['window']} are fewer than the "
            f"{settings['tokens']} asked for, or those less than one window; lower text.tokens, or give a longer text"
        )
    return Windows(windows[np.linspace(0, len(windows) - 1, wanted).round().astype(int)], reading)


class Sums:
    """Sums from which the moments of every layer's activations follow; an observer of a capture (``cache.Observer``).

    They are of deviations from the mean of the first vectors. Sums over a batch, and products over the batches of a
    shard (``SETTLE_AFTER`` vectors at most), are in float32 on the model's device, all others in float64 in the main
    memory. Moments of the attention's output follow from those of z where no norm stands between.
    """

    def __init__(
        self,
        model: LanguageModel,
        vectors: int,
        folder: Path,
        recorded: Mapping[str, Any],
        report: Report | None = None,
        layers: Sequence[int] | None = None,
    ):
        """Begin, or go on where a capture that was killed had saved it; begin if what it had saved is damaged.

        Args:
            model: the model.
            vectors: how many there will be.
            folder: of the capture.
            recorded: what is captured; sums of something else are not continued.
            report: called with the number of vectors done, now and then.
            layers: of which moments are summed; None: of all.

        Raises:
            ValueError: sums in the folder are of another capture.
        """
        last = f"layers.{model.sizes.layers - 1}.residual_post"
        self._layers = list(range(model.sizes.layers) if layers is None else layers)
        self._linear = model.between is None or model.between.factor is not None
        parts = COUNTED if self._linear else (*COUNTED, ADDED)
        self.names = [*activation_names(model.sizes, parts, self._layers), last]
        self.done = 0
        self._model, self._vectors, self._folder, self._report = model, vectors, folder, report
        self._recorded = json.loads(json.dumps(recorded, default=str))
        self._sums: dict[str, np.ndarray] = {}
        self._unsettled: dict[str, Tensor] = {}
        self._origins: dict[str, Tensor] = {}
        self._unsettled_vectors = 0
        self._spectra: dict[str, list[np.ndarray]] = {}
        self._counts: list[int] = []
        self._saved_at = monotonic()
        partial = folder / PARTIAL
        if partial.exists():
            try:
                metadata, sums = read_tensor_metadata(partial), read_tensors(partial)
            except ValueError as error:
                logging.getLogger(__name__).warning("the capture starts anew: %s", error)
                return
            if metadata["of"] != self._recorded:
                raise ValueError(f"{partial}: of another capture; capture into another folder")
            self._sums, self.done, self._counts = sums, metadata["done"], metadata["counts"]
            for name in [name for name in self._sums if name.endswith(SPECTRA)]:
                self._spectra[name.removesuffix(SPECTRA)] = list(self._sums.pop(name))

    @property
    def count(self) -> int:
        """Vectors summed so far."""
        return int(self._sums["count"]) if "count" in self._sums else 0

    def add(self, name: str, vectors: Float[Tensor, "*vectors _"]) -> None:
        """Add the vectors of an activation in a batch.

        Raises:
            ValueError: a number is not finite.
        """
        width = vectors.shape[-1]
        if f"{name}.sum" not in self._sums:
            first = vectors.reshape(-1, width)[:ORIGIN_FROM]
            self._sums[f"{name}.origin"] = first.double().mean(0).float().cpu().numpy()
            self._sums[f"{name}.sum"] = np.zeros(width)
            self._sums[f"{name}.products"] = np.zeros(entries(width))
        if name not in self._unsettled:
            self._unsettled[name] = torch.zeros(entries(width), device=vectors.device)
            self._origins[name] = torch.from_numpy(self._sums[f"{name}.origin"]).to(vectors.device)
        deviations = (vectors.float() - self._origins[name]).reshape(-1, width)
        total = deviations.sum(0).double()
        if not total.isfinite().all():
            # what is not finite comes through, and a sum in float64 of numbers in float32 cannot overflow
            total = deviations.sum(0, dtype=torch.float64)
            if not total.isfinite().all():
                raise ValueError(f"{self._model.name}: {name} is not finite somewhere in the text; leave the text out")
        self._sums[f"{name}.sum"] += total.cpu().numpy()
        add_products(deviations, self._unsettled[name])

    def added(self, vectors: int) -> None:
        """Count the vectors of a batch, and take spectra when a part of the whole is there."""
        self._sums["count"] = np.array(self.count + vectors)
        self._unsettled_vectors += vectors
        if self._unsettled_vectors >= SETTLE_AFTER:
            self._settle()
        if len(self._counts) < len(CURVE) and self.count >= CURVE[len(self._counts)] * self._vectors:
            self._counts.append(self.count)
            for name in self._curve_names():
                self._spectra.setdefault(name, []).append(principal_variances(self._moments(name).scatter))
        if self._report:
            self._report(self.count, "moments")

    def saved(self, shards: int) -> None:
        """Save the sums, if half a minute has passed since they were saved last."""
        # whether they are saved or not, so that a capture that was killed ends with the same bits
        self._settle()
        if monotonic() - self._saved_at < SECONDS_BETWEEN_SAVES:
            return
        state = self._sums | {f"{name}{SPECTRA}": np.stack(spectra) for name, spectra in self._spectra.items()}
        metadata = {"of": self._recorded, "done": shards, "counts": self._counts}
        write_tensors(self._folder / PARTIAL, state, metadata)
        self._saved_at = monotonic()

    def finish(self) -> None:
        """Write the moments, and delete what was saved on the way."""
        self._settle()
        self._unsettled.clear()
        parts = [*COUNTED, ADDED]
        summed = {*activation_names(self._model.sizes, parts, self._layers), self.names[-1]}
        order = [name for name in self._model.names if name in summed]
        tensors: dict[str, np.ndarray] = {}
        for name in order:
            of = self._moments(name)
            tensors[f"{name}.mean"], tensors[f"{name}.scatter"] = of.mean, packed(of.scatter)
            # what is packed is summed no more; moments of z are still wanted where those of the output follow from them
            if not self._linear:
                del self._sums[f"{name}.products"]
            elif not name.endswith(".attention.z"):
                del self._sums[f"{name.replace('.attention.output', '.attention.z')}.products"]
        tensors |= {f"{name}{SPECTRA}": np.stack(spectra) for name, spectra in self._spectra.items()}
        metadata = self._recorded | {"names": order, "vectors": self.count, "counts": self._counts}
        write_tensors(self._folder / MOMENTS, tensors, metadata)
        (self._folder / PARTIAL).unlink(missing_ok=True)

    def _settle(self) -> None:
        """Add what was summed in float32 to the sums in float64."""
        for name in self._unsettled:
            self._settle_one(name)
        self._unsettled_vectors = 0

    def _settle_one(self, name: str) -> None:
        if name in self._unsettled:
            self._sums[f"{name}.products"] += self._unsettled[name].cpu().numpy()
            self._unsettled[name].zero_()

    def _curve_names(self) -> list[str]:
        layers = self._layers[:: max(1, len(self._layers) // CURVE_LAYERS)]
        return activation_names(self._model.sizes, CURVE_PARTS, layers)

    def _moments(self, name: str) -> Moments:
        layer, _, part = name.partition(".attention.")
        if part != "output" or not self._linear:
            self._settle_one(name)
            total = self._sums[f"{name}.sum"]
            scatter, of_mean = whole_matrix(self._sums[f"{name}.products"], len(total)), np.outer(total, total)
            of_mean /= self.count
            scatter -= of_mean
            return Moments(self.count, self._sums[f"{name}.origin"].astype(np.float64) + total / self.count, scatter)
        weights, between = self._model.layer_weights(int(layer.removeprefix("layers."))), self._model.between
        factor = 1.0 if between is None or between.factor is None else between.factor
        of_output = image(self._moments(f"{layer}.attention.z"), factor * weights.output.cpu().double().numpy())
        if weights.output_bias is None:
            return of_output
        return of_output._replace(mean=of_output.mean + factor * weights.output_bias.cpu().double().numpy())


def add_products(deviations: Float[Tensor, "vectors width"], products: Float[Tensor, " entries"]) -> None:
    """Add the inner products of columns, deviationsᵀ deviations, to those of :func:`whole_matrix`.

    They are a symmetric matrix, of which little more than one half is computed.
    """
    for block, place in upper_blocks(deviations.shape[1]):
        rows = products[place].view(block.stop - block.start, -1)
        rows.addmm_(deviations[:, block].T, deviations[:, block.start :])


def whole_matrix(products: Float[np.ndarray, " entries"], width: int) -> Float[np.ndarray, "width width"]:
    """Return the symmetric matrix of which blocks of rows, each from the diagonal on, lie one after the other.

    What is below the diagonal in a block is not read.
    """
    matrix = np.zeros((width, width))
    for block, place in upper_blocks(width):
        rows = products[place].reshape(-1, width - block.start)
        matrix[block, block.start :] = rows
        square = np.triu(rows[:, : len(rows)])
        matrix[block, block] = square + np.triu(square, 1).T
        matrix[block.stop :, block] = rows[:, len(rows) :].T
    return matrix


def capture_prompts(
    model: LanguageModel,
    prompts: Mapping[str, Sequence[str]],
    template: bool,
    folder: Path,
    prepend_bos: bool | None = None,
) -> None:
    """Capture the residual stream at the last token of every prompt, in every layer.

    How prompts were read is recorded as ``reading`` (``tokens.Prompts``).

    Args:
        model: with its tokenizer.
        prompts: name of a contrast -> names or paths of its two files (``tasks.prompts``).
        template: whether prompts are put into the model's chat template.
        folder: as of :func:`capture_text`.
        prepend_bos: as of ``tokens.chat_prompts``.

    Raises:
        FileNotFoundError: no such file of prompts.
        ValueError: as ``tasks.prompts.read_contrast_pairs`` and ``tokens.chat_prompts``, or as ``cache.capture``.
    """
    contrasts = {name: read_contrast_pairs(*files) for name, files in prompts.items()}
    texts = [prompt for pairs in contrasts.values() for prompts_of_set in pairs for prompt in prompts_of_set]
    places = [
        f"{prompt_file(file)}, line {line}"
        for name, files in prompts.items()
        for file, prompts_of_set in zip(files, contrasts[name], strict=True)
        for line in range(1, len(prompts_of_set) + 1)
    ]
    tokenized = chat_prompts(model, texts, template, prepend_bos, places)
    last = np.zeros(tokenized.tokens.shape, dtype=bool)
    last[:, -1] = True
    layers = model.sizes.layers
    names = [
        *activation_names(model.sizes, ["residual_pre", "residual_mid"]),
        f"layers.{layers - 1}.residual_post",
        "final",
    ]
    provenance = {
        "pairs": [[name, len(pairs.first)] for name, pairs in contrasts.items()],
        "sizes": model.sizes._asdict(),
        "reading": tokenized.reading,
        "norm": None if model.norm is None else model.norm._asdict(),
    }
    capture(
        model,
        tokenized.tokens,
        names,
        folder,
        mask=tokenized.mask,
        keep=last,
        batch_size=16,
        provenance=provenance,
        prefix=shared_prefix(tokenized.tokens, tokenized.mask, last) if model.run_after else 0,
    )
