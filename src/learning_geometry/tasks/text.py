"""Text: the next token of windows of a text that is on every machine, or of files of your own; bytes or byte pairs.

The files of the text are divided once, the same way for every seed: some are held out, the others train. A text of one
file is cut instead, and its end held out. Windows of training begin at any token; those held out do not overlap.

Two test sets:

- ``held_out``: windows of the files held out. ``error`` is the share of wrong predictions at all positions;
- ``repeated``: random tokens with one segment repeated, as the out-of-distribution sequences of copying
  (:mod:`learning_geometry.tasks.copying`), drawn uniformly from the tokens that training holds. Nothing but the first
  copy tells the second: ``error`` is that of copying, on the second copy once the match can be found.

``encoding: bytes`` needs nothing. With ``bpe`` the tokens are those of a byte-level byte-pair encoding (Sennrich,
Haddow and Birch 2016, "Neural machine translation of rare words with subword units") that the package tokenizers trains
on the training files alone, and which a run's dataset file holds. Python's own sources differ a little from version to
version, and numbers with them; the dataset file holds a digest of what was read.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt16

from learning_geometry.seeding import seeded
from learning_geometry.tasks import copying
from learning_geometry.tasks.batch import Batch
from learning_geometry.tasks.texts import LIBRARY, documents, text_files

SETTINGS: dict[str, dict[str, Any]] = {
    "file": {
        "type": "string",
        "minLength": 1,
        "default": "python_library",
        "description": "python_library, python_source or python_documentation, which come with Python; or the path of "
        "a text file in UTF-8, or a pattern such as `texts/**/*.txt`",
    },
    "encoding": {
        "enum": ["bytes", "bpe"],
        "default": "bytes",
        "description": "tokens: bytes, or byte pairs merged as often as the vocabulary allows (needs tokenizers)",
    },
    "vocabulary": {
        "type": "integer",
        "minimum": 256,
        "maximum": 65536,
        "default": 256,
        "description": "number of different tokens; 256 of bytes",
    },
    "length": {
        "type": "integer",
        "minimum": 14,
        "default": 64,
        "description": "tokens per sequence",
    },
    "held_out": {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.1,
        "description": "share of the characters that is held out, in whole files if there are several",
    },
    "repeated_length": {
        "type": "integer",
        "minimum": 6,
        "default": 24,
        "description": "length of the segment that is repeated in the test set `repeated`",
    },
    "test_sequences": {
        "type": "integer",
        "minimum": 1,
        "default": 500,
        "description": "sequences in each test set",
    },
}
"""JSON Schema of each setting; a literal, so that it can be read without importing the module."""

ERRORS = ("error",)
"""What ``errors`` returns."""

READOUTS = ("all",)
"""Read-outs of a model that can learn it: every position has a target."""

HELD_OUT, REPEATED = "held_out", "repeated"

BYTES = 256

BETWEEN = "\n\n"
"""What stands between two files."""


class Divided(NamedTuple):
    """The documents that train and those that are held out, by name, and a digest of both."""

    training: dict[str, str]
    held_out: dict[str, str]
    digest: bytes


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting and the remedy, if there is no such text or settings exclude each other."""
    if settings["encoding"] == "bytes" and settings["vocabulary"] != BYTES:
        raise ValueError(f"vocabulary: {settings['vocabulary']}, and there are {BYTES} bytes; set it, or use bpe")
    if settings["encoding"] == "bpe":
        if settings["vocabulary"] <= BYTES:
            raise ValueError(
                f"vocabulary: {settings['vocabulary']} leaves nothing to merge; use more than {BYTES}, or "
                "encoding: bytes"
            )
        if find_spec("tokenizers") is None:
            raise ValueError(
                "encoding: bpe is learned by the package tokenizers, which is not installed; install it "
                "(`pip install tokenizers`), or use bytes"
            )
    if 2 * settings["repeated_length"] + 2 > settings["length"]:
        raise ValueError(
            f"repeated_length: two copies of {settings['repeated_length']} tokens, one token between and one after do "
            f"not fit into a length of {settings['length']}; use at most {(settings['length'] - 2) // 2}"
        )
    try:
        paths = text_files(settings["file"])
    except FileNotFoundError as error:
        raise ValueError(f"file: {error}") from None
    size = sum(path.stat().st_size for path in paths)
    if size * settings["held_out"] < settings["length"] + 1:
        raise ValueError(f"file: {settings['file']} has {size} bytes, too few to hold a window out; give a longer text")


