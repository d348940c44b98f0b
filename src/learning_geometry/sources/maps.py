"""From the tensors of another tool to parameters: which tensor is which parameter, and the parameters themselves.

A map (:mod:`learning_geometry.sources.map_files`) is bound to what one file holds, once, and then applied to as many
files as hold the same. Every tensor of the file becomes a parameter, or is left out by name, or is an error; so is
every parameter that the file lacks.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from learning_geometry.model_files import FLOATS
from learning_geometry.model_options import key_value_heads
from learning_geometry.sources import matching, operations
from learning_geometry.sources.checkpoint import ForeignTensor, SourceError
from learning_geometry.sources.map_files import Entry, Map, built_in, nearest, read_map
from learning_geometry.sources.operations import Placement, Shape

__all__ = [
    "Binding",
    "Bound",
    "Map",
    "apply",
    "bind",
    "built_in",
    "check_copies",
    "fused_once",
    "parameter",
    "read_map",
]

HELD_MORE = 0.25
"""What :func:`fused_once` holds beside the largest tensor, as a share of that."""


class Bound(NamedTuple):
    """A parameter, and where it lies in a file."""

    name: str
    shape: Shape
    tensor: str | None
    """Name in the file; None: every number is ``fill``."""
    tensor_shape: Shape = ()
    at: Placement = Placement()
    fill: float = 0.0


class Binding(NamedTuple):
    """What :func:`apply` does with a file."""

    map: str
    bound: tuple[Bound, ...]
    copies: tuple[tuple[Bound, str], ...] = ()
    """Tensors that must be copies of a parameter, and its name: tied read-outs."""
    zeros: tuple[str, ...] = ()
    """Tensors that must hold zeros alone."""
    ignored: tuple[str, ...] = ()
    """Tensors that the map leaves out by name."""
    model: bool = True
    """Whether shapes were compared with those of a model."""
    double: bool = False
    """Whether all tensors are float64; what is filled in then is as well."""


def bind(
    map: Map,
    tensors: Mapping[str, ForeignTensor],
    shapes: Mapping[str, Shape] | None,
    settings: Mapping[str, Any],
) -> Binding:
    """Find every parameter among the tensors of a file, and compare shapes; nothing is read.

    Args:
        map: says which tensor is which parameter.
        tensors: of the file.
        shapes: of the model's parameters. None: there is no model; what the map names is bound but ``fill``, and the
            layers are those of the file.
        settings: of the model, or at least what the operations need: ``heads`` (and ``key_value_heads``, if they are
            fewer) for ``heads``, ``fused`` and ``rotary``, and ``positions`` (and ``rotary_width``) for ``rotary``.

    Raises:
        SourceError: a parameter is missing or a tensor is not used, and the first of each is named with the three
            names nearest to it; shapes or types do not fit, and all that do not are named with both shapes. Without a
            model: a layer before the last is missing, or nothing says that the parts of a fused tensor are equal.
    """
    names = matching.bare_names(map, tensors)
    layers = matching.layers_of(map, names) if shapes is None else matching.numbers(r"layers\.([0-9]+)\.", shapes)
    if shapes is None:
        matching.check_layers(map, layers)
    entries = matching.entries_of(map, max(layers, default=0) + 1)
    if lost := [name for name in shapes or () if name not in entries]:
        raise SourceError(
            f"map {map.name}: does not say what {lost[0]} is, which the model has; nearest in the map: "
            f"{nearest(lost[0], list(entries))}; add it in a map of your own, or correct the model's settings"
        )
    asked = matching.look_up(map, entries, names, shapes)
    ignored = [name for name in asked.left if matching.matches(map, name, map.ignore)]
    zeros = [name for name in asked.left if name not in ignored and matching.matches(map, name, map.zeros)]
    unused = [name for name in asked.left if name not in ignored and name not in zeros]
    if asked.lacking or unused:
        raise SourceError(matching.not_bound(map, asked, unused, entries, names, layers))
    bound = _fitted(map, asked.found, tensors, shapes, settings)
    _check_parts(map, bound)
    if shapes is None:
        _check_equal_parts(map, bound, settings)
    filled = [
        Bound(name, shapes[name], None, fill=entry.fill)
        for name, entry in entries.items()
        if shapes is not None and name in shapes and entry.fill is not None
    ]
    copies = _fitted(map, asked.copies, tensors, shapes, settings)
    return Binding(
        map=map.name,
        bound=(*bound, *filled),
        copies=tuple((each, asked.copies[each.name][0].tied or "") for each in copies),
        zeros=tuple(zeros),
        ignored=tuple(ignored),
        model=shapes is not None,
        double=all(tensors[each.tensor].type == "F64" for each in bound if each.tensor),
    )


def apply(binding: Binding, read: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every parameter by name, one at a time, contiguous; those fused in one tensor follow each other.

    Memory holds one tensor and one parameter at a time, and two of each while a tied read-out is compared.

    Args:
        binding: of :func:`bind`.
        read: returns the tensor of a name in the file.

    Raises:
        SourceError: as :func:`check_copies`.
    """
    check_copies(binding, read)
    last, values = None, np.empty(0)

    def once(tensor: str) -> np.ndarray:
        nonlocal last, values
        if tensor != last:
            last, values = tensor, read(tensor)
        return values

    for bound in binding.bound:
        yield bound.name, parameter(binding, bound, once)


