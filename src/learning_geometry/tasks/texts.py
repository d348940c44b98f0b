"""Texts that language models read: two corpora that come with Python, or any file of the user's.

``python_documentation`` is the language reference and its neighbours (``pydoc_data.topics``), about 113,000 tokens, and
``python_source`` the source of some modules of the standard library, about as many. Both change a little with the
version of Python; what was read is recorded by its hash.
"""

import ast
import sysconfig
from importlib.util import find_spec
from pathlib import Path

DOCUMENTATION, SOURCE = EMBEDDED = ("python_documentation", "python_source")

MODULES = ("argparse", "ast", "inspect", "subprocess", "typing")
"""Modules of the standard library whose source is ``python_source``."""


def text_files(name: str | Path) -> list[Path]:
    """Return the files of an embedded corpus, or of any other by its path.

    Raises:
        FileNotFoundError: there is no such corpus or file.

    >>> [path.name for path in text_files("python_documentation")]
    ['topics.py']
    """
    if name == DOCUMENTATION:
        spec = find_spec("pydoc_data.topics")
        paths = [Path(spec.origin)] if spec is not None and spec.origin else []
    elif name == SOURCE:
        paths = [Path(sysconfig.get_paths()["stdlib"]) / f"{module}.py" for module in MODULES]
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
        name: an embedded corpus, or the path of a text file in UTF-8.

    Raises:
        FileNotFoundError: as :func:`text_files`.
        ValueError: the file is not UTF-8 text, holds a NUL, or is empty.

    >>> read_text("python_documentation")[:15]
    'The "assert" st'
    """
    texts = []
    for path in text_files(name):
        try:
            texts.append(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    if name == DOCUMENTATION:
        texts = list(_topics(texts[0]).values())
    text = "\n\n".join(part.strip() for part in texts)
    if not text:
        raise ValueError(f"{name}: holds no text; pass a file that does")
    if "\0" in text:
        raise ValueError(f"{name}: holds a NUL, so that it is no text; give a text file in UTF-8")
    return text


def _topics(source: str) -> dict[str, str]:
    """The dictionary that a module of topics assigns, without running it."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(statement.value)
            return topics
    raise ValueError(f"{DOCUMENTATION}: this version of Python has its topics in another form; pass a text file")
