"""The workflow's own transformer behind the interface of language models."""

from typing import Any

from torch import Tensor

from learning_geometry.model_options import NORM_DEFAULTS, head_width
from learning_geometry.models import Model
from learning_geometry.models.attention import for_queries
from learning_geometry.models.language import Hook, LanguageModel, LayerWeights, ModelSizes, Norm
from learning_geometry.models.sublayers import normed

KINDS = {"layer_norm": "layer", "rms_norm": "root_mean_square"}
"""Kinds of norms in the transformer's settings -> those of ``Norm``."""


def language_model(
    model: Model, parameters: dict[str, Tensor], name: str, origin: dict[str, Any] | None = None
) -> LanguageModel:
    """Return the workflow's transformer with the parameters of one step.

    Its sequences are never padded. Without an MLP residual_post is residual_mid. With ``norm: post`` residual_mid and
    residual_post are the norms of the sums that they are in other models.

    Args:
        model: as ``models.build`` makes it.
        parameters: such as ``Run.parameters(step)``.
        name: what messages and provenance call it.
        origin: where the parameters come from, such as experiment, seed and step.
    """
    # a model of one's own may lack these options
    settings: dict[str, Any] = NORM_DEFAULTS | {"parallel_residual": False, "gated_mlp": False} | model.settings
    shape = model.shape
    width, heads, of_head = settings["width"], settings["heads"], head_width(settings)
    parallel, post = settings["parallel_residual"], settings["norm"] == "post"
    sizes = ModelSizes(
        vocabulary=shape.vocabulary,
        layers=settings["layers"],
        width=width,
        heads=heads,
        head_width=of_head,
        mlp_width=settings["mlp_width"],
        context=shape.length if settings["positions"] == "learned" else None,
    )

    def layer_weights(layer: int) -> LayerWeights:
        gate = "mlp.gate" if settings["gated_mlp"] else "mlp.up"
        attention, down, gate = (f"layers.{layer}.{part}" for part in ("attention", "mlp.down", gate))
        key, value = (
            for_queries(parameters[f"{attention}.{role}.weight"].unflatten(0, (-1, of_head))[None], heads)
            for role in ("key", "value")
        )
        return LayerWeights(
            query=parameters[f"{attention}.query.weight"],
            key=key.flatten(0, 2),
            value=value.flatten(0, 2),
            output=parameters[f"{attention}.output.weight"],
            output_bias=parameters.get(f"{attention}.output.bias"),
            down=parameters.get(f"{down}.weight"),
            down_bias=parameters.get(f"{down}.bias"),
            gate=parameters.get(f"{gate}.weight"),
            gate_bias=parameters.get(f"{gate}.bias"),
            activation=settings["activation"] if sizes.mlp_width else "",
            score_scale=of_head**-0.5,
        )

    def run(tokens: Tensor, mask: Tensor | None, hook: Hook | None) -> Tensor:
        if mask is not None:
            raise ValueError(f"{name}: the workflow's transformer reads no padding; pass sequences of one length")
        return model.forward(parameters, tokens, hook=None if hook is None else see_inputs_too(hook))

    def see_inputs_too(hook: Hook) -> Hook:
        known = {*wrapped.names, "logits"}
        entered: list[Tensor] = []

        def see(activation: str, value: Tensor) -> Tensor:
            if activation not in known:
                return value
            if activation.endswith(".attention.output"):
                # nothing stands between W_O and the stream
                value = hook(activation.replace(".output", ".projected"), value)
            value = hook(activation, value)
            layer, _, part = activation.rpartition(".")
            if part == "residual_pre":
                entered[:] = [value]
            if part == "residual_mid" and sizes.mlp_width:
                # the transformer does not show what its MLPs read
                read = entered[0] if parallel else value
                if not post:
                    read = normed(parameters, read, f"{layer}.mlp_norm", settings, fused=False)
                if hook(f"{layer}.mlp.input", read) is not read:
                    raise ValueError(f"{layer}.mlp.input: cannot be replaced in the workflow's transformer")
            return value

        return see

    wrapped = LanguageModel(
        name=name,
        family=settings["name"],
        sizes=sizes,
        parallel=parallel,
        run=run,
        layer_weights=layer_weights,
        parameters=parameters,
        norm=None if settings["norm"] == "none" else Norm(KINDS[settings["norm_kind"]], settings["norm_epsilon"]),
        origin=origin or {},
    )
    return wrapped
