#!/usr/bin/env bash
# torch 2.13.0 gives wrong higher derivatives through F.layer_norm in two places, without a word: torch.func.hessian and
# jacrev(jacrev(...)) in the rows of layer_norm's weight, and the third derivative by its input.
#
# Expected: one Hessian from all of torch's ways to it, symmetric, and as difference quotients of the gradient give it;
#   and the third derivative of the same formula in plain operations.
# Seen: jvp(grad(...)) and torch.autograd.functional.hessian are right; torch.func.hessian and jacrev(jacrev(...)) are
#   off by 61 % in the weight's rows and asymmetric. By the input, the second derivative of autograd is right and the
#   third is off by 48 %.
#
# The script installs public packages in a temporary folder, makes small tensors of random numbers, and ends with 1 if
# the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
import torch.nn.functional as F
from torch.func import grad, hessian, jacrev, jvp

print(f"torch {torch.__version__}, CPU, float64")
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
WIDTH = 5
INPUTS, TARGETS = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
MATRIX, WEIGHT, BIAS = torch.randn(WIDTH, WIDTH), torch.rand(WIDTH) + 0.5, torch.randn(WIDTH) * 0.1
PARAMETERS = torch.cat([MATRIX.flatten(), WEIGHT, BIAS])
ROWS = slice(WIDTH * WIDTH, WIDTH * WIDTH + WIDTH)
STEP = 1e-5


def layer_norm(x, weight, bias):
    return F.layer_norm(x, (WIDTH,), weight, bias, 1e-5)


def plain(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def loss(norm):
    def of(parameters):
        matrix, weight, bias = parameters.split([WIDTH * WIDTH, WIDTH, WIDTH])
        return (norm(INPUTS @ matrix.view(WIDTH, WIDTH), weight, bias) - TARGETS).pow(2).mean()

    return of


def off(seen, expected):
    return float((seen - expected).norm() / expected.norm())


def quotient(of, at, direction):
    return (of(at + STEP * direction) - of(at - STEP * direction)) / (2 * STEP)


def forward_over_reverse(of, at):
    return torch.stack([jvp(grad(of), (at,), (each,))[1] for each in torch.eye(len(at))])


as_found = True
of = loss(layer_norm)
expected = torch.stack([quotient(grad(of), PARAMETERS, each) for each in torch.eye(len(PARAMETERS))])
print("Hessian: expected a relative error below 1e-6 in all rows, and symmetry")
for name, seen, right in [
    ("func.hessian of plain operations", hessian(loss(plain))(PARAMETERS), True),
    ("jvp(grad(...))", forward_over_reverse(of, PARAMETERS), True),
    ("autograd.functional.hessian", torch.autograd.functional.hessian(of, PARAMETERS), True),
    ("func.hessian", hessian(of)(PARAMETERS), False),
    ("jacrev(jacrev(...))", jacrev(jacrev(of))(PARAMETERS), False),
]:
    total, rows, asymmetry = off(seen, expected), off(seen[ROWS], expected[ROWS]), off(seen.T, seen)
    print(f"  seen by {name}: error {total:.1e}, in the weight's rows {rows:.1e}, asymmetry {asymmetry:.1e}")
    as_found &= max(total, rows, asymmetry) < 1e-6 if right else min(total, rows, asymmetry) > 0.1

DIRECTION = torch.randn(4, WIDTH)


def derivatives(norm, x):
    """Second and third derivative by the input along DIRECTION."""
    x = x.clone().requires_grad_()
    value = (norm(x, WEIGHT, BIAS).pow(2) * TARGETS).sum()
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad((first * DIRECTION).sum(), x, create_graph=True)
    (third,) = torch.autograd.grad((second * DIRECTION).sum(), x)
    return second.detach(), third


print("by the input: expected a relative error below 1e-6")
expected_third = quotient(lambda x: derivatives(plain, x)[0], INPUTS, DIRECTION)
for name, norm, right in [("plain operations", plain, True), ("F.layer_norm", layer_norm, False)]:
    second, third = derivatives(norm, INPUTS)
    errors = off(second, derivatives(plain, INPUTS)[0]), off(third, expected_third)
    print(f"  seen by {name}: second derivative {errors[0]:.1e}, third derivative {errors[1]:.1e}")
    as_found &= errors[0] < 1e-6 and (errors[1] < 1e-6 if right else errors[1] > 0.1)
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
nice -n 10 "$folder/venv/bin/python" "$folder/show.py"