def files(settings: Mapping[str, Any]) -> list[Path]:
    """Return the files that the task reads, whose digests stand for them where it is asked what was made from what."""
    return text_files(settings["file"])


def vocabulary(settings: Mapping[str, Any]) -> int:
    """Return the number of different input tokens."""
    return settings["vocabulary"]


def outputs(settings: Mapping[str, Any]) -> int:
    """Return the number of classes to predict: every token of the vocabulary."""
    return settings["vocabulary"]


def length(settings: Mapping[str, Any]) -> int:
    """Return the number of tokens per sequence."""
    return settings["length"]


def divided(settings: Mapping[str, Any]) -> Divided:
    """Divide the documents of a text into those that train and those held out, the same for every seed.

    They are held out in random order until they have the share asked for. One document is cut at the end of a line.

    Raises:
        FileNotFoundError, ValueError: as ``texts.documents``; or one side would be empty.
    """
    texts = documents(settings["file"])
    hasher = hashlib.blake2b(digest_size=16)
    for name, text in texts.items():
        # neither a file's end nor its place may be mistaken for another's
        hasher.update(f"{name if settings['file'] == LIBRARY else ''}\0{text}\0".encode())
    share, total = settings["held_out"], sum(map(len, texts.values()))
    if len(texts) == 1:
        ((name, text),) = texts.items()
        place = text.rfind("\n", 0, round(total * (1 - share)) + 1) + 1
        training, held_out = {name: text[:place].strip()}, {name: text[place:].strip()}
    else:
        names, out, there = list(texts), set(), 0
        for chosen in seeded("text", "held_out").permutation(len(names)):
            if there >= share * total:
                break
            out.add(names[chosen])
            there += len(texts[names[chosen]])
        training = {name: text for name, text in texts.items() if name not in out}
        held_out = {name: text for name, text in texts.items() if name in out}
    if not all(any(side.values()) for side in (training, held_out)):
        raise ValueError(f"held_out: a share of {share} of {settings['file']} leaves nothing on one side; change it")
    return Divided(training, held_out, hasher.digest())


