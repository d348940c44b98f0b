"""Models as plain functions of a dictionary of named parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor

from learning_geometry.models.sizes import TaskSizes


@dataclass(frozen=True)
class Model:
    """A model variant with its settings and sizes bound.

    ``initialise(generator)`` returns the parameters; ``forward(parameters, tokens, dropout=, hook=,
    twice_differentiable=)`` returns the logits.
    """

    settings: dict[str, Any]
    shape: TaskSizes
    initialise: Callable[..., dict[str, Tensor]]
    forward: Callable[..., Tensor]


def build(settings: dict[str, Any], shape: TaskSizes) -> Model:
    """Return the model that ``settings["name"]`` names: the module of that name in this package.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    variant = import_module(f"learning_geometry.models.{settings['name']}")
    return Model(
        settings=settings,
        shape=shape,
        initialise=partial(variant.initialise, settings, shape),
        forward=partial(variant.forward, settings=settings),
    )
