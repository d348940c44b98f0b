"""The weights of a GGUF file in float32, written once as safetensors and mapped into memory by all who load the model.

To dequantise a file takes seconds, and so does what every load must check of what it computes (``self_check``). Weights
whose bytes are those that were written, of a model that passed by the same code, need no second check.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor

from learning_geometry.files import fast_digest, read_tensor_metadata, read_tensors, write_tensors
from learning_geometry.fingerprint import code_fingerprint
from learning_geometry.models.language import LanguageModel
from learning_geometry.paths import how_to_make_again

LOADS = "learning_geometry.models.language.loading"
"""The module that, with all it imports, reads, names and checks weights."""


class Dequantised(NamedTuple):
    """Weights as they were written, and what is known of them."""

    weights: dict[str, Float32[Tensor, "..."]]
    """By the names of the model's parameters, mapped into memory, copy on write."""
    digest: str
    """Of the model (``LanguageModel.digest``)."""
    checked: bool
    """Whether the model that they were written from passed all checks, by the code and the libraries of now."""


def write_dequantised(path: str | Path, model: LanguageModel, gguf: Path, provenance: Mapping[str, Any]) -> None:
    """Write the weights of a model that was loaded, and so checked, from its GGUF file.

    Args:
        path: where to write.
        model: as ``loading.load`` returns it, of no other weights.
        gguf: its file.
        provenance: kept beside what is told here.
    """
    told = {"weights": model.digest(), "gguf": fast_digest(gguf), "checked_by": checked_by()}
    write_tensors(path, model.parameters, dict(provenance) | told)


def read_dequantised(path: str | Path, gguf: Path) -> Dequantised:
    """Map the weights into memory and compare all their bytes with their digests.

    Args:
        path: as :func:`write_dequantised` had it.
        gguf: the file whose weights are wanted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not as it was written, or of another GGUF file.
    """
    metadata = read_tensor_metadata(path)
    if metadata.get("gguf") != fast_digest(gguf):
        raise ValueError(f"{path}: of another file than {gguf}; {how_to_make_again(path)} to make it again")
    weights = {name: torch.from_numpy(array) for name, array in read_tensors(path).items()}
    return Dequantised(weights, metadata["weights"], metadata["checked_by"] == checked_by())


def checked_by() -> dict[str, str]:
    """Return what a check of weights depends on: code, libraries, and the kernels that compute."""
    libraries = {name: version(name) for name in ("torch", "transformers", "gguf", "numpy")}
    return {"code": code_fingerprint(LOADS), "torch_cpu": torch.backends.cpu.get_cpu_capability()} | libraries
