"""Folders of dictionaries that SAELens wrote: what is in them, without any weight. Right or refused.

A folder holds ``cfg.json`` and ``sae_weights.safetensors``. Every key and tensor must be one that is understood;
SAELens itself passes over keys that it does not know. Read are files from version 6.0 on, of the architectures
``topk``, ``standard`` and ``jumprelu``; a dictionary that was trained as ``batchtopk`` is saved for use as
``jumprelu``.

Source: SAELens 6.54.12, ``saes/sae.py``, ``topk_sae.py``, ``standard_sae.py``, ``jumprelu_sae.py``,
``batchtopk_sae.py`` and ``loading/pretrained_sae_loaders.py``.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry.model_files.headers import safetensors_header
from learning_geometry.sources.hook_points import CHANGED_BY, activation_of, is_activation

CONFIGURATION, WEIGHTS = "cfg.json", "sae_weights.safetensors"

ENTRIES, FOLDER = "dictionaries", "saelens"
"""Setting of a measurement with dictionaries by name -> key of one with a folder of SAELens."""

OURS, OURS_OUT = "activation", "activation_out"
"""Keys of the metadata under which our own dictionaries say, in our names, what they read and what they give."""

TOPK, STANDARD, JUMPRELU = ARCHITECTURES = ("topk", "standard", "jumprelu")

OF_ALL = (
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations"),
)
OF_ONE = {TOPK: ("k", "rescale_acts_by_decoder_norm"), STANDARD: (), JUMPRELU: ()}
OF_TRAINING = {
    TOPK: ("decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient"),
    STANDARD: ("decoder_init_norm", "l1_coefficient", "lp_norm", "l1_warm_up_steps"),
    JUMPRELU: (
        *("decoder_init_norm", "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode"),
        *("l0_coefficient", "l0_warm_up_steps", "pre_act_loss_coefficient", "jumprelu_tanh_scale"),
        *("jumprelu_ste_to_input", "target_l0"),
    ),
}
"""Keys of a checkpoint in training, which change nothing of what is computed after it."""

NONE, LAYER_NORM, CONSTANT_NORM = NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")
"""Values of ``normalize_activations`` that say all that is done to a vector."""

TYPES = ("float32", "float64")
STORED = ("F16", "F32", "F64")


class Description(NamedTuple):
    """What a dictionary is."""

    folder: Path
    architecture: str
    inputs: int
    latents: int
    k: int | None
    """Latents kept for every vector, of ``topk``."""
    dtype: str
    """What it computes in: ``float32`` or ``float64``."""
    subtracts_bias: bool
    """Whether the decoder's bias is subtracted from the input."""
    rescales: bool
    """Whether latents are ranked by their size times the norm of their decoder row."""
    normalisation: str
    """One of ``NORMALISATIONS``."""
    metadata: dict[str, Any]

    def activations(self, chosen: str | None, family: str | None) -> tuple[str, str]:
        """Return our names of the activations that it reads and gives: the same twice but for a transcoder of ours.

        Args:
            chosen: what the config says that it reads; None: nothing.
            family: ``model_type`` of the model; None: not known.

        Raises:
            ValueError: it cannot be told, or the config says something else than the metadata.
        """
        if chosen is not None and not is_activation(chosen):
            raise ValueError(f"activation: {chosen!r} is no activation of a layer, such as layers.3.attention.output")
        where, hook = self.folder / CONFIGURATION, self.metadata.get("hook_name")
        said = self.metadata.get(OURS, hook)
        if said is None and chosen is None:
            raise ValueError(f"{where}: metadata has no hook_name; say in `activation` what the dictionary reads")
        reads = chosen
        if said is not None:
            try:
                reads = activation_of(str(said), family)
            except ValueError as error:
                if chosen is None:
                    problem = f"{where}: hook_name: {error}; say in `activation` what the dictionary reads"
                    raise ValueError(problem) from None
            if chosen is not None and reads not in (None, chosen):
                raise ValueError(f"activation: {chosen}, and by {where} the dictionary reads {said}; leave one out")
            self._check_processing(str(said))
        assert reads is not None
        gives = self.metadata.get(OURS_OUT, self.metadata.get("hook_name_out"))
        try:
            return reads, reads if gives is None else activation_of(str(gives), family)
        except ValueError as error:
            raise ValueError(f"{where}: hook_name_out: {error}; it cannot be judged here") from None

    def _check_processing(self, hook: str) -> None:
        asked = self.metadata.get("model_from_pretrained_kwargs") or {}
        for key, points in CHANGED_BY.items():
            if asked.get(key) and hook.endswith(points):
                raise ValueError(
                    f"{self.folder / CONFIGURATION}: model_from_pretrained_kwargs has {key}, so that the dictionary "
                    "was trained on activations that the model as it is does not have; it cannot be judged here"
                )


