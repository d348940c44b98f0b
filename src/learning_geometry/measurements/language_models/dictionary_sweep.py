"""Sparse dictionaries of one layer, trained from different starts: how many latents die, and what they explain."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from learning_geometry.dictionaries import initialisation, storage, sweep, topk
from learning_geometry.files import read_tensor
from learning_geometry.geometry.moments import gathered
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.models.language.cache import Activations, shard_path
from learning_geometry.seeding import seeded
from learning_geometry.tables.tidy import tidy

NEEDS = {"reads": ["texts"], "parts": {"attention": ["attention.output"], "transcoder": ["mlp.input", "mlp.output"]}}

SETTINGS = {
    "layer": {
        "type": ["integer", "null"],
        "minimum": 0,
        "default": None,
        "description": "Layer, one of those whose activations were kept; null takes the middle one of these.",
    },
    "texts": {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "minItems": 1,
        "uniqueItems": True,
        "default": None,
        "description": "Texts whose vectors are mixed in every batch; null takes all of the language model.",
    },
    "seeds": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "minItems": 1,
        "uniqueItems": True,
        "default": [0],
        "description": "Seeds of the dictionaries: of their starts and of the order of the vectors.",
    },
    "k": {
        "type": "integer",
        "minimum": 1,
        "default": 32,
        "description": "Latents that are active for each vector.",
    },
    "steps": {
        "type": "integer",
        "minimum": 1,
        "default": 300,
        "description": "Training steps.",
    },
    "batch_size": {
        "type": "integer",
        "minimum": 1,
        "default": 256,
        "description": "Vectors in a training batch.",
    },
    "learning_rate": {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1.0e-3,
        "description": "Learning rate of Adam and SparseAdam.",
    },
    "held_out": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.1,
        "description": "Share of the windows of every text that is kept from training.",
    },
    "dead_window": {
        "type": "integer",
        "minimum": 1,
        "default": 10000,
        "description": "Vectors at the end of training without an activation that make a latent dead.",
    },
    "start_vectors": {
        "type": "integer",
        "minimum": 2,
        "default": 4096,
        "description": "Vectors of which scales, means, active subspace and norm of the starts are estimated.",
    },
    "subspace_share": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "default": 0.5,
        "description": "Dimension of the active and the random subspace, as a share of the width.",
    },
    "dictionaries": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z][a-z0-9_]*$"},
        "minProperties": 1,
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "required": ["latents"],
            "properties": {
                "latents": {"type": "integer", "minimum": 1, "description": "Latents of the dictionary."},
                "target": {
                    "enum": ["attention", "transcoder"],
                    "default": "attention",
                    "description": "Autoencoder of the attention's output, or transcoder from the MLP's input to its "
                    "output.",
                },
                "subspace": {
                    "enum": ["none", "active", "random"],
                    "default": "none",
                    "description": "Where decoder rows start: anywhere, in the active subspace of the targets, or in a "
                    "random one of the same dimension.",
                },
                "centred": {
                    "type": "boolean",
                    "default": False,
                    "description": "Whether biases start from the means, or at 0.",
                },
                "tied": {
                    "type": "boolean",
                    "default": True,
                    "description": "Whether the encoder starts as the decoder's transpose, or as other random "
                    "directions.",
                },
                "optimizer": {
                    "enum": ["adam", "sparse_adam"],
                    "default": "adam",
                    "description": "Adam, or the one that leaves alone what has no gradient.",
                },
                "auxiliary": {
                    "type": "integer",
                    "minimum": 0,
                    "default": 0,
                    "description": "Dead latents in the auxiliary loss (AuxK); 0 leaves it out.",
                },
            },
        },
        "default": {
            "standard_small": {"latents": 576},
            "standard": {"latents": 1152},
            "standard_centred": {"latents": 1152, "centred": True},
            "active_subspace": {"latents": 1152, "subspace": "active"},
            "active_subspace_centred": {"latents": 1152, "subspace": "active", "centred": True},
            "transcoder_standard": {"latents": 1152, "target": "transcoder", "tied": False},
            "transcoder_active_subspace": {
                "latents": 1152,
                "target": "transcoder",
                "subspace": "active",
                "tied": False,
            },
        },
        "description": "Dictionaries by name: latents, target (attention or transcoder), subspace of the start (none, "
        "active or random), centred, tied (its encoder starts as its decoder), optimizer (adam or sparse_adam) and "
        "auxiliary (latents of AuxK).",
    },
}

ATTENTION, TRANSCODER = TARGETS = ("attention", "transcoder")
NAMES = {ATTENTION: ("attention.output", "attention.output"), TRANSCODER: ("mlp.input", "mlp.output")}
"""What is encoded and what is reconstructed, of a layer."""
PARTS = {ATTENTION: "attention.output", TRANSCODER: "mlp"}

UNTRAINED = "untrained"
BLOCK = 4096
"""Held-out vectors read together."""

Pair = tuple[Float[Tensor, "vectors inputs"], Float[Tensor, "vectors outputs"]]


class Text(NamedTuple):
    """The vectors of a text, in two parts that share no window."""

    training: Activations
    """All but those held out."""
    held_out: tuple[tuple[Path, slice], ...]
    """File and rows of those held out, at most ``BLOCK`` at a time."""
    context: int
    """Positions of a window."""


@dataclass(frozen=True)
class Pairs:
    """What is encoded and what is to be reconstructed, of the tokens of several texts; read a little at a time."""

    texts: dict[str, Text]
    names: tuple[str, str]
    """Of the activations; the same twice for an autoencoder."""
    scales: tuple[float, float] = (1.0, 1.0)
    """What they are multiplied by."""

    def batches(self, size: int, *key: int | str) -> Iterator[Pair]:
        """Yield batches of vectors in random order without end, each with the texts in proportion to their size.

        A pass over a text has each of its vectors at most once: what is left over at its end is dropped.

        Args:
            size: vectors of a batch.
            key: names the generators, one for each pass over each text.

        Raises:
            ValueError: there are fewer vectors for training.
        """
        names = list(dict.fromkeys(self.names))
        parts = [
            _forever(text.training, names, count, *key, name)
            for (name, text), count in zip(self.texts.items(), self._counts(size), strict=True)
            if count
        ]
        while True:
            drawn = [next(part) for part in parts]
            yield self._pair({name: torch.cat([each[name] for each in drawn]) for name in names})

    def held_out(self) -> Iterator[Pair]:
        """Yield the vectors that are held out, in order.

        Raises:
            ValueError: a shard is corrupt.
        """
        for text in self.texts.values():
            for path, rows in text.held_out:
                yield self._pair({name: torch.tensor(read_tensor(path, name, rows)) for name in set(self.names)})

    def _pair(self, activations: Mapping[str, Tensor]) -> Pair:
        inputs, outputs = self.names
        vectors = activations[inputs] * self.scales[0]
        return (vectors, vectors) if inputs == outputs else (vectors, activations[outputs] * self.scales[1])

    def _counts(self, size: int) -> list[int]:
        """Return how many vectors of each text are in a batch: as their numbers are, by largest remainders."""
        there = np.array([text.training.vectors for text in self.texts.values()])
        if size > there.sum():
            raise ValueError(
                f"batch_size: {size}, and {there.sum()} vectors are there for training; lower it, or keep more tokens"
            )
        exact = size * there / there.sum()
        counts = exact.astype(np.int64)
        counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
        return [int(count) for count in counts]


class Trained(NamedTuple):
    """A dictionary of the sweep, and what it is worth."""

    part: str
    names: tuple[str, str]
    scales: tuple[float, float]
    start: topk.Dictionary
    fitted: topk.Fitted
    initial: sweep.Quality
    """Of the start, on held-out vectors."""
    quality: sweep.Quality
    """At the end, on held-out vectors."""
    initial_dead_share: float
    dead_share: float
    counted: int
    """Vectors in which a dead latent was not active."""
    mean_over_spread: float


def measure(run: LanguageRun, settings: dict[str, Any]) -> pd.DataFrame:
    r"""Train the dictionaries of a sweep on a layer's activations and judge them on windows held out.

    For each seed one dictionary of every entry is trained. All see the same tokens in the same order, scaled to a mean
    norm of √width. Each start is drawn by a generator of the same key, so that dictionaries of one size start from the
    same directions wherever their options allow it.
    A latent is **dead** if it was active neither for the last ``dead_window`` vectors of training (rounded up to whole
    batches; all of training if it was shorter) nor for any held-out vector.

    Rows, with data = name of the entry, index = its latents, seed = that of the dictionary, part
    ``layers.<l>.attention.output`` or ``layers.<l>.mlp`` (transcoder):

    - ``dead_share``: dead latents over all; n = vectors in which they were not active;
    - ``initial_dead_share``: the same of the start, for the first vectors of training, as many, and the held-out ones;
    - ``explained_variance``: $1 - E\|x - \hat x\|^2 / E\|x - \bar x\|^2$ on held-out vectors; n = their number.
      Null ``untrained``: the start;
    - ``mean_over_spread``: γ = ‖mean‖ / ‖standard deviation‖ of held-out vectors as the start encodes them, that is
      minus the start's mean where it is centred; n = their number;
    - ``option_<name>`` with the settings of the entry, so that tables tell what its dictionaries are: ``centred``,
      ``tied``, ``sparse_adam``, ``active_subspace``, ``random_subspace`` (0 or 1), ``auxiliary`` (a number).

    The trained dictionaries are saved in the layout of SAELens below ``run.output``, if there is one, as
    ``<entry>-seed-<seed>``.

    Raises:
        KeyError: there is no such text.
        ValueError: the layer was not kept of a text, a text has too few windows to hold some out, there are fewer
            vectors than a batch, or as :func:`initialisation.draw`.
        FloatingPointError: the loss of a dictionary is not finite, naming it and the step.
    """
    tables = []
    for seed in settings["seeds"]:
        rows: list[dict[str, Any]] = []
        for name, outcome in trained(run, settings, seed).items():
            rows += _rows(name, settings["dictionaries"][name], outcome)
            if run.output is not None:
                save(run, settings, name, seed, outcome)
        tables.append(tidy(rows, run.experiment, seed))
    return pd.concat(tables, ignore_index=True)


def trained(run: LanguageRun, settings: dict[str, Any], seed: int) -> dict[str, Trained]:
    """Train and judge one dictionary of every entry, for one seed; see :func:`measure`."""
    layer = _layer(run, settings)
    texts = _texts(run, settings)
    outcomes: dict[str, Trained] = {}
    for target in TARGETS:
        dictionaries = {
            name: dictionary
            for name, dictionary in settings["dictionaries"].items()
            if _option(dictionary, "target") == target
        }
        if dictionaries:
            inputs, outputs = (f"layers.{layer}.{name}" for name in NAMES[target])
            pairs = Pairs(texts, (inputs, outputs))
            outcomes |= _trained(dictionaries, pairs, f"layers.{layer}.{PARTS[target]}", settings, seed)
    return {name: outcomes[name] for name in settings["dictionaries"]}


def save(run: LanguageRun, settings: dict[str, Any], name: str, seed: int, outcome: Trained) -> None:
    """Write a trained dictionary below ``run.output``, in the layout of SAELens."""
    assert run.output is not None
    texts = _texts(run, settings)
    read = [run.activations(text).provenance.get("reading", {}) for text in texts]
    metadata = {
        "model_name": str(run.settings.get("model", {}).get("source", run.experiment)),
        # of our own naming: SAELens knows these places of some models under other names
        "hook_name": outcome.names[0],
        "hook_name_out": outcome.names[1],
        "dataset_path": ", ".join(texts),
        "context_size": max(text.context for text in texts.values()),
        "prepend_bos": any(each.get("prepend_bos", False) for each in read),
        "seed": seed,
        "dictionary": {name: settings["dictionaries"][name]},
        "training": {key: value for key, value in settings.items() if key != "dictionaries"},
    }
    if outcome.names[0] == outcome.names[1]:
        del metadata["hook_name_out"]
    directory = run.output / f"{name}-seed-{seed}"
    storage.save(directory, outcome.fitted.dictionary, settings["k"], metadata, *outcome.scales)


def split(activations: Activations, held_out: float) -> Text:
    """Divide the windows of a text: of those of every shard the last ones are held out, a share of all in all.

    Raises:
        ValueError: no window is left for one of both.
    """
    labels = activations.labels()
    ends = np.cumsum(activations.shards)
    cuts, rows, seen, kept_out = [], [], 0, 0
    for shard, end in enumerate(ends):
        start = int(end) - activations.shards[shard]
        # a window is never in two shards
        starts = np.unique(labels.sequence[start:end], return_index=True)[1]
        seen += len(starts)
        chosen = round(held_out * seen) - kept_out
        kept_out += chosen
        cut = int(starts[len(starts) - chosen]) if chosen else activations.shards[shard]
        cuts.append(cut)
        for first in range(cut, activations.shards[shard], BLOCK):
            rows.append(
                (shard_path(activations.directory, shard), slice(first, min(first + BLOCK, activations.shards[shard])))
            )
    if not 0 < kept_out < seen:
        raise ValueError(
            f"{activations.directory}: a share {held_out} of its {seen} windows is {kept_out}, and some are needed "
            "for training and some to be held out; change held_out, or keep more windows"
        )
    # the first vectors of each shard are all that is read of it
    return Text(replace(activations, shards=tuple(cuts)), tuple(rows), int(labels.position.max()) + 1)


def _trained(
    dictionaries: Mapping[str, Mapping[str, Any]], pairs: Pairs, part: str, settings: dict[str, Any], seed: int
) -> dict[str, Trained]:
    """Train and judge one dictionary of every entry, all of one target."""
    k, size, steps = settings["k"], settings["batch_size"], settings["steps"]
    key = (seed, "dictionary_sweep")
    vectors = sum(text.training.vectors for text in pairs.texts.values())
    inputs, outputs = next(pairs.batches(min(settings["start_vectors"], vectors), *key, "start"))
    scales = topk.scale_factor(inputs), topk.scale_factor(outputs)
    pairs = replace(pairs, scales=scales)
    inputs, outputs = inputs * scales[0], outputs * scales[1]
    dimension = max(1, round(settings["subspace_share"] * outputs.shape[1]))
    begun = {}
    for name, dictionary in dictionaries.items():
        subspace = _option(dictionary, "subspace")
        options = initialisation.Options(
            dictionary["latents"],
            subspace,
            None if subspace == initialisation.NONE else dimension,
            _option(dictionary, "centred"),
            _option(dictionary, "tied"),
        )
        training = topk.Settings(
            k=k,
            learning_rate=settings["learning_rate"],
            auxiliary=_option(dictionary, "auxiliary"),
            dead_after=settings["dead_window"],
            optimizer=_option(dictionary, "optimizer"),
        )
        start = initialisation.draw(inputs, options, k, seeded(*key, "initialisation"), outputs)
        begun[name] = sweep.Entry(start, training)

    def training_batches(count: int) -> Iterator[Pair]:
        return itertools.islice(pairs.batches(size, *key, "batches"), count)

    fitted = sweep.train_together(begun, training_batches(steps), topk.variance(outputs))
    window = min(-(-settings["dead_window"] // size), steps)
    # what initial means are the means of: the vectors that starts were drawn for
    mean = inputs.double().mean(0).numpy()
    held_out = gathered(batch.numpy() for batch, _ in pairs.held_out())
    spread = float(np.sqrt(np.trace(held_out.scatter) / held_out.n))
    outcomes = {}
    for name, dictionary in dictionaries.items():
        start = begun[name].start
        initial = sweep.evaluate(start, pairs.held_out(), k)
        quality = sweep.evaluate(fitted[name].dictionary, pairs.held_out(), k)
        first = sweep.evaluate(start, training_batches(window), k).activations
        silent = fitted[name].silent >= window * size
        shift = mean if _option(dictionary, "centred") else 0.0
        outcomes[name] = Trained(
            part,
            pairs.names,
            scales,
            start,
            fitted[name],
            initial,
            quality,
            float(((first == 0) & (initial.activations == 0)).mean()),
            float((silent & (quality.activations == 0)).mean()),
            window * size + quality.vectors,
            float(np.linalg.norm(held_out.mean - shift)) / spread,
        )
    return outcomes


def _rows(name: str, dictionary: Mapping[str, Any], outcome: Trained) -> list[dict[str, Any]]:
    base = {"step": 0, "part": outcome.part, "index": dictionary["latents"], "data": name}
    explained = base | {"quantity": "explained_variance", "n": outcome.quality.vectors, "unit": "fraction"}
    dead = {"n": outcome.counted, "unit": "fraction"}
    options = {
        "centred": _option(dictionary, "centred"),
        "tied": _option(dictionary, "tied"),
        "sparse_adam": _option(dictionary, "optimizer") == topk.SPARSE_ADAM,
        "active_subspace": _option(dictionary, "subspace") == initialisation.ACTIVE,
        "random_subspace": _option(dictionary, "subspace") == initialisation.RANDOM,
        "auxiliary": _option(dictionary, "auxiliary"),
    }
    return [
        base | dead | {"quantity": "dead_share", "value": outcome.dead_share},
        base | dead | {"quantity": "initial_dead_share", "value": outcome.initial_dead_share},
        explained | {"value": outcome.quality.explained_variance},
        explained | {"value": outcome.initial.explained_variance, "null": UNTRAINED},
        base | {"quantity": "mean_over_spread", "value": outcome.mean_over_spread, "n": outcome.quality.vectors},
        *(base | {"quantity": f"option_{key}", "value": float(value)} for key, value in options.items()),
    ]


def _option(dictionary: Mapping[str, Any], name: str) -> Any:
    """Return a setting of an entry, or its default."""
    properties: Any = SETTINGS["dictionaries"]["additionalProperties"]
    return dictionary.get(name, properties["properties"][name]["default"])


def _texts(run: LanguageRun, settings: dict[str, Any]) -> dict[str, Text]:
    return {name: split(run.activations(name), settings["held_out"]) for name in settings["texts"] or run.texts}


def _layer(run: LanguageRun, settings: dict[str, Any]) -> int:
    """Return the layer asked for, or the middle one of those that were kept (the later of two).

    Raises:
        ValueError: what the dictionaries read was not kept of a text.
    """
    wanted = {name for dictionary in settings["dictionaries"].values() for name in NAMES[_option(dictionary, "target")]}
    kept: set[int] | None = None
    for text in settings["texts"] or run.texts:
        widths = run.activations(text).widths
        layers = {int(name.split(".")[1]) for name in widths if name.startswith("layers.")}
        whole = {layer for layer in layers if all(f"layers.{layer}.{name}" in widths for name in wanted)}
        kept = whole if kept is None else kept & whole
    there = sorted(kept or ())
    layer = settings["layer"]
    if not there or (layer is not None and layer not in there):
        raise ValueError(
            f"{run.experiment}: {', '.join(sorted(wanted))} of {'any layer' if layer is None else f'layer {layer}'} "
            f"were not kept of every text, of layers {there} they were; name one of these, or keep them"
        )
    return there[len(there) // 2] if layer is None else int(layer)


def _forever(
    activations: Activations, names: list[str], size: int, *key: int | str
) -> Iterator[dict[str, Float[Tensor, "batch _"]]]:
    """Yield full batches, pass after pass."""
    for number in itertools.count():
        for batch in activations.batches(names, size, seeded(*key, number)):
            if len(batch[names[0]]) == size:
                yield batch
