"""What is learned: one file per task, numpy only.

A task is a module with ``SETTINGS``, ``check``, ``vocabulary``, ``outputs``, ``length``, ``drawn_once``,
``training_batch``, ``test_sets`` and ``errors``, as :mod:`learning_geometry.tasks.copying` has them; the
name in the config is the module's name.
"""

from importlib import import_module
from types import ModuleType
from typing import Any


def load(settings: dict[str, Any]) -> ModuleType:
    """Return the module of the task that ``settings["name"]`` names.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    return import_module(f"learning_geometry.tasks.{settings['name']}")
