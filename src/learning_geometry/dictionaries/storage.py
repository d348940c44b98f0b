"""Dictionaries on disk, in the layout of SAELens, so that its ``SAE.load_from_disk`` reads ours and we read its own.

A directory holds ``cfg.json`` and ``sae_weights.safetensors`` with W_enc (inputs, latents), b_enc (latents), W_dec
(latents, outputs) and b_dec (outputs). They are for vectors as the model has them: the scale that a dictionary was
trained with is folded in.

SAELens sets kept pre-activations below 0 to 0, ours stay: reconstructions agree wherever the k largest are positive. It
knows no TopK transcoder; one of equal widths is the same function as a TopK autoencoder, and is saved as one.

Source: SAELens 6.54, ``sae_lens.saes.topk_sae`` and ``sae_lens.loading.pretrained_sae_loaders``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from learning_geometry.dictionaries import topk
from learning_geometry.files import (
    NoMetadataError,
    read_json,
    read_tensor_metadata,
    read_tensors,
    write_json,
    write_tensors,
)
from learning_geometry.paths import how_to_make_again

CONFIGURATION, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FORMAT = "6.54.12"
"""Version of SAELens whose format is written; it takes files without one, or before 6.0, for another format."""


class Saved(NamedTuple):
    """A dictionary read from disk, for vectors as the model has them."""

    dictionary: topk.Dictionary
    k: int
    metadata: dict[str, Any]


def save(
    directory: str | Path,
    dictionary: topk.Dictionary,
    k: int,
    metadata: Mapping[str, Any],
    scale: float = 1.0,
    target_scale: float | None = None,
) -> None:
    """Write a dictionary; a directory that has one already gets the new one.

    Args:
        directory: made if missing.
        dictionary: in float32 or float64.
        k: latents kept for every vector.
        metadata: what JSON can hold: where the vectors come from and what made the dictionary. SAELens uses
            ``model_name``, ``hook_name``, ``dataset_path``, ``context_size`` and ``prepend_bos`` if they are there, and
            for a transcoder ``hook_name_out``.
        scale: what vectors were multiplied by in training.
        target_scale: the same of targets (a transcoder); None: the vectors'.

    Raises:
        ValueError: a transcoder of two widths, which the format cannot hold, or metadata that JSON cannot hold.
    """
    encoder, decoder = dictionary["encoder.weight"], dictionary["decoder.weight"]
    if encoder.shape != decoder.shape:
        raise ValueError(
            f"{directory}: the format holds no transcoder from width {encoder.shape[1]} to {decoder.shape[1]}; "
            "save its tensors with files.write_tensors"
        )
    target_scale = scale if target_scale is None else target_scale
    tensors = {
        "W_enc": (scale * encoder).T.contiguous(),
        "b_enc": dictionary["encoder.bias"],
        "W_dec": decoder / target_scale,
        "b_dec": dictionary["decoder.bias"] / target_scale,
    }
    configuration = {
        "architecture": "topk",
        "k": k,
        "d_in": encoder.shape[1],
        "d_sae": encoder.shape[0],
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "rescale_acts_by_decoder_norm": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # null: trained by none of its versions
        "metadata": {**metadata, "sae_lens_version": FORMAT, "sae_lens_training_version": None},
    }
    write_tensors(Path(directory) / WEIGHTS, tensors, configuration)
    write_json(Path(directory) / CONFIGURATION, configuration)


def load(directory: str | Path) -> Saved:
    """Read a TopK dictionary that :func:`save` or SAELens (from 6.0) wrote.

    What SAELens may leave to be done is folded in: the decoder's bias subtracted from the input, and latents ranked by
    their size times the norm of their decoder row.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another kind of dictionary, activations normalised or reshaped in it, or tensors of other shapes.
    """
    path = Path(directory) / CONFIGURATION
    configuration = read_json(path)
    for key, known in (("architecture", "topk"), ("normalize_activations", "none"), ("reshape_activations", "none")):
        if configuration.get(key, "none") != known:
            raise ValueError(f"{path}: {key} is {configuration.get(key)!r}, and only {known!r} can be read")
    missing = sorted({"k", "d_in", "d_sae"} - configuration.keys())
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; save the dictionary again with SAELens 6 or later")
    weights = Path(directory) / WEIGHTS
    tensors = {name: torch.from_numpy(array) for name, array in read_tensors(weights).items()}
    _compare(path, configuration, weights)
    inputs, latents = configuration["d_in"], configuration["d_sae"]
    expected = {"W_enc": (inputs, latents), "b_enc": (latents,), "W_dec": (latents, inputs), "b_dec": (inputs,)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected:
        raise ValueError(f"{Path(directory) / WEIGHTS}: expected {expected}, found {shapes}; save the dictionary again")
    encoder, decoder = tensors["W_enc"].T.contiguous(), tensors["W_dec"]
    bias = tensors["b_enc"]
    # SAELens' own defaults, where a file is silent
    if configuration.get("apply_b_dec_to_input", True):
        bias = bias - encoder @ tensors["b_dec"]
    if configuration.get("rescale_acts_by_decoder_norm", False):
        norms = decoder.norm(dim=1)
        encoder, bias, decoder = encoder * norms[:, None], bias * norms, decoder / norms[:, None]
    dictionary = {
        "encoder.weight": encoder,
        "encoder.bias": bias,
        "decoder.weight": decoder,
        "decoder.bias": tensors["b_dec"],
    }
    return Saved(dictionary, configuration["k"], configuration.get("metadata", {}))


def _compare(path: Path, configuration: Mapping[str, Any], weights: Path) -> None:
    """Raise an error if a configuration is not that which :func:`save` recorded beside the weights as well."""
    try:
        recorded = read_tensor_metadata(weights)
    except NoMetadataError:
        return  # of SAELens
    for key in sorted(recorded.keys() & configuration.keys()):
        if recorded[key] != configuration[key]:
            raise ValueError(
                f"{path}: {key} is {configuration[key]!r}, and {recorded[key]!r} in {weights.name}; "
                f"{how_to_make_again(path)} to make them again"
            )
