"""Small dictionaries in SAELens' layout."""

import json

import safetensors.torch
import torch

ACTIVATION = "blocks.1.hook_attn_out"


def write_saelens(folder, directions, bias=None, metadata=None, **configuration):
    """Write a standard dictionary: each direction is a latent, its encoder row the same, and what it gives besides.

    Args:
        folder: made if missing.
        directions: rows of the decoder, shape (latents, width).
        bias: of the decoder; None: zeros.
        metadata: beside hook point and version.
        configuration: beside what is always there.
    """
    latents, width = directions.shape
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "architecture": "standard",
        "d_in": width,
        "d_sae": latents,
        "apply_b_dec_to_input": False,
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": ACTIVATION} | (metadata or {}),
    }
    (folder / "cfg.json").write_text(json.dumps(known | configuration))
    tensors = {
        "W_enc": directions.T.contiguous(),
        "b_enc": torch.zeros(latents),
        "W_dec": directions.contiguous(),
        "b_dec": torch.zeros(width) if bias is None else bias,
    }
    safetensors.torch.save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def perfect(width=16):
    """Directions of a dictionary that changes nothing: every axis, and every axis backwards."""
    return torch.cat([torch.eye(width), -torch.eye(width)])
