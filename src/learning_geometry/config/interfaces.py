"""What a module found by name must hold beside the literal that describes it, read from its text before any job.

Only modules that a config uses are looked at: a half-written one stops no other config.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learning_geometry import discovery
from learning_geometry.config.modules import module_literal, parsed
from learning_geometry.config.needs import needs
from learning_geometry.config.problems import ConfigError
from learning_geometry.config.schemas import SCHEMA
from learning_geometry.config.wording import did_you_mean
from learning_geometry.paths import OF_A_RUN

CALLED: dict[str, dict[str, str]] = {
    "tasks": {
        "check": "settings",
        "vocabulary": "settings",
        "outputs": "settings",
        "length": "settings",
        "drawn_once": "settings, seed",
        "training_batch": "settings, drawn_once, generator, size, step",
        "test_sets": "settings, drawn_once, seed",
        "errors": "predictions, test_set",
    },
    "models": {"initialise": "settings, shape, generator", "forward": "parameters, tokens, settings, *, …"},
    "measurements": {"measure": "run, settings"},
    "derived": {"derive": "table"},
    "figures": {"draw": "tables, options"},
}
"""Kind of module -> the functions that are called of one, and with what."""

CAPTIONS = SCHEMA.parents[1] / "report"
"""Folder of the figures' captions."""


def interface_problems(kind: str, name: str) -> list[str]:
    """Return what a module lacks, one line each with its file and what to add; nothing if it can be used.

    Args:
        kind: one of ``CALLED``.
        name: of a module that there is.
    """
    path = discovery.module_file(kind, name)
    try:
        there = set(_bound(parsed(path).body))
        problems = [
            f"{path} has no {function}(); add {function}({arguments})"
            for function, arguments in CALLED[kind].items()
            if function not in there
        ]
        if kind == "measurements":
            needs(name)
            if name in OF_A_RUN:
                problems.append(f"{path}: the results of a run have {name} already; call the measurement otherwise")
        elif kind == "derived":
            problems += _derived_problems(path, name)
        elif kind == "figures":
            problems += _figure_problems(path, name)
    except ConfigError as error:
        return list(error.problems)
    return problems


def derived_problems() -> dict[str, str]:
    """Return what derived quantities lack, by name: the tables of every experiment are searched for all of them."""
    names = [path.stem for path in discovery.module_files("derived")]
    by_name = {name: interface_problems("derived", name) for name in names}
    return {name: "; ".join(problems) for name, problems in by_name.items() if problems}


def _bound(statements: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements of a module bind, those under ``if`` and ``try`` among them."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in statement.names)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _bound(statement.body)
            yield from _bound(getattr(statement, "orelse", []))
            for handler in getattr(statement, "handlers", []):
                yield from _bound(handler.body)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _derived_problems(path: Path, name: str) -> Iterator[str]:
    try:
        wanted = module_literal("derived", name, "DERIVED_FROM")
    except KeyError:
        yield f"{path} has no DERIVED_FROM; add it, the quantities that it is derived from (() for any table)"
        return
    if not _is_names(wanted):
        yield f"{path}: DERIVED_FROM is {wanted!r}; list names of quantities"


def _figure_problems(path: Path, name: str) -> Iterator[str]:
    required = module_literal("figures", name)
    if not _is_names(required):
        yield f"{path}: REQUIRES is {required!r}; list names of measurements"
    else:
        known = [each.stem for each in discovery.module_files("measurements")]
        for unknown in [each for each in required if each not in known]:
            close = did_you_mean(unknown, known)
            yield f"{path}: REQUIRES names {unknown}, and there is no such measurement{close} correct it"
    caption = CAPTIONS / f"{name}.rst"
    if not caption.is_file():
        yield f"{path} has no caption; write {caption}"
