"""What a comparison says to its rule, compared with the rule's parameters before any job, and so without imports."""

import ast
import functools
from collections.abc import Mapping

from learning_geometry.claims.claim import Claim, Comparison
from learning_geometry.discovery import module_file


def parameters_of(rule: str) -> Mapping[str, bool]:
    """Return the parameters of a rule, read from the source of its file -> whether a comparison must say them.

    Raises:
        KeyError: there is no such file.
    """
    return _parameters_in(module_file("rules", rule).read_text(encoding="utf-8"))


@functools.cache
def _parameters_in(source: str) -> Mapping[str, bool]:
    tree = ast.parse(source)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Parameters"]
    return {
        field.target.id: field.value is None
        for each in classes
        for field in each.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def said(claim: Claim, comparison: Comparison, known: Mapping[str, bool]) -> dict[str, object]:
    """Return what a comparison says to its rule.

    A rule that reads a null of the tables has a parameter ``baseline`` without a default: it is the name of the
    comparison's null, unless the comparison says otherwise (two of its rows may read nulls of one name).

    Args:
        claim: of the comparison.
        comparison: what says it.
        known: the rule's parameters, see :func:`parameters_of`.

    Raises:
        ValueError: the comparison says what the rule does not know, or does not say what it needs, naming the claim.
    """
    says = ({"baseline": comparison.null} if known.get("baseline") else {}) | dict(comparison.parameters)
    problems = [f"does not know {name!r}" for name in says if name not in known]
    problems += [f"needs {name!r}" for name, needed in known.items() if needed and name not in says]
    if problems:
        raise ValueError(
            f"{claim.name}: the rule {comparison.rule} {' and '.join(problems)} (in the comparison with "
            f"{comparison.null}); its parameters: {', '.join(known)}"
        )
    return says