def saelens_folders(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the folders of SAELens that a measurement reads, by the names of its dictionaries.

    >>> saelens_folders({"dictionaries": {"mine": {"saelens": "saes/mine"}, "standard": {"latents": 576}}})
    {'mine': 'saes/mine'}
    """
    entries = settings.get(ENTRIES)
    if not isinstance(entries, Mapping):
        return {}
    return {name: each[FOLDER] for name, each in entries.items() if isinstance(each, Mapping) and FOLDER in each}


def dictionary_files(folder: str | Path) -> tuple[Path, Path]:
    """Return the files of a dictionary: its configuration and its weights.

    Raises:
        FileNotFoundError: one is missing.
    """
    files = Path(folder) / CONFIGURATION, Path(folder) / WEIGHTS
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; give a folder that SAELens saved a dictionary to")
    return files


def describe(folder: str | Path) -> Description:
    """Read what a dictionary is, and check that its weights are those of its kind.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a key, a value or a tensor that is not understood; the message names it and the file.
    """
    path, weights = dictionary_files(folder)
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); save the dictionary again") from None
    if not isinstance(configuration, dict):
        raise ValueError(f"{path}: holds no mapping; save the dictionary again")
    try:
        found = _described(Path(folder), configuration)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _check_tensors(weights, found)
    return found


def _described(folder: Path, given: Mapping[str, Any]) -> Description:
    metadata = given.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError("metadata is no mapping")
    architecture = given.get("architecture")
    if architecture == "batchtopk":
        raise ValueError(
            "architecture is 'batchtopk', a checkpoint in training, of which latents depend on the other vectors of a "
            "batch; save it for use with save_inference_model, which makes it a jumprelu"
        )
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture is {architecture!r}, and read are {', '.join(ARCHITECTURES)}")
    version = str(metadata.get("sae_lens_version"))
    if not re.match(r"\d+\.", version) or int(version.partition(".")[0]) < 6:
        raise ValueError(
            f"metadata.sae_lens_version is {version}, and the format is that of 6.0 and later; load the dictionary "
            "with a later SAELens and save it again"
        )
    unknown = sorted(given.keys() - {*OF_ALL, *OF_ONE[architecture], *OF_TRAINING[architecture]})
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: not known of a {architecture} dictionary, and might change what it does"
        )
    missing = sorted({"d_in", "d_sae", *(["k"] if architecture == TOPK else [])} - given.keys())
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; save the dictionary again with SAELens 6 or later")
    reshaped, head = given.get("reshape_activations", "none"), metadata.get("hook_head_index")
    if reshaped != "none":
        raise ValueError(
            f"reshape_activations is {reshaped!r}, and only 'none' is read, of heads that are concatenated"
        )
    if head is not None:
        raise ValueError(f"metadata.hook_head_index is {head!r}: a dictionary of a single head is not read")
    latents = _positive(given, "d_sae")
    k = _positive(given, "k") if architecture == TOPK else None
    if k is not None and k > latents:
        raise ValueError(f"k is {k}, more than the {latents} latents of d_sae")
    return Description(
        folder=folder,
        architecture=architecture,
        inputs=_positive(given, "d_in"),
        latents=latents,
        k=k,
        dtype=_type(given),
        subtracts_bias=_flag(given, "apply_b_dec_to_input", default=True),
        rescales=_flag(given, "rescale_acts_by_decoder_norm", default=False),
        normalisation=_normalisation(given),
        metadata=metadata,
    )


def _positive(given: Mapping[str, Any], key: str) -> int:
    value = given[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {value!r}, and must be a positive integer")
    return value


def _flag(given: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, which is neither true nor false")
    return value


def _type(given: Mapping[str, Any]) -> str:
    dtype = str(given.get("dtype", TYPES[0])).removeprefix("torch.")
    if dtype not in TYPES:
        raise ValueError(
            f"dtype is {dtype!r}, and read are {' and '.join(TYPES)}; save it in float32: "
            "SAE.load_from_disk(folder, dtype='float32').save_model(other_folder)"
        )
    return dtype


def _normalisation(given: Mapping[str, Any]) -> str:
    value = given.get("normalize_activations", NONE)
    if value in ("expected_average_only_in", "covariance_whitening"):
        raise ValueError(
            f"normalize_activations is {value!r}: the numbers that it takes are not in these files; SAELens folds them "
            "into the weights at the end of training, and says 'none' then. Save the dictionary after that"
        )
    if value not in NORMALISATIONS:
        raise ValueError(f"normalize_activations is {value!r}, and read are {', '.join(NORMALISATIONS)}")
    return str(value)


def _check_tensors(weights: Path, found: Description) -> None:
    inputs, latents = found.inputs, found.latents
    expected = {"W_enc": (inputs, latents), "b_enc": (latents,), "W_dec": (latents, inputs), "b_dec": (inputs,)}
    if found.architecture == JUMPRELU:
        expected["threshold"] = (latents,)
    tensors = safetensors_header(weights)
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise ValueError(f"{weights}: {', '.join(unknown)}: not known of a {found.architecture} dictionary")
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(f"{weights}: lacks {', '.join(missing)}, which a {found.architecture} dictionary has")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{weights}: {name} is of shape {tensors[name].shape}, and by {CONFIGURATION} of {shape}")
        if tensors[name].type not in STORED:
            raise ValueError(f"{weights}: {name} is of type {tensors[name].type}, and read are {', '.join(STORED)}")