def parameter(binding: Binding, bound: Bound, read: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return one parameter, contiguous.

    Args:
        binding: of :func:`bind`.
        bound: one of its parameters.
        read: returns the tensor of a name in the file.
    """
    if bound.tensor is None:
        return np.full(bound.shape, bound.fill, np.float64 if binding.double else np.float32)
    return operations.place(read(bound.tensor), bound.at)


def fused_once(binding: Binding, read: Callable[[str], np.ndarray]) -> Callable[[str], np.ndarray]:
    """Return what reads as ``read`` does, and a tensor of several parameters once, whatever lies between them.

    It is held until each of its parameters was read. At most a quarter more than the largest such tensor is held at a
    time, as a fused weight with its bias; what was held first goes first then, and is read again.

    Args:
        binding: of :func:`bind`.
        read: returns the tensor of a name in the file.
    """
    uses = Counter(each.tensor for each in binding.bound if each.tensor is not None)
    sizes = {each.tensor: math.prod(each.tensor_shape) for each in binding.bound if each.tensor is not None}
    shared = {tensor: size for tensor, size in sizes.items() if uses[tensor] > 1}
    most = max(shared.values(), default=0) * (1 + HELD_MORE)
    held: dict[str, np.ndarray] = {}
    left: Counter[str] = Counter()

    def once(tensor: str) -> np.ndarray:
        if tensor not in shared:
            return read(tensor)
        if tensor not in held:
            while held and sum(each.size for each in held.values()) + shared[tensor] > most:
                del held[next(iter(held))]
            held[tensor], left[tensor] = read(tensor), uses[tensor]
        values = held[tensor]
        left[tensor] -= 1
        if not left[tensor]:
            del held[tensor]
        return values

    return once


def check_copies(binding: Binding, read: Callable[[str], np.ndarray]) -> None:
    """Compare the tensors that are left out as copies of parameters, or as zero, with what they must be.

    Raises:
        SourceError: a tensor that must be a copy of a parameter is none, or one that must be zero is not.
    """
    for tensor in binding.zeros:
        if read(tensor).any():
            raise SourceError(
                f"{tensor}: is not zero, and the model has no such parameter; correct its `bias` or `norm_bias`"
            )
    by_name = {bound.name: bound for bound in binding.bound}
    for copy, name in binding.copies:
        original = by_name[name]
        values = operations.place(read(str(copy.tensor)), copy.at)
        if not np.array_equal(values, operations.place(read(str(original.tensor)), original.at), equal_nan=True):
            raise SourceError(
                f"{copy.tensor}: is no copy of {original.tensor}, and the model's read-out is tied to its {name}; set "
                "tied_readout: false"
            )


def _fitted(
    map: Map,
    found: Mapping[str, tuple[Entry, str]],
    tensors: Mapping[str, ForeignTensor],
    shapes: Mapping[str, Shape] | None,
    settings: Mapping[str, Any],
) -> list[Bound]:
    """Return parameters with their places, after comparing shapes."""
    fitted, wrong = [], []
    for name, (entry, tensor) in found.items():
        kind, shape = tensors[tensor]
        try:
            at = placement(entry, settings, lambda at, shape=shape: operations.placed_shape(shape, at)[0])  # type: ignore[misc]
            placed = operations.placed_shape(shape, at)
        except SourceError:
            raise
        except ValueError as error:
            wrong.append(f"{name}: {tensor} has the shape {shape}: {error}")
            continue
        expected = placed if shapes is None else shapes[entry.tied if name not in shapes and entry.tied else name]
        if placed != tuple(expected):
            wrong.append(f"{name}: {tensor} of shape {shape} gives {placed}, and the model has {tuple(expected)}")
        if kind not in FLOATS:
            wrong.append(f"{name}: {tensor} is of type {kind}, and parameters are {', '.join(FLOATS)}")
        fitted.append(Bound(name, placed, tensor, shape, at))
    if wrong:
        raise SourceError("\n".join([f"map {map.name}: {len(wrong)} tensors do not fit:", *wrong]))
    return fitted


def placement(entry: Entry, settings: Mapping[str, Any], rows: Callable[[Placement], int]) -> Placement:
    """Return how a parameter lies in a tensor, with the numbers that follow from a model's settings.

    Args:
        entry: of the map.
        settings: of the model, as of :func:`bind`.
        rows: returns the rows of the parameter that lies so, pairs of rotary positions aside.

    Raises:
        SourceError: a setting that is needed is not given.
    """

    def needed(key: str) -> Any:
        if settings.get(key) is None:
            raise SourceError(f"{entry.name}: how it lies in {entry.source} depends on {key}; give {key} under `model`")
        return settings[key]

    at = Placement(entry.transpose, entry.heads_first, ".output." in entry.name, entry.part, entry.per_head)
    halves = entry.halves and needed("positions") == "rotary"
    if not (halves or entry.heads_first or entry.per_head):
        return at
    heads = needed("heads")
    at = at._replace(heads=key_value_heads(settings) if re.search(r"\.(key|value)\.", entry.name) else heads)
    return at._replace(halves=settings.get("rotary_width") or rows(at) // at.heads) if halves else at


def _check_parts(map: Map, bound: Iterable[Bound]) -> None:
    """Refuse a fused tensor of which a part is no parameter, unless the map ignores its name."""
    parts: dict[str, set[tuple[int, int]]] = {}
    for each in bound:
        parts.setdefault(str(each.tensor), set()).add(each.at.part)
    for tensor, taken in parts.items():
        whole = any({(number, count) for number in range(count)} <= taken for _, count in taken)
        if not whole and not matching.matches(map, tensor, map.ignore):
            raise SourceError(
                f"map {map.name}: of {tensor} only the parts {sorted(taken)} are parameters; name the others, or add "
                "its name to `ignore`"
            )


def _check_equal_parts(map: Map, bound: Iterable[Bound], settings: Mapping[str, Any]) -> None:
    """Refuse queries fused with keys or values if nothing says that they are as many: equal parts may be wrong ones.

    It is said by the columns of the layer's output matrix, which reads as many numbers as there are in its queries, or
    by ``heads`` and ``key_value_heads``. Keys fused with values alone are equal always.
    """
    fused: dict[str, list[Bound]] = {}
    widths = {}
    for each in bound:
        if each.name.endswith("attention.output.weight"):
            widths[each.name.removesuffix("output.weight")] = each.shape[1]
        if each.at.part[1] > 1 and re.search(r"\.attention\.(query|key|value)\.", each.name):
            fused.setdefault(str(each.tensor), []).append(each)
    for tensor, parts in fused.items():
        one = next((each for each in parts if ".query." in each.name), parts[0])
        if ".query." not in one.name and len(parts) == one.at.part[1]:
            continue  # keys with values alone
        width = widths.get(one.name[: one.name.index("attention.")] + "attention.")
        if width is not None:
            equal = one.shape[0] == width
        elif settings.get("heads") is None:
            raise SourceError(
                f"map {map.name}: nothing says whether the {one.at.part[1]} parts of {tensor} are equal, and grouped "
                "keys are fewer than queries; give `model`, or the layer's attention.output.weight in the map"
            )
        else:
            equal = key_value_heads(settings) == settings["heads"]
        if not equal:
            raise SourceError(
                f"map {map.name}: {one.name} would be {one.shape[0]} of the rows of {tensor}, as one of "
                f"{one.at.part[1]} equal parts, and there are fewer keys than queries; split the tensor before"
            )
