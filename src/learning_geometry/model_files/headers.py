"""What files of language models say at their head: names, types and shapes of tensors, and the keys of GGUF files.

No weight is read, and neither torch nor the packages that load models are needed. GGUF is read as its specification
has it (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3; its own package needs seconds.
"""

import json
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors

TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""Types of GGUF tensors that can be turned into float32: number -> name, numbers of a block, bytes of a block."""

VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class TensorHeader(NamedTuple):
    """A tensor of a file, without its values."""

    type: str
    """Such as "F32" or "Q4_1"."""
    shape: tuple[int, ...]
    """The last dimension is contiguous."""


class Count(int):
    """The length of an array of texts, whose elements are passed over."""


class Gguf(NamedTuple):
    """The head of a GGUF file."""

    keys: dict[str, Any]
    """Numbers, texts, lists of numbers, and :class:`Count` for lists of texts."""
    tensors: dict[str, TensorHeader]
    places: dict[str, tuple[int, int]]
    """Offset in the file and number of bytes of every tensor."""


class Safetensors(NamedTuple):
    """The head of a safetensors file."""

    tensors: dict[str, TensorHeader]
    places: dict[str, tuple[int, int]]
    """Offset in the file and number of bytes of every tensor."""
    metadata: dict[str, str]


def safetensors_header(path: Path) -> dict[str, TensorHeader]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: it is no such file, or cut.
    """
    with _reading(path, "safetensors"), safetensors.safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: TensorHeader(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


def safetensors_head(path: Path) -> Safetensors:
    """Return tensors, places and metadata of a safetensors file.

    Raises:
        ValueError: it is no such file, or cut.
    """
    tensors = safetensors_header(path)  # which also checks that the places are those of the shapes, and in the file
    with _reading(path, "safetensors"), open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(start - 8))
    metadata = entries.pop("__metadata__", None) or {}
    offsets = {name: entries[name]["data_offsets"] for name in tensors}
    return Safetensors(tensors, {name: (start + low, high - low) for name, (low, high) in offsets.items()}, metadata)


def gguf_header(path: Path) -> Gguf:
    """Return keys and tensors of a GGUF file.

    Raises:
        ValueError: it is no such file, cut, of another version, holds a name twice, or tensors of a type that is not
            among :data:`TYPES`.
    """
    with _reading(path, "GGUF"), open(path, "rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content).read()


class _Reader:
    """Walks through the head of a GGUF file; ``struct`` refuses what lies beyond the end."""

    def __init__(self, content: mmap.mmap):
        self._content, self._at = content, 0

    def read(self) -> Gguf:
        if self._content[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self._at = 4
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"it is of version {version}, and {VERSIONS} are read; convert the model again")
        count, keys_count = self._number("Q"), self._number("Q")
        keys: dict[str, Any] = {}
        for _ in range(keys_count):
            key = self._text()
            if key in keys:
                raise ValueError(f"the key {key} is there twice")
            keys[key] = self._value(self._number("I"), key)
        table = [self._tensor() for _ in range(count)]
        return self._placed(keys, table)

    def _placed(self, keys: dict[str, Any], table: list[tuple[str, TensorHeader, int, int]]) -> Gguf:
        alignment = keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        tensors = {name: header for name, header, _, _ in table}
        if len(tensors) < len(table):
            names = [name for name, _, _, _ in table]
            raise ValueError(f"the tensor {next(name for name in names if names.count(name) > 1)} is there twice")
        places = {name: (start + offset, size) for name, _, offset, size in table}
        for name, (offset, size) in places.items():
            if offset + size > len(self._content):
                raise ValueError(f"it ends before the tensor {name} does")
        return Gguf(keys, tensors, places)

    def _tensor(self) -> tuple[str, TensorHeader, int, int]:
        name = self._text()
        # the first dimension is contiguous
        shape = tuple(self._number("Q") for _ in range(self._number("I")))[::-1]
        number, offset = self._number("I"), self._number("Q")
        if number not in TYPES:
            known = ", ".join(name for name, _, _ in TYPES.values())
            raise ValueError(f"the tensor {name} is of type {number}; read are {known}; use another quantisation")
        kind, block, size = TYPES[number]
        total = 1
        for length in shape:
            total *= length
        if not shape or shape[-1] % block:
            raise ValueError(f"the tensor {name} of shape {shape} cannot be of type {kind}, with blocks of {block}")
        return name, TensorHeader(kind, shape), offset, total // block * size

    def _value(self, kind: int, key: str) -> Any:
        if kind in NUMBERS:
            return self._number(NUMBERS[kind])
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            raise ValueError(f"the key {key} is of type {kind}, which there is not")
        element, length = self._number("I"), self._number("Q")
        if element in NUMBERS:
            form = struct.Struct(f"<{NUMBERS[element]}")
            end = self._at + length * form.size
            if end > len(self._content):
                raise ValueError(f"it ends within the key {key}")
            numbers = [value for (value,) in form.iter_unpack(self._content[self._at : end])]
            self._at = end
            return numbers
        if element != STRING:
            raise ValueError(f"the key {key} is an array of type {element}, which is not read")
        length_of, content, at = struct.Struct("<Q").unpack_from, self._content, self._at
        for _ in range(length):
            at += 8 + length_of(content, at)[0]
        self._at = at
        return Count(length)

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack_from(f"<{form}", self._content, self._at)
        self._at += struct.calcsize(f"<{form}")
        return number

    def _text(self) -> str:
        length = self._number("Q")
        if self._at + length > len(self._content):
            raise ValueError("it ends within a text")
        text = self._content[self._at : self._at + length].decode("utf-8")
        self._at += length
        return text


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, struct.error, OverflowError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path}: cannot be read as {kind} ({error}); it is cut, damaged or no such file: get it again"
        ) from error
