"""Models at Hugging Face's hub: their folders in its local cache, and how they get there."""

import re
from importlib import import_module
from pathlib import Path


def is_hub_id(source: str) -> bool:
    """Return whether that could be the name of a model at the hub: owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None and source[-5:] != ".gguf"


def hub_folder(source: str, revision: str | None) -> Path | None:
    """Return the folder of the hub's local cache that holds a revision; None: there is none.

    Args:
        source: owner/name.
        revision: branch, tag or commit; None: the main branch.
    """
    try:
        cache = import_module("huggingface_hub.constants").HF_HUB_CACHE
    except ModuleNotFoundError:
        return None
    repository = Path(cache) / f"models--{source.replace('/', '--')}"
    name = revision or "main"
    reference = repository / "refs" / name
    commit = reference.read_text().strip() if reference.is_file() else name
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def download_revision(source: str, revision: str | None, gguf: str | None = None) -> None:
    """Download what is read of a model at the hub into its local cache: never a pickle.

    Args:
        source: owner/name.
        revision: branch, tag or commit; None: the main branch.
        gguf: name of a GGUF file, which is then all that is needed.

    Raises:
        ValueError: it cannot be downloaded.
        ModuleNotFoundError: ``huggingface_hub`` is not installed.
    """
    hub = import_module("huggingface_hub")
    kinds = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"] if gguf is None else [gguf]
    try:
        # the folder itself alone; some have all weights twice
        hub.snapshot_download(source, revision=revision, allow_patterns=kinds, ignore_patterns=["*/*", "consolidated*"])
    except Exception as error:  # of many kinds: no network, no such model, no permission
        where = source if revision is None else f"{source} ({revision})"
        raise ValueError(f"{where}: cannot be downloaded ({' '.join(str(error).split())})") from error
