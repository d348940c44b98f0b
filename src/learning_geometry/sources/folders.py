"""Which files of a checkpoint's folder hold its weights: Hugging Face's, accelerate's, PyTorch's."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from learning_geometry.model_files import ADAPTERS
from learning_geometry.model_files import INDEX as SAFE_INDEX
from learning_geometry.model_files import WHOLE as SAFE
from learning_geometry.model_files.shards import read_index, read_mapping
from learning_geometry.sources.checkpoint import SourceError, steps_in

PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
TENSOR_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")

RANDOM_STATES, OPTIMIZER = "random_states_*.pkl", "optimizer*.bin"
"""What accelerate's ``save_state`` writes beside weights; the Trainer of transformers calls them otherwise."""
NO_WEIGHTS = (
    *("optimizer*.pt", "scheduler*.pt", "scaler*.pt", "rng_state*.pth", "training_args.bin"),
    *(OPTIMIZER, "scheduler*.bin", "sampler*.bin", "dl_state_dict*.bin"),
)
"""Files of Trainer and accelerate that hold no weights, whatever their ending says."""
OTHER_WEIGHTS = ("pytorch_model*.bin", "consolidated*")
"""Files at the hub that hold the same weights once more, which transformers passes over where there are safetensors."""

TRAINER_STATE = "trainer_state.json"
SHOWN = 6


class Weights(NamedTuple):
    """The files that hold the weights of a checkpoint."""

    files: tuple[Path, ...]
    index_file: Path | None
    """What says which file holds which tensor; None: there is one file, without an index."""
    named: dict[str, str]
    """What the index says: tensor -> name of the file."""


def weight_files(path: Path) -> Weights:
    """Return the files that hold the weights of a checkpoint.

    A folder holds ``model.safetensors`` or ``pytorch_model.bin``, or shards and an index of either. Where there are
    both, safetensors are read if ``config.json`` says that it is a model in Hugging Face's layout, as transformers
    does; elsewhere they may be from two saves, and the folder is refused.

    Args:
        path: a file, an index (``….index.json``) or a folder.

    Raises:
        SourceError: there is no such path, it cannot be told which files are meant, or they cannot be read.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; correct the path")
    try:
        if not path.is_dir():
            return _shards(path) if path.name.endswith(".index.json") else Weights((path,), None, {})
        return _in_folder(path)
    except SourceError:
        raise
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from None


def files_of(path: Path) -> tuple[Path, ...]:
    """Return all files that are read of a checkpoint, the index of its shards among them.

    Raises:
        SourceError: as :func:`weight_files`.
    """
    weights = weight_files(path)
    return (*weights.files, *((weights.index_file,) if weights.index_file is not None else ()))


def trainer_steps(path: Path) -> dict[str, int]:
    """Return what ``trainer_state.json`` says of the step, of a folder or of the folder of a file; {}: nothing.

    Raises:
        SourceError: it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / TRAINER_STATE).is_file():
        return {}
    try:
        return steps_in(read_mapping(folder / TRAINER_STATE, "state", "copy it again, or give the steps"))
    except ValueError as error:
        raise SourceError(f"{folder}: {error}") from None


def counts_saves(path: Path) -> bool:
    """Return whether accelerate named a checkpoint: then the number in its name counts saves, and no step is inside.

    ``save_state`` without a folder writes ``checkpoint_0``, ``checkpoint_1``, …; folders that users name are theirs.

    Args:
        path: the folder, or a file in it.
    """
    folder = path if path.is_dir() else path.parent
    # the name first: looking into the folder of each of a thousand files takes seconds
    if re.fullmatch(r"checkpoint_\d+", folder.name) is None or trainer_steps(folder):
        return False
    return any(True for pattern in (RANDOM_STATES, OPTIMIZER) for _ in folder.glob(pattern))


def _in_folder(folder: Path) -> Weights:
    names = sorted(each.name for each in folder.iterdir() if each.is_file())
    _refuse_distributed(folder, names)
    if adapter := [name for name in ADAPTERS if name in names]:
        raise ValueError(f"{adapter[0]} is an adapter (such as LoRA), without which nothing is said; merge it first")
    safe, pickled = (
        [name for name in pair if name in names] for pair in ((SAFE, SAFE_INDEX), (PICKLED, PICKLED_INDEX))
    )
    for pair in (safe, pickled):
        if len(pair) > 1:
            raise ValueError(f"holds both {pair[0]} and {pair[1]}, and one would be read; give that file in `files`")
    if not safe and not pickled:
        raise ValueError(_none_there(folder, names))
    hugging_face = "config.json" in names
    if safe and pickled and not hugging_face:
        raise ValueError(
            f"holds both {safe[0]} and {pickled[0]}, which may be of two saves; give the one that is meant in `files`"
        )
    chosen = folder / (safe or pickled)[0]
    weights = _shards(chosen) if chosen.name.endswith(".index.json") else Weights((chosen,), None, {})
    passed_over = (*NO_WEIGHTS, *(OTHER_WEIGHTS if safe and hugging_face else ()))
    for name in names:
        known = folder / name in weights.files or any(fnmatch(name, pattern) for pattern in passed_over)
        if name.endswith(TENSOR_FILES) and not known:
            raise ValueError(
                f"holds {name} beside {chosen.name}, and its weights might be of both; give the one that is meant in "
                "`files`"
            )
    return weights


def _shards(index: Path) -> Weights:
    ending = ".bin" if index.name.endswith(".bin.index.json") else ".safetensors"
    named = read_index(index, ending)
    return Weights(tuple(index.parent / name for name in sorted(set(named.values()))), index, named)


def _refuse_distributed(folder: Path, names: list[str]) -> None:
    """Refuse what torch.distributed.checkpoint wrote: what lies where is in a pickle, which is not read."""
    inside = [each for each in sorted(folder.iterdir()) if each.is_dir() and (each / ".metadata").is_file()]
    here = ".metadata" in names or any(name.endswith(".distcp") for name in names)
    has_weights = any(name in names for name in (SAFE, SAFE_INDEX, PICKLED, PICKLED_INDEX))
    if here or (inside and not has_weights):
        made = folder if here else inside[0]
        command = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        raise SourceError(
            f"{made}: was written by torch.distributed.checkpoint, and its .metadata is a pickle, which is not read; "
            f"convert it once, if you trust it: `{command} {shlex.quote(str(made))} {shlex.quote(made.name + '.pt')}`, "
            "and give that file in `files`"
        )


def _none_there(folder: Path, names: list[str]) -> str:
    if "zero_to_fp32.py" in names:
        return "was written by DeepSpeed; make one file of it with its own zero_to_fp32.py, which the folder holds"
    there = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "") if names else "no file"
    files = [name for name in names if name.endswith(TENSOR_FILES) and not any(fnmatch(name, p) for p in NO_WEIGHTS)]
    cure = f"give the file itself in `files`, such as {folder / files[0]}" if files else "give another folder"
    return f"holds none of {SAFE}, {SAFE_INDEX}, {PICKLED} and {PICKLED_INDEX}; there is {there}; {cure}"
