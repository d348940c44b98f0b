"""Adam for gradients that are mostly zero: what has no gradient stays where it is."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SparseAdam(torch.optim.Adam):
    r"""Adam whose moments decay at every step, and which moves only entries with a gradient other than zero.

    With the gradient g at step t, for every entry: $m \leftarrow \beta_1 m + (1 - \beta_1) g$ and
    $v \leftarrow \beta_2 v + (1 - \beta_2) g^2$; where g is not 0, the entry moves by
    $-\eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt v + \epsilon}$.

    How it differs from its peers in torch:

    - ``torch.optim.SparseAdam`` moves the same entries by the same formula, but where the gradient is zero it also
      leaves the moments as they are, instead of letting them decay; and it takes gradients of a sparse layout only.
      So both are equal until the gradient of an entry comes back after having been zero.
    - ``torch.optim.Adam`` has the same moments, but momentum goes on moving entries whose gradient is zero; and its
      $\epsilon$ is added after v's correction for the start, here before it.

    Source: Wang et al. 2025, "Attention layers add into low-dimensional residual subspaces" (arXiv:2508.16929), whose
    dictionaries are trained by an optimiser of this name.

    Args:
        parameters: tensors to optimise, with dense gradients.
        lr: step size η.
        betas: decay of both moments.
        eps: ε.

    >>> weight = torch.zeros(2)
    >>> optimizer = SparseAdam([weight], lr=0.1)
    >>> for gradient in ([1.0, 1.0], [1.0, 0.0]):
    ...     weight.grad = torch.tensor(gradient)
    ...     _ = optimizer.step()
    >>> weight
    tensor([-0.2000, -0.1000])
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        # a group for each: epsilon depends on the steps that a parameter has taken
        groups = [{"params": [parameter], "uncorrected_eps": eps} for parameter in parameters]
        super().__init__(groups, lr=lr, betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient (None) are left out, and so are their moments."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        before = {}
        for group in self.param_groups:
            (parameter,) = group["params"]
            if parameter.grad is not None:
                before[parameter] = parameter.clone()
                steps = int(self.state[parameter]["step"]) if self.state[parameter] else 0
                # Adam's step with this epsilon is the one above
                group["eps"] = group["uncorrected_eps"] / math.sqrt(1 - group["betas"][1] ** (steps + 1))
        super().step()
        for parameter, old in before.items():
            torch.where(parameter.grad == 0, old, parameter, out=parameter)
        return loss
