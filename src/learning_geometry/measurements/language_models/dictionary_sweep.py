"""Sparse dictionaries of one layer, trained from different starts: how many latents die, and what they explain."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from learning_geometry.dictionaries import initialisation, storage, sweep, topk, whitening
from learning_geometry.geometry.moments import gathered
from learning_geometry.measurements.common.dictionary_vectors import Pair, Pairs, Text, split
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.measurements.common.own_dictionaries import judged
from learning_geometry.seeding import seeded
from learning_geometry.sources.hook_points import hook_point
from learning_geometry.sources.saelens import FOLDER, OURS, OURS_OUT
from learning_geometry.tables.tidy import tidy

NEEDS = {
    "reads": ["texts"],
    "reads_for": {"saelens": ["model"]},
    "parts": {"attention": ["attention.output"], "transcoder": ["mlp.input", "mlp.output"]},
}

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
            "if": {"required": ["saelens"]},
            "then": {
                "additionalProperties": False,
                "properties": {
                    "saelens": {
                        "type": "string",
                        "minLength": 1,
                        "description": "Folder that SAELens (6.0 or later) saved a topk, standard or jumprelu "
                        "dictionary to, which is judged and not trained.",
                    },
                    "activation": {
                        "type": ["string", "null"],
                        "default": None,
                        "description": "What it reads, such as layers.3.attention.output; null takes the hook_name "
                        "that its files say.",
                    },
                    "windows": {
                        "type": "integer",
                        "minimum": 10,
                        "default": 10,
                        "description": "Windows of each text, spread evenly over it, in which the model's loss is "
                        "taken with the dictionary in it.",
                    },
                    "tokens": {
                        "type": "integer",
                        "minimum": 3,
                        "default": 32,
                        "description": "Tokens of such a window.",
                    },
                },
            },
            "else": {
                "additionalProperties": False,
                "required": ["latents"],
                "properties": {
                    "latents": {"type": "integer", "minimum": 1, "description": "Latents of the dictionary."},
                    "target": {
                        "enum": ["attention", "transcoder"],
                        "default": "attention",
                        "description": "Autoencoder of the attention's output, or transcoder from the MLP's input to "
                        "its output.",
                    },
                    "subspace": {
                        "enum": ["none", "active", "random"],
                        "default": "none",
                        "description": "Where decoder rows start: anywhere, in the active subspace of the targets, or "
                        "in a random one of the same dimension.",
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
                    "aligned": {
                        "type": "boolean",
                        "description": "Whether the inner product of each latent's encoder and decoder row is kept at "
                        "1; not of a transcoder. False if left out.",
                    },
                    "whitened": {
                        "type": "boolean",
                        "description": "Whether variance is spread evenly over all directions before training, with "
                        "the mean as it is; not of a transcoder. False if left out.",
                    },
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
        "active or random), centred, tied (its encoder starts as its decoder), optimizer (adam or sparse_adam), "
        "auxiliary (latents of AuxK), aligned and whitened. Or `{saelens: folder}`, one of your own that SAELens "
        "trained, with activation, windows and tokens: docs/language_models.md.",
    },
}

ATTENTION, TRANSCODER = TARGETS = ("attention", "transcoder")
NAMES = {ATTENTION: ("attention.output", "attention.output"), TRANSCODER: ("mlp.input", "mlp.output")}
"""What is encoded and what is reconstructed, of a layer."""
PARTS = {ATTENTION: "attention.output", TRANSCODER: "mlp"}

UNTRAINED = "untrained"
NEW_OPTIONS = ("aligned", "whitened")
"""Options of which tables tell where an entry of the sweep has one."""
NOT_OF_A_TRANSCODER = "a transcoder reads other vectors than it gives; leave it out"


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
    evenness: float
    """Of the variance of what the start encodes."""


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
      ``tied``, ``sparse_adam``, ``active_subspace``, ``random_subspace`` (0 or 1), ``auxiliary`` (a number);
    - if an entry of the sweep has one of these options, for every entry: ``option_aligned`` and ``option_whitened``
      (0 or 1), and ``variance_evenness`` of held-out vectors as the start encodes them (n = their number), between
      1 / width and 1. An entry that is **whitened** is trained on vectors whose variance is spread evenly
      (:mod:`dictionaries.whitening`) and then put into a dictionary of vectors as they are, of which all else is said.

    Entries that were trained elsewhere have the rows of :func:`common.own_dictionaries.judged`, once, with the first
    seed.

    The trained dictionaries are saved in the layout of SAELens below ``run.output``, if there is one, as
    ``<entry>-seed-<seed>``.

    Raises:
        KeyError: there is no such text.
        ValueError: the layer was not kept of a text, a text has too few windows to hold some out, there are fewer
            vectors than a batch, or as :func:`initialisation.draw` and :func:`common.own_dictionaries.judged`.
        FloatingPointError: the loss of a dictionary is not finite, naming it and the step.
    """
    tables = []
    for seed in settings["seeds"]:
        rows: list[dict[str, Any]] = []
        for name, outcome in trained(run, settings, seed).items():
            rows += _rows(name, settings["dictionaries"], outcome)
            if run.output is not None:
                save(run, settings, name, seed, outcome)
        if seed == settings["seeds"][0]:
            for name, entry in settings["dictionaries"].items():
                rows += judged(run, name, entry, settings, _texts(run, settings)) if FOLDER in entry else []
        tables.append(tidy(rows, run.experiment, seed))
    return pd.concat(tables, ignore_index=True)


