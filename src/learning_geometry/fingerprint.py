"""A fingerprint of the code that a rule really uses, so that the cache follows the code and nothing else.

The fingerprint covers every module of the package that the given modules or scripts import, directly or
through others, as syntax trees: an edit to any statement changes it (type annotations count); a comment, a
docstring or a reformat does not. Imports are read from the source and nothing is executed, so a module that
is imported by a name computed at run time must be given as a root of its own.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent
"""Directory of the package whose modules are followed; its name is the package's name."""


def code_fingerprint(*roots: str | Path, package: Path = PACKAGE) -> str:
    """Return a hash, 16 hexadecimal digits, of the code of ``roots`` and of all they import from the package.

    Args:
        roots: modules by dotted name (``"learning_geometry.tasks.copying"``) or scripts by path (a ``Path``,
            or a string that ends in ``.py``). Their order does not matter, nor does a script's directory.
        package: directory of the package.

    Raises:
        ValueError: a root or an imported module of the package does not exist, or is not valid Python; or two
            scripts have one name.
    """
    lines = sorted(f"{name} {_read(path).digest}" for name, path in _closure(roots, package).items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def imported_modules(*roots: str | Path, package: Path = PACKAGE) -> tuple[str, ...]:
    """Return the sorted dotted names of the package's modules that ``code_fingerprint(*roots)`` covers.

    Modules given as roots are among them, and so are the packages (``__init__`` files) around each module;
    scripts are not.

    Raises:
        ValueError: as :func:`code_fingerprint`.
    """
    return tuple(sorted(name for name in _closure(roots, package) if not name.endswith(".py")))


class _Import(NamedTuple):
    """``from <level dots><module> import <names>``; without names, ``import <module>``."""

    level: int
    module: str
    names: tuple[str, ...]


class _Code(NamedTuple):
    digest: str
    imports: tuple[_Import, ...]


def _closure(roots: tuple[str | Path, ...], package: Path) -> dict[str, Path]:
    """Return the files to hash by module name; a script goes by its file name, which ends in .py."""
    found: dict[str, Path] = {}
    waiting: list[str] = []
    for root in roots:
        if isinstance(root, Path) or root.endswith(".py"):
            script = Path(root).resolve()
            if not script.is_file():
                raise ValueError(f"{root}: no such script; give the path of a Python file")
            if found.setdefault(script.name, script) != script:
                raise ValueError(f"{root}: the root {found[script.name]} has the same file name; rename one")
            waiting += _imported_by(script, "", package)
        elif _path(root, package) is None:
            raise ValueError(
                f"{root}: no such module in {package}; give a dotted name such as {package.name}.files, "
                "or the path of a script"
            )
        else:
            waiting.append(root)
    while waiting:
        name = waiting.pop()
        path = _path(name, package)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += _imported_by(path, name, package)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs the packages around it
    return found


def _imported_by(path: Path, name: str, package: Path) -> list[str]:
    """Return the package's modules that the file at ``path``, module ``name``, imports anywhere in it."""
    imported = []
    around = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for level, relative, names in _read(path).imports:
        parts = [*around[: len(around) - level + 1], relative] if level else [relative]
        module = ".".join(part for part in parts if part)
        if module.split(".")[0] != package.name:
            continue
        if _path(module, package) is None:
            raise ValueError(f"{path}: imports {module}, which {package} does not have; correct the import")
        imported.append(module)
        if "*" in names:
            files = package.joinpath(*module.split(".")[1:]).glob("*.py")
            names = tuple(file.stem for file in files if file.name != "__init__.py")
        # an imported name is a submodule or something defined in the module, which is covered already
        imported += [f"{module}.{name}" for name in names if _path(f"{module}.{name}", package)]
    return imported


def _path(module: str, package: Path) -> Path | None:
    """Return the file of a module of the package, or None if there is none."""
    top, *inner = module.split(".")
    if top != package.name:
        return None
    folder = package.joinpath(*inner)
    candidates = [folder / "__init__.py"] + ([folder.with_name(f"{folder.name}.py")] if inner else [])
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> _Code:
    try:
        return _analyse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid Python ({error.msg}); correct it") from error


@cache  # parsing is the slow part; many rules share most modules
def _analyse(source: str) -> _Code:
    """Return the digest and the imports of a module's source text."""
    tree = ast.parse(source)
    imports: list[_Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [_Import(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append(_Import(node.level, node.module or "", tuple(alias.name for alias in node.names)))
        for field in _BODIES:
            body = getattr(node, field, None)
            if isinstance(body, list):
                setattr(node, field, [statement for statement in body if not _is_text(statement)])
    return _Code(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports))


_BODIES = ("body", "orelse", "finalbody")


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a string by itself: a docstring, of a definition or of the name above it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
