"""What a language model of the config asks of its files, texts and prompts, checked before any job.

Weights are not loaded: sizes come from headers (``model_files``), and a text has at most one token a byte.
"""

import codecs
import hashlib
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry import model_files
from learning_geometry.config.dictionaries import check_folders, check_options
from learning_geometry.config.machine import memory, shown
from learning_geometry.config.modules import subject
from learning_geometry.config.needs import fewest, needs, reads
from learning_geometry.config.problems import Report
from learning_geometry.model_files import ModelFiles
from learning_geometry.sources.saelens import FOLDER
from learning_geometry.summed import summed_layers, sums_of_a_layer
from learning_geometry.tasks.prompts import read_contrast_pairs
from learning_geometry.tasks.texts import EMBEDDED, text_files

READ_AT_MOST = 2**26
"""Bytes of a text that are read to see whether it is one; the config is read for every job."""

COUNTED_BELOW = 16
"""Tokens are counted, where a tokenizer lies here, of texts of fewer bytes than this for each token that is wanted."""


def check_files(language_model: dict[str, Any], report: Report) -> None:
    """Report files that cannot be read, texts and prompts that are too short or the same, and what the model is not."""
    captured = bool(language_model["texts"] or language_model["prompts"])
    model = None
    try:
        model = model_files.check_files(**model_files.places_of(language_model["model"]), tokenizer=captured)
    except ValueError as error:
        report("model.source", str(error))
    if model is not None:
        _check_sizes(language_model, model, report)
        _check_memory(language_model, model, report)
    _check_texts(language_model, model, report)
    _check_prompts(language_model, report)
    for name, settings in language_model["measurements"].items():
        check_folders(name, settings, language_model["text"], model, report)


def check_settings(language_model: dict[str, Any], report: Report) -> None:
    """Report what contradicts itself without a look at any file."""
    text = language_model["text"]
    if text["tokens"] < text["window"]:
        report("text.tokens", f"{text['tokens']} is less than a window of {text['window']}; raise it")
    for name, settings in language_model["measurements"].items():
        if subject(name) == "runs":
            report(f"measurements.{name}", "it measures trained runs; move it to one of the experiments")
            continue
        wanted = set(reads(name, settings))
        for section in ("texts", "prompts"):
            if wanted & {section, f"untrained_{section}"} and not language_model[section]:
                report(f"measurements.{name}", f"it reads {section}, and there are none; add some under {section}")
        chosen = settings.get("texts") if "texts" in wanted else None
        if unknown := [each for each in chosen or [] if each not in language_model["texts"]]:
            report(
                f"measurements.{name}.texts",
                f"{unknown[0]} is no text of this language model; there are {list(language_model['texts'])}",
            )
        _check_parts(name, settings, text, report)
        if "held_out" in settings and "batch_size" in settings:
            _check_batches(name, settings, language_model, report)
        check_options(name, settings, report)


def _check_parts(name: str, settings: dict[str, Any], text: dict[str, Any], report: Report) -> None:
    by_target = needs(name).get("parts", {})
    targets = {
        "always",
        *(
            dictionary.get("target", "attention")
            for dictionary in settings.get("dictionaries", {}).values()
            if FOLDER not in dictionary
        ),
    }
    read = dict.fromkeys(part for target in sorted(targets) for part in by_target.get(target, ()))
    if missing := [part for part in read if part not in text["parts"]]:
        report(f"measurements.{name}", f"it reads {', '.join(missing)}, not kept of texts; add it to text.parts")


def _check_batches(name: str, settings: dict[str, Any], language_model: dict[str, Any], report: Report) -> None:
    """Report texts of too few windows to train on some and hold others out."""
    window = language_model["text"]["window"]
    windows = language_model["text"]["tokens"] // window
    texts = len(settings.get("texts") or language_model["texts"])
    vectors = texts * (windows - 1) * (window - 1)
    if windows == 1:
        report("text.tokens", f"one window of {window}, and {name} holds a window of each text out; raise it")
    elif windows and texts and vectors < settings["batch_size"]:
        report(
            f"measurements.{name}.batch_size",
            f"{settings['batch_size']} is more than the {vectors} vectors that there are at most; lower it, or raise "
            "text.tokens",
        )


