"""What is wrong with a config: the error, and where in the config a problem lies."""

from collections.abc import Callable, Sequence

SHOWN_PROBLEMS = 10

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead to a place in the config."""

Problems = dict[KeyPath, str]
"""Key path -> what is wrong there; the first problem of a path counts."""

Report = Callable[[str, str], None]
"""Called with a dotted key of what is checked, and what is wrong there."""


class ConfigError(ValueError):
    """The config is not usable; the message has one line per problem: key path, what is given, what to do.

    Attributes:
        problems: those lines, all of them (the message shows the first ten).
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(map(printable, problems))
        lines = list(self.problems[:SHOWN_PROBLEMS])
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"and {len(self.problems) - SHOWN_PROBLEMS} more")
        super().__init__("\n".join(lines))


def printable(text: str) -> str:
    r"""Return a text on one line: what cannot be printed is written as in Python.

    >>> print(printable("a name" + chr(10) + "with a second line"))
    a name\nwith a second line
    """
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def dotted(path: KeyPath) -> str:
    """Return a key path as messages write it: ``experiments.copying.seeds[1]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "config"
