"""On which device a language model's weights lie, and what is done where they do not all fit."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What weights may be computed in, by the names that the config has for them."""

FOR_ACTIVATIONS = 0.25
"""Share of the device's free memory that is left for activations, sums and the layer that is passed through."""


def chosen_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU if there is one.

    Raises:
        ValueError: no such name, or no such device.
    """
    if name not in DEVICES:
        raise ValueError(f"device: {name!r} is not known; use one of {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("device: cuda, and PyTorch finds no such device here; set it to auto or cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def place(module: Any, blocks: Sequence[Any], device: torch.device, room: Callable[[], int] | None = None) -> int:
    """Put a model's weights on a device, as far as there is room, and return how many of its blocks stay behind.

    Those are moved there while they compute, one after the other, and back to the main memory (``accelerate``).

    Args:
        module: the model, its weights in the main memory.
        blocks: its layers, in the order in which they compute.
        device: where to put them.
        room: bytes that weights may take there; None: all but a quarter of what is free, without a bound on the CPU.

    Raises:
        ValueError: not even what is no block fits.
    """
    if device.type == "cpu" and room is None:
        return 0
    left = _free(device) if room is None else room()
    outside = _bytes(module) - sum(map(_bytes, blocks))
    if outside + sum(map(_bytes, blocks)) <= left:
        module.to(device)
        return 0
    # the layer that computes and the one before it, which makes way for it
    left -= outside + 2 * max(map(_bytes, blocks))
    if left < 0:
        raise ValueError(f"device: {device} has too little memory for the embedding and two layers; set it to cpu")
    of_blocks = {id(each) for block in blocks for each in (*block.parameters(), *block.buffers())}
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in of_blocks:
                tensor.data = tensor.data.to(device)
    behind: list[Any] = []
    for block in blocks:
        size = _bytes(block)
        if not behind and size <= left:
            block.to(device)
            left -= size
        else:
            behind.append(block)
    _pass_through(behind, device)
    return len(behind)


def _pass_through(blocks: Sequence[Any], device: torch.device) -> None:
    """Let each block come to the device when it computes, and send the one before it back."""
    from accelerate import cpu_offload_with_hook

    before = None
    hooks = []
    for block in blocks:
        _, before = cpu_offload_with_hook(block, execution_device=device, prev_module_hook=before)
        hooks.append(before)
    # with the next pass the last one makes way for the first
    hooks[0].hook.prev_module_hook = hooks[-1]


def _bytes(module: Any) -> int:
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in tensors.values())


def _free(device: torch.device) -> int:
    return int((1 - FOR_ACTIVATIONS) * torch.cuda.mem_get_info(device)[0])