class Taken(NamedTuple):
    """The memory that a language model takes at the least."""

    weights: int
    """Bytes."""
    sums: int
    """Bytes of the sums while a text is captured, besides; 0 without texts."""
    layers: list[int]
    """Whose moments are summed."""
    of: int
    """How many layers there are."""


def taken(language_model: dict[str, Any], model: ModelFiles) -> Taken:
    """Return the memory that a language model takes, from the heads of its files.

    Raises:
        ValueError: ``text.moment_layers`` names a layer that there is not.
    """
    sizes, text = model.layout, language_model["text"]
    number = 4 if language_model["model"]["dtype"] == "float32" else 2
    weights = number * sum(math.prod(shape) for shape in sizes.shapes.values())
    heads = model.config.get("num_attention_heads") or model.config.get("n_head") or sizes.width // sizes.head_width
    inner = heads * sizes.head_width
    summed = summed_layers(text["moment_layers"], sizes.layers, sizes.width, inner)
    sums = len(summed) * sums_of_a_layer(sizes.width, inner) if language_model["texts"] else 0
    return Taken(weights, sums, summed, sizes.layers)


def memory_of(language_model: dict[str, Any]) -> str:
    """Return in words the memory that a language model takes; "" if its files are not here."""
    try:
        model = model_files.check_files(**model_files.places_of(language_model["model"]), tokenizer=False)
    except ValueError:
        return ""
    if model is None:
        return ""
    found, chosen = taken(language_model, model), language_model["model"]
    text = f"{shown(float(found.weights))} of weights in {chosen['dtype']} on {chosen['device']}"
    if found.sums:
        layers = "all" if len(found.layers) == found.of else ", ".join(map(str, found.layers))
        text += f", {shown(float(found.sums))} of sums while a text is captured (moments of layers: {layers})"
    return text


def _check_memory(language_model: dict[str, Any], model: ModelFiles, report: Report) -> None:
    try:
        found = taken(language_model, model)
    except ValueError as error:
        key, _, problem = str(error).partition(": ")
        report(key, problem)
        return
    there = memory()
    if found.weights > there and language_model["model"]["device"] == "cpu":
        report(
            "model.dtype",
            f"{shown(float(found.weights))} of weights in {language_model['model']['dtype']}, and this machine has "
            f"{shown(float(there))} of memory; set it to bfloat16, or take a smaller model",
        )
    elif found.sums + found.weights > there:
        report(
            "text.moment_layers",
            f"sums of {len(found.layers)} layers take {shown(float(found.sums))} beside {shown(float(found.weights))} "
            f"of weights, and this machine has {shown(float(there))} of memory; name fewer layers",
        )


def _check_sizes(language_model: dict[str, Any], model: ModelFiles, report: Report) -> None:
    sizes = model.layout
    text, measurements = language_model["text"], language_model["measurements"]
    windows = {"text.window": text["window"]} if language_model["texts"] else {}
    layers = {"text.layers": text["layers"]} if language_model["texts"] else {}
    for name, settings in measurements.items():
        if "texts" in reads(name) and "tokens" in settings:
            windows[f"measurements.{name}.tokens"] = settings["tokens"]
        if isinstance(settings.get("layers"), list):
            layers[f"measurements.{name}.layers"] = settings["layers"]
    for key, window in windows.items():
        if sizes.context is not None and window > sizes.context:
            report(key, f"{window} is more than the model's context of {sizes.context}; lower it")
    for key, wanted in layers.items():
        if missing := [layer for layer in wanted if not -sizes.layers <= layer < sizes.layers]:
            report(key, f"no layer {missing[0]}; the model has 0 to {sizes.layers - 1}")
    for name, settings in measurements.items():
        layer, rank = settings.get("layer"), settings.get("rank")
        kept = [each % sizes.layers for each in text["layers"]]
        if "texts" in reads(name) and layer is not None and layer not in kept:
            report(f"measurements.{name}.layer", f"{layer} is not kept of texts; take one of {kept}")
        if isinstance(rank, int) and rank > sizes.width:
            report(f"measurements.{name}.rank", f"{rank} is more than the model's width of {sizes.width}; lower it")


