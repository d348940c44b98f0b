"""docs/limits.md names tests that there are, and versions that are pinned."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (REPOSITORY / "docs/limits.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| what"))
]


@cache
def functions_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@cache
def pins() -> dict[str, str]:
    lines = "\n".join((REPOSITORY / name).read_text() for name in ("requirements.txt", "constraints.txt"))
    return {name.lower(): version for name, version in re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)$", lines, re.M)}


def test_the_table_is_there():
    assert len(ROWS) > 40 and all(len(row) == 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_a_row_names_a_test_and_a_pinned_version(row):
    what, outcome, _, seen_in, test = row
    path, name = test.strip("`").split("::")
    assert what and outcome and name in functions_in(REPOSITORY / path)
    if seen_in:
        package, _, version = seen_in.partition(" ")
        assert package.lower() in pins() and version in ("", pins()[package.lower()])