def drawn_once(settings: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Read, divide and encode the text; the same for every seed.

    Returns:
        ``training`` and ``held_out``, uint16 [tokens]; ``text_digest``, uint8 [16], of all that was read; and of
        ``bpe`` ``tokenizer``, uint8, the JSON from which ``tokenizers.Tokenizer.from_str`` makes it again.
    """
    del seed  # part of every task's interface; seeds differ in the windows that they train on
    return {name: array.copy() for name, array in _encoded(tuple(settings.items()), _stamp(settings)).items()}


@functools.lru_cache(maxsize=1)
def _encoded(items: tuple[tuple[str, Any], ...], stamp: tuple[tuple[int, int], ...]) -> dict[str, np.ndarray]:
    del stamp  # another one is another content
    settings = dict(items)
    training, held_out, digest = divided(settings)
    drawn = {"text_digest": np.frombuffer(digest, np.uint8)}
    if settings["encoding"] == "bytes":
        sides = {name: _as_bytes(texts.values()) for name, texts in (("training", training), (HELD_OUT, held_out))}
        return drawn | sides
    tokenizer = _trained(training.values(), settings["vocabulary"])
    drawn["tokenizer"] = np.frombuffer(tokenizer.to_str().encode(), np.uint8)
    for name, texts in (("training", training), (HELD_OUT, held_out)):
        drawn[name] = _as_pairs(tokenizer, texts.values())
    return drawn


def _stamp(settings: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple((status.st_mtime_ns, status.st_size) for path in files(settings) for status in [path.stat()])


def _as_bytes(texts: Iterable[str]) -> UInt16[np.ndarray, " tokens"]:
    return np.frombuffer(BETWEEN.join(texts).encode(), np.uint8).astype(np.uint16)


def _trained(texts: Iterable[str], size: int) -> Any:
    """Return a byte-level byte-pair encoding with all bytes and the most frequent pairs of some texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _as_pairs(tokenizer: Any, texts: Iterable[str]) -> UInt16[np.ndarray, " tokens"]:
    between = tokenizer.encode(BETWEEN).ids
    ids: list[int] = []
    for text in texts:
        ids += (between if ids else []) + tokenizer.encode(text).ids
    return np.array(ids, np.uint16)


def training_batch(
    settings: Mapping[str, Any],
    drawn_once: Mapping[str, np.ndarray],
    generator: np.random.Generator,
    size: int,
    step: int = 0,
) -> Batch:
    """Draw ``size`` windows of the training text that begin anywhere; targets are the next tokens.

    Raises:
        ValueError: the training text has no window.
    """
    del step  # part of every task's interface; this one is the same throughout training
    text, window = drawn_once["training"], settings["length"]
    if len(text) <= window:
        raise ValueError(f"length: {window} tokens, and the training text has {len(text)}; lower it")
    return _windows(text, generator.integers(len(text) - window, size=size), window)


def test_sets(
    settings: Mapping[str, Any], drawn_once: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return the test sets ``held_out`` and ``repeated``, the same for every seed.

    Returns:
        By name of the test set, int64 arrays ``tokens`` and ``targets`` [test_sequences, length]; of ``repeated`` also
        ``first_start``, ``second_start`` and ``segment_length`` [test_sequences], where the copies are.

    Raises:
        ValueError: too little text is held out for so many windows.
    """
    del seed  # part of every task's interface
    text, window, wanted = drawn_once[HELD_OUT], settings["length"], settings["test_sequences"]
    there = (len(text) - 1) // window
    if there < wanted:
        raise ValueError(
            f"test_sequences: the text held out has {there} windows of {window} tokens, and {wanted} are asked for; "
            "lower it, raise held_out, or give a longer text"
        )
    starts = window * seeded("text", "test", HELD_OUT).permutation(there)[:wanted]
    known = np.unique(drawn_once["training"]).astype(np.int64)
    chosen = {
        "vocabulary": len(known),
        "length": window,
        "out_of_distribution_segment_length": settings["repeated_length"],
    }
    repeated = copying.out_of_distribution(chosen, seeded("text", "test", REPEATED), wanted)
    targets = repeated["targets"]
    repeated |= {
        "tokens": known[repeated["tokens"]],
        "targets": np.where(targets < 0, targets, known[np.maximum(targets, 0)]),
    }
    return {HELD_OUT: _windows(text, starts, window)._asdict(), REPEATED: repeated}


def test_set_sizes(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of sequences of each test set, without drawing any."""
    return dict.fromkeys((HELD_OUT, REPEATED), settings["test_sequences"])


def test_set_arrays(settings: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the names of the arrays of every test set."""
    del settings  # part of the interface
    return {HELD_OUT: {"tokens", "targets"}, REPEATED: set(copying.ARRAYS)}


def errors(
    predictions: Int64[np.ndarray, "sequence position"], test_set: Mapping[str, np.ndarray]
) -> dict[str, Float64[np.ndarray, " sequence"]]:
    """Return ``error`` of each sequence: its share of wrong predictions, at all positions or on the second copy.

    Of ``repeated`` it is the error of ``copying.errors``, whose mean over sequences is a fraction.
    """
    if "second_start" in test_set:
        return {"error": copying.errors(predictions, test_set)["error"]}
    return {"error": (predictions != test_set["targets"]).mean(1)}


def _windows(text: UInt16[np.ndarray, " tokens"], starts: Int64[np.ndarray, " windows"], length: int) -> Batch:
    windows = text[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return Batch(np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:]))
