"""A fingerprint of the code that a rule really uses, so that the cache follows the code and nothing else.

The fingerprint covers every module of the package that the given modules or scripts import, directly or
through others, as syntax trees: an edit to any statement changes it (type annotations count); a comment, a
docstring or a reformat does not. Imports are read from the source and nothing is executed, so a module that
is imported by a name computed at run time must be given as a root of its own. What changes no number is left
out: ``__version__``, and the modules of ``WITHOUT_NUMBERS``.
"""

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from learning_geometry.known import Known

PACKAGE = Path(__file__).resolve().parent
"""Directory of the package whose modules are followed; its name is the package's name."""

WITHOUT_NUMBERS = {
    "progress": "says on the terminal and in logs how far a job is",
    "known": "keeps digests of files, each of which is that of its file",
    "fingerprint": "compares code; what it compares is stored, and differs if this changes that",
    "forkserver": "starts the processes of jobs",
    "running": "refuses to write, or records what made a result",
    "discovery": "says where modules lie, each of which is a root of the jobs that use it",
    "paths": "says where artifacts lie, which are known by their keys",
}
"""Modules of the package, by name below it -> why no edit to them changes a number. Nor are their imports followed."""


def code_fingerprint(*roots: str | Path, package: Path = PACKAGE, known: Known | None = None) -> str:
    """Return a hash, 16 hexadecimal digits, of the code of ``roots`` and of all they import from the package.

    Args:
        roots: modules by dotted name (``"learning_geometry.tasks.copying"``) or scripts by path (a ``Path``,
            or a string that ends in ``.py``). Their order does not matter, nor does a script's directory.
        package: directory of the package.
        known: of what files hold; without one, each process parses anew.

    Raises:
        ValueError: a root or an imported module of the package does not exist, or is not valid Python; or two
            scripts have one name.
    """
    known = known or Known()
    lines = sorted(f"{name} {_read(path, known).digest}" for name, path in _closure(roots, package, known).items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def imported_modules(*roots: str | Path, package: Path = PACKAGE) -> tuple[str, ...]:
    """Return the sorted dotted names of the package's modules that ``code_fingerprint(*roots)`` covers.

    Modules given as roots are among them, and so are the packages (``__init__`` files) around each module;
    scripts are not.

    Raises:
        ValueError: as :func:`code_fingerprint`.
    """
    return tuple(sorted(name for name in code_files(*roots, package=package) if not name.endswith(".py")))


def code_files(*roots: str | Path, package: Path = PACKAGE, known: Known | None = None) -> dict[str, Path]:
    """Return the files that ``code_fingerprint(*roots)`` covers, by dotted name; a script's is its file name.

    Raises:
        ValueError: as :func:`code_fingerprint`.
    """
    return _closure(roots, package, known or Known())


class _Import(NamedTuple):
    """``from <level dots><module> import <names>``; without names, ``import <module>``."""

    level: int
    module: str
    names: tuple[str, ...]


class _Code(NamedTuple):
    digest: str
    imports: tuple[_Import, ...]


def _closure(roots: tuple[str | Path, ...], package: Path, known: Known) -> dict[str, Path]:
    """Return the files to hash by module name; a script goes by its file name, which ends in .py."""
    closure: dict[str, Path] = {}
    waiting: list[str] = []
    left_out = {f"{package.name}.{name}" for name in WITHOUT_NUMBERS}
    for root in roots:
        if isinstance(root, Path) or root.endswith(".py"):
            script = Path(root).resolve()
            if not script.is_file():
                raise ValueError(f"{root}: no such script; give the path of a Python file")
            if closure.setdefault(script.name, script) != script:
                raise ValueError(f"{root}: the root {closure[script.name]} has the same file name; rename one")
            waiting += _imported_by(script, "", package, known)
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
        if name in closure or path is None or (name in left_out and name not in roots):
            continue
        closure[name] = path
        waiting += _imported_by(path, name, package, known)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # importing a module runs the packages around it
    return closure


def _imported_by(path: Path, name: str, package: Path, known: Known) -> list[str]:
    """Return the package's modules that the file at ``path``, module ``name``, imports anywhere in it."""
    imported = []
    around = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for level, relative, names in _read(path, known).imports:
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


def _read(path: Path, known: Known) -> _Code:
    try:
        digest, imports = known.of(path, ANALYSIS, lambda path: _analyse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid Python ({error.msg}); correct it") from error
    return _Code(digest, tuple(_Import(level, module, tuple(names)) for level, module, names in imports))


ANALYSIS = f"code-1-{sys.version_info[0]}.{sys.version_info[1]}"
"""What the cache calls an analysis; syntax trees differ between versions of Python."""


@cache  # parsing is the slow part; many rules share most modules
def _analyse(source: str) -> list[Any]:
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
                setattr(node, field, [each for each in body if not _is_text(each) and not _is_version(each)])
    return [hashlib.sha256(ast.dump(tree).encode()).hexdigest(), [list(each) for each in imports]]


_BODIES = ("body", "orelse", "finalbody")


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a string by itself: a docstring, of a definition or of the name above it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_version(statement: ast.AST) -> bool:
    """Whether a statement does nothing but set ``__version__``."""
    return (
        isinstance(statement, ast.Assign)
        and [ast.unparse(target) for target in statement.targets] == ["__version__"]
        and isinstance(statement.value, ast.Constant)
    )
