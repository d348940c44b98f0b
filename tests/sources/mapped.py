"""Small models, and what a map makes of a state dict of another tool."""

import numpy as np
import torch

from learning_geometry.models import transformer
from learning_geometry.models.sizes import TaskSizes
from learning_geometry.sources.checkpoint import ForeignTensor
from learning_geometry.sources.maps import apply, bind, read_map

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.bool: "BOOL", torch.int64: "I64"}
SIZES = TaskSizes(vocabulary=16, outputs=16, length=12)


def settings(**changed):
    """All options of the transformer, defaults but for those that are changed; width 8, 2 heads, 2 layers."""
    defaults = {key: schema["default"] for key, schema in transformer.SETTINGS.items()}
    return defaults | {"name": "transformer", "width": 8, "heads": 2, "layers": 2} | changed


def drawn(model, seed=0, sizes=SIZES, dtype=torch.float32):
    """Parameters with norms and biases that matter."""
    parameters = transformer.initialise(model, sizes, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in parameters.items()}
    return {name: value.to(dtype) for name, value in drawn.items()}


def shapes(model, sizes=SIZES):
    return {name: tuple(value.shape) for name, value in drawn(model, 0, sizes).items()}


def headers(state):
    """What a reader says of the tensors of a state dict."""
    return {name: ForeignTensor(TYPES[value.dtype], tuple(value.shape)) for name, value in state.items()}


def bound(name, state, model, sizes=SIZES, base=None):
    of = read_map(name) if base is None else read_map(name, base)
    return bind(of, headers(state), shapes(model, sizes), model)


def read_from(state):
    return lambda name: state[name].detach().numpy().copy()


def through(name, state, model, sizes=SIZES, base=None):
    """The parameters that a map makes of a state dict."""
    made = dict(apply(bound(name, state, model, sizes, base), read_from(state)))
    assert made.keys() == shapes(model, sizes).keys()
    return {key: torch.from_numpy(value) for key, value in made.items()}


def logits(parameters, model, tokens):
    return transformer.forward(parameters, tokens, model)


def tokens(length=12, sequences=3, vocabulary=16):
    return torch.randint(vocabulary, (sequences, length), generator=torch.Generator().manual_seed(1))


def scattered(module, seed=0):
    """A module of another tool in float64 whose parameters, norms and biases as well, are far from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.double().eval()


def agree(theirs, ours):
    """In float64, where the kernel that sums does not decide; parts of transformers compute in float32 even then."""
    assert theirs.dtype == ours.dtype == torch.float64
    assert theirs.shape == ours.shape
    assert theirs.std() > 0.1
    torch.testing.assert_close(theirs, ours, atol=1e-6 * float(theirs.abs().max()), rtol=0)


GPT2_LIKE = {
    "mlp_width": 32,
    "positions": "learned",
    "final_norm": True,
    "bias": ["query_key_value", "output", "mlp"],
}
NANOGPT = settings(**GPT2_LIKE, tied_readout=True)
GPT2 = settings(**GPT2_LIKE, tied_readout=True, activation="gelu_tanh")
NEOX = settings(
    **GPT2_LIKE | {"positions": "rotary"}, width=32, rotary_width=4, heads=2, rotary_base=100.0, parallel_residual=True
)
LLAMA = settings(
    norm_kind="rms_norm",
    norm_epsilon=1e-6,
    activation="silu",
    gated_mlp=True,
    mlp_width=24,
    heads=4,
    key_value_heads=2,
    head_width=6,
    final_norm=True,
    bias=False,
    rotary_base=500.0,
)
HOOKED = settings(mlp_width=32, positions="learned", final_norm=True)
