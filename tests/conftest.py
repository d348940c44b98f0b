"""Shapes in signatures are enforced in every test of the package."""

import torch
from jaxtyping import install_import_hook

install_import_hook("learning_geometry", "beartype.beartype")
torch.set_num_threads(1)
