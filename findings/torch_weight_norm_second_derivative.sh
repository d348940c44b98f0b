#!/usr/bin/env bash
# torch 2.13.0 on a CPU gives wrong second derivatives through torch.nn.utils.parametrizations.weight_norm, without a
# word: in the backward pass the norms of the rows count as constants.
#
# Expected: a Hessian that is symmetric and agrees with difference quotients of the gradient, as for the same formula in
#   plain operations and for dim=None; or an error.
# Seen: first derivatives are right. With the default dim=0 the Hessian is asymmetric, and its trace has the wrong sign.
#
# The script installs public packages in a temporary folder, makes a linear layer of random weights in float64, and ends
# with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

print(f"torch {torch.__version__}, CPU, float64")
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
INPUTS, TARGETS = torch.randn(8, 3), torch.randn(8, 2)
WEIGHT = torch.randn(2, 3)
STEP = 1e-5


class Plain(nn.Module):
    """The definition of weight norm over dim=0."""

    def forward(self, length, direction):
        return length * direction / direction.pow(2).sum(1, keepdim=True).sqrt()

    def right_inverse(self, weight):
        return weight.pow(2).sum(1, keepdim=True).sqrt(), weight


def layer():
    module = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(WEIGHT)
    return module


def plain():
    module = layer()
    register_parametrization(module, "weight", Plain())
    return module


def gradient(module, create_graph=False):
    loss = (module(INPUTS) - TARGETS).pow(2).mean()
    parts = torch.autograd.grad(loss, list(module.parameters()), create_graph=create_graph)
    return torch.cat([each.flatten() for each in parts])


def hessian(module):
    rows = []
    for entry in gradient(module, create_graph=True):
        parts = torch.autograd.grad(entry, list(module.parameters()), retain_graph=True)
        rows.append(torch.cat([each.flatten() for each in parts]))
    return torch.stack(rows)


def quotients(module):
    at = parameters_to_vector(module.parameters()).detach()
    rows = []
    for direction in torch.eye(len(at)):
        ends = []
        for sign in (1, -1):
            vector_to_parameters(at + sign * STEP * direction, module.parameters())
            ends.append(gradient(module))
        rows.append((ends[0] - ends[1]) / (2 * STEP))
    vector_to_parameters(at, module.parameters())
    return torch.stack(rows)


def off(seen, expected):
    return float((seen - expected).norm() / expected.norm())


as_found = True
gradients = {}
for name, module, right in [
    ("plain operations", plain(), True),
    ("weight_norm, dim=None", weight_norm(layer(), dim=None), True),
    ("weight_norm, dim=0", weight_norm(layer()), False),
]:
    seen, expected = hessian(module), quotients(module)
    gradients[name] = gradient(module)
    error, asymmetry = off(seen, expected), off(seen.T, seen)
    print(f"{name}: expected a relative error and an asymmetry below 1e-6, trace {float(expected.trace()):.3f}")
    print(f"  seen: error {error:.1e}, asymmetry {asymmetry:.1e}, trace {float(seen.trace()):.3f}")
    if right:
        as_found &= error < 1e-6 and asymmetry < 1e-6
    else:
        as_found &= error > 0.1 and asymmetry > 0.1 and float(seen.trace()) * float(expected.trace()) < 0
first = off(gradients["weight_norm, dim=0"], gradients["plain operations"])
print(f"first derivatives of dim=0 to plain operations: {first:.1e}")
as_found &= first < 1e-12
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
nice -n 10 "$folder/venv/bin/python" "$folder/show.py"