def trained(run: LanguageRun, settings: dict[str, Any], seed: int) -> dict[str, Trained]:
    """Train and judge one dictionary of every entry that is trained here, for one seed; see :func:`measure`."""
    entries = _trained_here(settings)
    if not entries:
        return {}
    for name, option in itertools.product(entries, NEW_OPTIONS):
        if _option(entries[name], "target") == TRANSCODER and _option(entries[name], option):
            raise ValueError(f"dictionaries.{name}.{option}: {NOT_OF_A_TRANSCODER}")
    layer = _layer(run, settings)
    texts = _texts(run, settings)
    outcomes: dict[str, Trained] = {}
    for target in TARGETS:
        dictionaries = {
            name: dictionary for name, dictionary in entries.items() if _option(dictionary, "target") == target
        }
        if dictionaries:
            inputs, outputs = (f"layers.{layer}.{name}" for name in NAMES[target])
            pairs = Pairs(texts, (inputs, outputs))
            outcomes |= _trained(dictionaries, pairs, f"layers.{layer}.{PARTS[target]}", settings, seed)
    return {name: outcomes[name] for name in entries}


def save(run: LanguageRun, settings: dict[str, Any], name: str, seed: int, outcome: Trained) -> None:
    """Write a trained dictionary below ``run.output``, in the layout of SAELens."""
    assert run.output is not None
    texts = _texts(run, settings)
    provenance = [run.activations(text).provenance for text in texts]
    read = [each.get("reading", {}) for each in provenance]
    metadata = {
        "model_name": str(run.settings.get("model", {}).get("source", run.experiment)),
        **_places(outcome.names, next((each.get("family") for each in provenance), None)),
        "dataset_path": ", ".join(texts),
        "context_size": max(text.context for text in texts.values()),
        "prepend_bos": any(each.get("prepend_bos", False) for each in read),
        "seed": seed,
        "dictionary": {name: settings["dictionaries"][name]},
        "training": {key: value for key, value in settings.items() if key != "dictionaries"},
    }
    directory = run.output / f"{name}-seed-{seed}"
    storage.save(directory, outcome.fitted.dictionary, settings["k"], metadata, *outcome.scales)


