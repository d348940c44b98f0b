"""Texts that language models read, or are trained on: corpora that come with Python, or any files of the user's.

``python_documentation`` is the language reference and its neighbours (``pydoc_data.topics``), about 113,000 tokens,
``python_source`` the source of some modules of the standard library, about as many, and ``python_library`` that of all
modules which every installation has, eight million characters. All change a little with the version of Python; what was
read is recorded by its hash.
"""

import ast
import glob
import os
import sysconfig
from importlib.util import find_spec
from pathlib import Path

DOCUMENTATION, SOURCE, LIBRARY = EMBEDDED = ("python_documentation", "python_source", "python_library")

MODULES = ("argparse", "ast", "inspect", "subprocess", "typing")
"""Modules of the standard library whose source is ``python_source``."""

NOT_EVERYWHERE = ("distutils", "ensurepip", "idlelib", "lib2to3", "test", "tests", "tkinter", "turtledemo")
"""Folders of the standard library that some distributions leave out."""

ALIKE = ("encodings", "pydoc_data")
"""Folders of files that are nearly alike, so that what is held out would be known from its twins; and of the topics."""

BUILD = "_sysconfigdata"
"""How the module of a machine's own build begins."""

LEFT_OUT = {*NOT_EVERYWHERE, *ALIKE, "site-packages", "dist-packages", "__pycache__"}


def text_files(name: str | Path) -> list[Path]:
    """Return the files of an embedded corpus, or of any other by its path; of a pattern all that match, sorted.

    Raises:
        FileNotFoundError: there is no such corpus or file.

    >>> [path.name for path in text_files("python_documentation")]
    ['topics.py']
    """
    if name == DOCUMENTATION:
        spec = find_spec("pydoc_data.topics")
        paths = [Path(spec.origin)] if spec is not None and spec.origin else []
    elif name == SOURCE:
        paths = [_library() / f"{module}.py" for module in MODULES]
    elif name == LIBRARY:
        paths = _library_files()
    elif glob.has_magic(str(name)) and not Path(name).is_file():
        paths = sorted(path for each in glob.glob(str(name), recursive=True) if (path := Path(each)).is_file())
    else:
        paths = [Path(name)]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        what = missing[0] if missing else name
        raise FileNotFoundError(f"{what}: no such text; give the path of a text file, or one of {list(EMBEDDED)}")
    return paths


def read_text(name: str | Path) -> str:
    """Return a corpus as one text.

    Args:
        name: an embedded corpus, or the path of a text file in UTF-8, or a pattern of such paths.

    Raises:
        FileNotFoundError: as :func:`text_files`.
        ValueError: the file is not UTF-8 text, holds a NUL, or is empty.

    >>> read_text("python_documentation")[:15]
    'The "assert" st'
    """
    return "\n\n".join(documents(name).values())


def documents(name: str | Path) -> dict[str, str]:
    """Return the parts of a corpus, by name: its files, or topics; without the space around them, and empty ones.

    Args:
        name: as of :func:`read_text`.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_text`.

    >>> list(documents("python_source"))[0], len(documents("python_documentation")["assert"].splitlines()) > 5
    ('argparse.py', True)
    """
    texts: dict[str, str] = {}
    for path in text_files(name):
        # folders of the library tell its files apart, wherever it lies; files of a user have no common folder
        own = path.relative_to(_library()) if name in (SOURCE, LIBRARY) else path
        try:
            texts[own.as_posix()] = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    if name == DOCUMENTATION:
        texts = _topics(*texts.values())
    stripped = {document: text.strip() for document, text in texts.items() if text.strip()}
    if not stripped:
        raise ValueError(f"{name}: holds no text; pass a file that does")
    if any("\0" in text for text in stripped.values()):
        raise ValueError(f"{name}: holds a NUL, so that it is no text; give a text file in UTF-8")
    return stripped


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _library_files() -> list[Path]:
    """The sources of the standard library's modules, in the order of their paths within it."""
    paths = []
    for folder, folders, modules in os.walk(_library()):
        # what was installed beside it is not even looked at
        folders[:] = [each for each in folders if each not in LEFT_OUT and not each.startswith("config-")]
        paths += [Path(folder, each) for each in modules if each.endswith(".py") and not each.startswith(BUILD)]
    return sorted(paths, key=lambda path: path.relative_to(_library()).parts)


def _topics(source: str) -> dict[str, str]:
    """The dictionary that a module of topics assigns, without running it."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(statement.value)
            return topics
    raise ValueError(f"{DOCUMENTATION}: this version of Python has its topics in another form; pass a text file")
