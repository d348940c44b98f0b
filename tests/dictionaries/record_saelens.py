"""What SAELens itself makes of a dictionary of ours, recorded once in ``saelens/``, as it brings a hundred packages.

In an environment of its own: ``pip install sae-lens==6.54.12``, then ``python tests/dictionaries/record_saelens.py``.
``ours`` is what ``storage.save`` wrote, ``theirs`` what SAELens saves of it, ``found.safetensors`` what it computes of
``vectors.safetensors``.
"""

import shutil
from pathlib import Path

import safetensors.torch

FOLDER = Path(__file__).parent / "saelens"


def record() -> None:
    from sae_lens import SAE  # here, as the tests' environment lacks it and pytest imports every module

    sae = SAE.load_from_disk(str(FOLDER / "ours"))
    assert type(sae).__name__ == "TopKSAE"
    vectors = safetensors.torch.load_file(FOLDER / "vectors.safetensors")["vectors"]
    found = {"latents": sae.encode(vectors), "reconstructed": sae(vectors)}
    safetensors.torch.save_file({name: value.detach() for name, value in found.items()}, FOLDER / "found.safetensors")
    shutil.rmtree(FOLDER / "theirs", ignore_errors=True)
    sae.save_model(FOLDER / "theirs")


if __name__ == "__main__":
    record()
