"""Tensors of PyTorch's files, mapped into memory and read one by one; no pickled object is ever made."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learning_geometry.sources.checkpoint import READABLE, ForeignTensor, Held, SourceError, steps_in
from learning_geometry.sources.refusals import refusal
from learning_geometry.sources.states import beside, find_state

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""PyTorch's types that are read, as safetensors names them."""

ZIP = b"PK\x03\x04"
DISTRIBUTED_TENSORS = "torch.distributed.tensor"
"""What must be imported before a DTensor is loaded; it takes a second or two, and few files hold one."""


@contextmanager
def open_torch(path: Path, state: str | None) -> Iterator[Held]:
    """Open a file of ``torch.save``, of its zip format or of the one before PyTorch 1.6.

    Args:
        path: the file.
        state: keys that lead to the state dict, joined by dots; None: see :func:`states.find_state`.

    Raises:
        SourceError: it is no such file or cut, holds anything besides tensors, containers and numbers, or no state
            dict, or tensors of which a rank of several saved its part.
    """
    content = _load(path)
    where, found = find_state(content, state, path)
    tensors = {name: _whole(tensor, f"{path}: {name}") for name, tensor in found.items()}
    inside = steps_in(content) if where else {}
    others = tuple(beside(content, where))
    del content, found  # optimizers need not stay
    heads = {name: ForeignTensor(_kind(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}

    def read(name: str) -> np.ndarray:
        return _values(tensors[name], heads[name], f"{path}: {name}")

    try:
        yield Held(heads, _tied(tensors), where, inside, read, beside=others)
    finally:
        tensors.clear()


def _load(path: Path) -> Any:
    """What the file holds. The zip format is mapped, and read from the disk when a tensor is."""
    with open(path, "rb") as file:
        mapped = file.read(4) == ZIP
    for distributed in (False, True):
        try:
            if distributed:
                import_module(DISTRIBUTED_TENSORS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what PyTorch will no longer have; what is not read here is refused
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # of many kinds: damaged bytes reach deep into its readers
            if distributed or f"{DISTRIBUTED_TENSORS}`` must be imported" not in str(error):
                # its text advises to load without the limit
                raise refusal(path, error) from None
    raise AssertionError("the second time returns or raises")


def _whole(tensor: Tensor, where: str) -> Tensor:
    """The tensor without gradients, of this process alone."""
    if tensor.is_nested:
        raise SourceError(f"{where} is a nested tensor, which has no shape; save its parts")
    mesh: Any = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return tensor.detach()
    shares: Any = tensor  # a DTensor
    if mesh.size() > 1 and not all(placement.is_replicate() for placement in shares.placements):
        raise SourceError(
            f"{where} is one rank's part, of {mesh.size()}; save what torch.distributed.checkpoint.state_dict."
            "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) returns"
        )
    whole: Tensor = shares.to_local()
    return whole.detach()


def _kind(tensor: Tensor) -> str:
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.").upper()
    return TYPES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.").upper())


def _values(tensor: Tensor, head: ForeignTensor, where: str) -> np.ndarray:
    if head.type not in READABLE:
        raise SourceError(f"{where} is of type {head.type}, which is not read; save it in float32, or ignore it")
    if tensor.is_meta:
        raise SourceError(f"{where} has no values (it was saved on the device meta); save the model's own")
    wide = torch.float32 if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor.dtype
    # a view of a large storage becomes an array of its own size, and no view of the mapped file
    return torch.empty(tensor.shape, dtype=wide).copy_(tensor).numpy()


def _tied(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Names whose values are in the very same memory as those of a name before."""
    first: dict[Any, str] = {}
    tied = {}
    for name, tensor in tensors.items():
        if _kind(tensor) not in READABLE or not tensor.numel() or tensor.is_meta:
            continue
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if first.setdefault(place, name) != name:
            tied[name] = first[place]
    return tied