def _check_texts(language_model: dict[str, Any], model: ModelFiles | None, report: Report) -> None:
    same: dict[bytes, str] = {}
    wanted = {"text.tokens": (language_model["text"]["tokens"], list(language_model["texts"]))}
    for name, settings in language_model["measurements"].items():
        if "texts" in reads(name) and {"windows", "tokens"} <= settings.keys():
            read = settings.get("texts") or list(language_model["texts"])[:1]
            wanted[f"measurements.{name}.windows"] = settings["windows"] * settings["tokens"], read
    shortest: dict[str, tuple[int, str]] = {}
    for name, text in language_model["texts"].items():
        key = f"texts.{name}"
        try:
            files = text_files(text)
            size, digest = _read(text, files)
        except (FileNotFoundError, ValueError, OSError) as error:
            report(key, str(error))
            continue
        if digest in same:
            report(key, f"the same text as {same[digest]}; leave one of them out")
        same.setdefault(digest, name)
        for setting, (tokens, read) in wanted.items():
            if name not in read:
                continue
            there = _most_tokens(model, files, size, tokens)
            if there < tokens and shortest.get(setting, (there + 1,))[0] > there:
                shortest[setting] = there, name
    for setting, (there, name) in shortest.items():
        tokens = wanted[setting][0]
        report(setting, f"{tokens} tokens, and the text {name} has at most {there}; lower it, or give a longer text")


def _read(text: str, files: list[Path]) -> tuple[int, bytes]:
    """Return the size of a text in bytes, and a hash of what it holds.

    Raises:
        ValueError: it is not UTF-8 text, or empty.
    """
    size = sum(path.stat().st_size for path in files)
    if text in EMBEDDED:
        return size, text.encode()
    hasher = hashlib.blake2b(str(size).encode())
    blank = True
    for path in files:
        with open(path, "rb") as file:
            start = file.read(READ_AT_MOST)
        hasher.update(start)
        try:
            # a text that is longer than what is read of it may be cut within a character
            decoded = codecs.getincrementaldecoder("utf-8-sig")().decode(start, len(start) < READ_AT_MOST)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
        if "\0" in decoded:
            raise ValueError(f"{path}: holds a NUL, so that it is no text; give a text file in UTF-8")
        blank = blank and not decoded.strip()
    if blank:
        raise ValueError(f"{text}: holds no text; pass a file that does")
    return size, hasher.digest()


def _most_tokens(model: ModelFiles | None, files: list[Path], size: int, wanted: int) -> int:
    """Return how many tokens a text has: exactly if it is short and its tokenizer is here, or at most."""
    tokenizer = None if model is None or model.gguf is not None else model.folder / "tokenizer.json"
    if size < wanted or size >= COUNTED_BELOW * wanted or tokenizer is None or not tokenizer.is_file():
        return size + 1  # sentencepiece puts a space before a text
    if find_spec("tokenizers") is None:
        return size + 1
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(tokenizer))
    except Exception:  # damaged files raise errors of many kinds, which loading names
        return size + 1
    loaded.no_truncation()
    loaded.encode_special_tokens = True
    text = "\n\n".join(path.read_text(encoding="utf-8-sig").strip() for path in files)
    return len(loaded.encode(text, add_special_tokens=False).ids)


def _check_prompts(language_model: dict[str, Any], report: Report) -> None:
    same: dict[frozenset[tuple[str, ...]], str] = {}
    numbers = {}
    for name, sets in language_model["prompts"].items():
        try:
            pairs = read_contrast_pairs(*sets)
        except (FileNotFoundError, ValueError, OSError) as error:
            report(f"prompts.{name}", str(error))
            continue
        if frozenset(pairs) in same:
            report(f"prompts.{name}", f"the same prompts as {same[frozenset(pairs)]}; leave one of them out")
        same.setdefault(frozenset(pairs), name)
        numbers[name] = len(pairs.first)
    for measurement, settings in language_model["measurements"].items():
        number, setting = fewest(needs(measurement).get("pairs", {"always": 1}), settings)
        why = f" ({setting}: {settings[setting]})" if setting else ""
        for name, there in numbers.items():
            if there < number:
                report(
                    f"prompts.{name}",
                    f"{there} pair{'s' * (there > 1)} of prompts, and {measurement} needs {number}{why}; write more",
                )
