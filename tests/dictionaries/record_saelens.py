"""What SAELens itself makes of dictionaries, recorded once in ``saelens/``, as it brings a hundred packages.

In an environment of its own: ``pip install sae-lens==6.54.12``, then ``python tests/dictionaries/record_saelens.py``.
``ours`` is what ``storage.save`` wrote, ``theirs`` what SAELens saves of it, ``found.safetensors`` what it computes of
``vectors.safetensors``. ``kinds`` holds dictionaries of other kinds with random weights, each saved as SAELens saves
it, and with ``found.safetensors`` what it computes, and the variance explained as its evaluation has it.
"""

import shutil
from pathlib import Path

import safetensors.torch

FOLDER = Path(__file__).parent / "saelens"
WIDTH, LATENTS, ACTIVE = 6, 20, 3
LN, CONSTANT = {"normalize_activations": "layer_norm"}, {"normalize_activations": "constant_norm_rescale"}
KINDS = {
    "standard": ("standard", LN),
    "standard_plain": ("standard", {"apply_b_dec_to_input": False}),
    "jumprelu": ("jumprelu", CONSTANT | {"apply_b_dec_to_input": False}),
    "topk": ("topk", {"k": ACTIVE, "rescale_acts_by_decoder_norm": True}),
    "topk_double": ("topk", {"k": ACTIVE, "dtype": "float64"} | LN),
}
"""Name -> architecture and settings of the dictionaries that are saved as they are used."""
IN_TRAINING = {
    "batchtopk": ("batchtopk", {"k": float(ACTIVE)}),
    "topk_in_training": ("topk", {"k": ACTIVE, "use_sparse_activations": False}),
}
"""The same of those that are in training: the first is saved for use, the second as a checkpoint."""


def record() -> None:
    from sae_lens import SAE  # here, as the tests' environment lacks it and pytest imports every module

    sae = SAE.load_from_disk(str(FOLDER / "ours"))
    assert type(sae).__name__ == "TopKSAE"
    vectors = safetensors.torch.load_file(FOLDER / "vectors.safetensors")["vectors"]
    found = {"latents": sae.encode(vectors), "reconstructed": sae(vectors)}
    safetensors.torch.save_file({name: value.detach() for name, value in found.items()}, FOLDER / "found.safetensors")
    shutil.rmtree(FOLDER / "theirs", ignore_errors=True)
    sae.save_model(FOLDER / "theirs")
    shutil.rmtree(FOLDER / "kinds", ignore_errors=True)
    for number, (name, (architecture, settings)) in enumerate((KINDS | IN_TRAINING).items()):
        record_kind(name, architecture, settings, number, vectors)


def record_kind(name, architecture, settings, seed, vectors):
    import torch
    from sae_lens import SAE
    from sae_lens.evals import ExplainedVarianceCalculator
    from sae_lens.registry import get_sae_class, get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    of_kind, config = (get_sae_training_class if name in IN_TRAINING else get_sae_class)(architecture)
    metadata = SAEMetadata(model_name="some/model", hook_name="blocks.3.hook_attn_out", hook_head_index=None)
    sae = of_kind(config(d_in=WIDTH, d_sae=LATENTS, metadata=metadata, **settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn_like(weight) * 0.7)
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.8)
    folder = FOLDER / "kinds" / name
    save = sae.save_inference_model if name == "batchtopk" else sae.save_model
    save(folder)
    used = SAE.load_from_disk(str(folder))
    latents = used.encode(vectors).detach()
    reconstructed = used(vectors).detach()
    calculator = ExplainedVarianceCalculator()
    calculator.add_batch(reconstructed, vectors)
    found = {"latents": latents, "reconstructed": reconstructed}
    found["explained_variance"] = torch.tensor(calculator.compute(), dtype=torch.float64)
    safetensors.torch.save_file(found, folder / "found.safetensors")


if __name__ == "__main__":
    record()
