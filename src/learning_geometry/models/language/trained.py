"""The workflow's own transformer behind the interface of language models."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from learning_geometry.models import Model
from learning_geometry.models.language import Hook, LanguageModel, LayerWeights, ModelSizes, Norm


def language_model(
    model: Model, parameters: dict[str, Tensor], name: str, origin: dict[str, Any] | None = None
) -> LanguageModel:
    """Return the workflow's transformer with the parameters of one step.

    Its sequences are never padded. Without an MLP residual_post is residual_mid.

    Args:
        model: as ``models.build`` makes it.
        parameters: such as ``Run.parameters(step)``.
        name: what messages and provenance call it.
        origin: where the parameters come from, such as experiment, seed and step.
    """
    settings, shape = model.settings, model.shape
    width, heads = settings["width"], settings["heads"]
    sizes = ModelSizes(
        vocabulary=shape.vocabulary,
        layers=settings["layers"],
        width=width,
        heads=heads,
        head_width=width // heads,
        mlp_width=settings["mlp_width"],
        context=shape.length if settings["positions"] == "learned" else None,
    )

    def layer_weights(layer: int) -> LayerWeights:
        attention, down, gate = (f"layers.{layer}.{part}" for part in ("attention", "mlp.down", "mlp.up"))
        return LayerWeights(
            query=parameters[f"{attention}.query.weight"],
            key=parameters[f"{attention}.key.weight"],
            value=parameters[f"{attention}.value.weight"],
            output=parameters[f"{attention}.output.weight"],
            output_bias=parameters.get(f"{attention}.output.bias"),
            down=parameters.get(f"{down}.weight"),
            down_bias=parameters.get(f"{down}.bias"),
            gate=parameters.get(f"{gate}.weight"),
            gate_bias=parameters.get(f"{gate}.bias"),
            activation=settings["activation"] if sizes.mlp_width else "",
            score_scale=(width // heads) ** -0.5,
        )

    def run(tokens: Tensor, mask: Tensor | None, hook: Hook | None) -> Tensor:
        if mask is not None:
            raise ValueError(f"{name}: the workflow's transformer reads no padding; pass sequences of one length")
        return model.forward(parameters, tokens, hook=None if hook is None else see_inputs_too(hook))

    def see_inputs_too(hook: Hook) -> Hook:
        known = {*wrapped.names, "logits"}

        def see(activation: str, value: Tensor) -> Tensor:
            if activation not in known:
                return value
            value = hook(activation, value)
            layer, _, part = activation.rpartition(".")
            if part == "residual_mid" and sizes.mlp_width:
                # the transformer does not show what its MLPs read
                read = _norm(value, parameters, f"{layer}.mlp_norm")
                if hook(f"{layer}.mlp.input", read) is not read:
                    raise ValueError(f"{layer}.mlp.input: cannot be replaced in the workflow's transformer")
            return value

        return see

    wrapped = LanguageModel(
        name=name,
        family=settings["name"],
        sizes=sizes,
        parallel=False,
        run=run,
        layer_weights=layer_weights,
        parameters=parameters,
        norm=Norm("layer", 1e-5) if settings["norm"] == "pre" else None,
        origin=origin or {},
    )
    return wrapped


def _norm(x: Tensor, parameters: dict[str, Tensor], name: str) -> Tensor:
    weight = parameters.get(f"{name}.weight")
    return x if weight is None else F.layer_norm(x, x.shape[-1:], weight, parameters[f"{name}.bias"])