def _places(names: tuple[str, str], family: str | None) -> dict[str, str]:
    """Return what metadata says of the activations: our names, TransformerLens' hook points, or why there is none."""
    reads, gives = names
    places = {OURS: reads} | ({OURS_OUT: gives} if gives != reads else {})
    for key, name in (("hook_name", reads), ("hook_name_out", gives)):
        if key == "hook_name" or gives != reads:
            try:
                places[key] = hook_point(name, family)
            except ValueError as error:
                places[f"no_{key}"] = str(error)
    return places


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
    white = whitening.whitening(inputs) if any(_option(each, "whitened") for each in dictionaries.values()) else None
    begun: dict[bool, dict[str, sweep.Entry]] = {False: {}, True: {}}
    for name, dictionary in dictionaries.items():
        whitened = white if _option(dictionary, "whitened") else None
        seen = inputs if whitened is None else whitened.apply(inputs)
        wanted = outputs if whitened is None else seen
        subspace = _option(dictionary, "subspace")
        options = initialisation.Options(
            dictionary["latents"],
            subspace,
            None if subspace == initialisation.NONE else dimension,
            _option(dictionary, "centred"),
            _option(dictionary, "tied"),
            aligned=_option(dictionary, "aligned"),
        )
        training = topk.Settings(
            k=k,
            learning_rate=settings["learning_rate"],
            auxiliary=_option(dictionary, "auxiliary"),
            dead_after=settings["dead_window"],
            optimizer=_option(dictionary, "optimizer"),
            aligned=_option(dictionary, "aligned"),
        )
        start = initialisation.draw(seen, options, k, seeded(*key, "initialisation"), wanted)
        begun[whitened is not None][name] = sweep.Entry(start, training)

    def training_batches(count: int) -> Iterator[Pair]:
        return itertools.islice(pairs.batches(size, *key, "batches"), count)

    starts = {name: entry.start for entries in begun.values() for name, entry in entries.items()}
    fitted: dict[str, topk.Fitted] = {}
    if begun[False]:
        fitted |= sweep.train_together(begun[False], training_batches(steps), topk.variance(outputs))
    if white is not None:
        stream = (white.apply(batch) for batch, _ in training_batches(steps))
        for name, each in sweep.train_together(begun[True], stream, topk.variance(white.apply(inputs))).items():
            starts[name] = whitening.unwhitened(starts[name], white)
            fitted[name] = each._replace(dictionary=whitening.unwhitened(each.dictionary, white))
    window = min(-(-settings["dead_window"] // size), steps)
    held_out = gathered(batch.numpy() for batch, _ in pairs.held_out())
    outcomes = {}
    for name, dictionary in dictionaries.items():
        start = starts[name]
        initial = sweep.evaluate(start, pairs.held_out(), k)
        quality = sweep.evaluate(fitted[name].dictionary, pairs.held_out(), k)
        first = sweep.evaluate(start, training_batches(window), k).activations
        silent = fitted[name].silent >= window * size
        # what initial means are the means of: the vectors that starts were drawn for
        shift = inputs.double().mean(0).numpy() if _option(dictionary, "centred") else 0.0
        linear = np.eye(len(held_out.mean))
        if white is not None and _option(dictionary, "whitened"):
            linear = white.forward.numpy()
        scatter = linear @ held_out.scatter @ linear
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
            float(np.linalg.norm(linear @ (held_out.mean - shift)) / np.sqrt(np.trace(scatter) / held_out.n)),
            whitening.evenness(torch.from_numpy(scatter)),
        )
    return outcomes


def _rows(name: str, entries: Mapping[str, Mapping[str, Any]], outcome: Trained) -> list[dict[str, Any]]:
    dictionary = entries[name]
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
    even: list[dict[str, Any]] = []
    if any(_option(each, option) for each in entries.values() for option in NEW_OPTIONS):
        options |= {option: _option(dictionary, option) for option in NEW_OPTIONS}
        even = [base | {"quantity": "variance_evenness", "value": outcome.evenness, "n": outcome.quality.vectors}]
    return [
        base | dead | {"quantity": "dead_share", "value": outcome.dead_share},
        base | dead | {"quantity": "initial_dead_share", "value": outcome.initial_dead_share},
        explained | {"value": outcome.quality.explained_variance},
        explained | {"value": outcome.initial.explained_variance, "null": UNTRAINED},
        base | {"quantity": "mean_over_spread", "value": outcome.mean_over_spread, "n": outcome.quality.vectors},
        *even,
        *(base | {"quantity": f"option_{key}", "value": float(value)} for key, value in options.items()),
    ]


def _option(dictionary: Mapping[str, Any], name: str) -> Any:
    """Return a setting of an entry, or its default."""
    properties: Any = SETTINGS["dictionaries"]["additionalProperties"]
    return dictionary.get(name, properties["else"]["properties"][name].get("default", False))


def _trained_here(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in settings["dictionaries"].items() if FOLDER not in entry}


def _texts(run: LanguageRun, settings: dict[str, Any]) -> dict[str, Text]:
    return {name: split(run.activations(name), settings["held_out"]) for name in settings["texts"] or run.texts}


def _layer(run: LanguageRun, settings: dict[str, Any]) -> int:
    """Return the layer asked for, or the middle one of those that were kept (the later of two).

    Raises:
        ValueError: what the dictionaries read was not kept of a text.
    """
    targets = {_option(dictionary, "target") for dictionary in _trained_here(settings).values()}
    wanted = {name for target in targets for name in NAMES[target]}
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
