"""What to say of a file that PyTorch does not load without making pickled objects.

The pickles in it are read as bytes, opcode by opcode; nothing of them is made, and no class of them is looked up.
"""

import io
import mmap
import pickletools
import re
import shlex
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch._weights_only_unpickler import _get_allowed_globals

from learning_geometry.sources.checkpoint import SourceError
from learning_geometry.sources.states import DEPTH, STATE_KEYS

SHOWN = 4
"""So many classes that merely hold data are named; those that may do more are all named."""
PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
HARMLESS = {
    "argparse.Namespace": "argparse.Namespace",
    "builtins.bytes": "bytes",
    "builtins.frozenset": "frozenset",
    "builtins.range": "range",
    "builtins.slice": "slice",
    "collections.Counter": "collections.Counter",
    "collections.OrderedDict": "collections.OrderedDict",
    "datetime.date": "datetime.date",
    "datetime.datetime": "datetime.datetime",
    "datetime.time": "datetime.time",
    "datetime.timedelta": "datetime.timedelta",
    "datetime.timezone": "datetime.timezone",
    "decimal.Decimal": "decimal.Decimal",
    "fractions.Fraction": "fractions.Fraction",
    "torch.torch_version.TorchVersion": "torch.torch_version.TorchVersion",
    "types.SimpleNamespace": "types.SimpleNamespace",
    "uuid.UUID": "uuid.UUID",
}
"""Classes that merely hold data, and what a command gives to ``torch.serialization.add_safe_globals`` for each.

``collections.deque`` and ``defaultdict`` are none: PyTorch fills no others than lists and its own dictionaries.
"""
for _module in ("pathlib", "pathlib._local"):  # the latter is Python 3.13's
    for _path in PATHS:
        # paths of another system cannot be made on this one, pure ones can
        _pure = _path if _path.startswith("Pure") else f"Pure{_path}"
        HARMLESS[f"{_module}.{_path}"] = f'(pathlib.{_pure}, "{_module}.{_path}")'
BLOCKED = {"os", "posix", "nt", "sys"}
"""Modules of which PyTorch never takes anything, whatever a user allows."""
UNKNOWN = "an object whose name cannot be told"
ADVICE = (
    "in the program that wrote it save model.state_dict() alone, and do not load elsewhere what you do not trust: "
    "making its objects can run any code"
)

ZIP = b"PK\x03\x04"
OLD = 5
"""Pickles of the old format: magic number, version, system, content, keys of tensors; then come the tensors' bytes."""
CONTENT = 3
READ = re.compile(
    "APPENDS?|BIN(FLOAT|GET|INT[12]?|PERSID|PUT|UNICODE)|BUILD|EMPTY_(DICT|LIST|SET|TUPLE)|GLOBAL|LONG1|LONG_BIN(GET|PUT)"
    "|MARK|NEW(FALSE|OBJ|TRUE)|NONE|PROTO|REDUCE|SETITEMS?|SHORT_BINSTRING|STOP|TUPLE[123]?"
)
"""Opcodes that ``torch.load(weights_only=True)`` takes."""
MAPPINGS = ("collections.OrderedDict", "collections.Counter")
REBUILDS = ("torch._utils._rebuild_", "torch._tensor._rebuild_from_type_v2")
"""How names begin of what makes tensors."""
TENSOR, OTHER, MARK = object(), object(), object()
"""What stands for a tensor, for what is neither that nor a dictionary nor a text, and for a mark on the stack."""


@dataclass(frozen=True)
class _Global:
    """What an opcode names: a class or a function."""

    name: str


@dataclass
class _Found:
    """What the pickles of a file hold, as far as it can be told without making it.

    Attributes:
        names: of all classes and functions.
        certain: the names are all, and each opcode is one that ``torch.load(weights_only=True)`` takes.
        module: a text is the name of an attribute that all modules of PyTorch have.
        content: of the file: dictionaries, in which :data:`TENSOR` and :data:`OTHER` stand for the rest.
    """

    names: set[str] = field(default_factory=set)
    certain: bool = True
    module: bool = False
    content: Any = OTHER


def refusal(path: Path, error: Exception) -> SourceError:
    """Return the error to raise for a file that ``torch.load(weights_only=True)`` refused.

    A command that converts the file is given only where all that it names merely holds data (:data:`HARMLESS`); that
    command makes nothing else, and overwrites nothing.

    Args:
        path: the file.
        error: what PyTorch said.

    Returns:
        The error, which names the file, what is in it and what to do. Nothing is raised here.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    if re.match("Cannot use .*TorchScript", text):
        return SourceError(
            f"{path}: is a TorchScript program, which can run code when it is loaded; if you trust who wrote it, load "
            "it with torch.jit.load, and save its state_dict()"
        )
    found = _scan(path)
    if more := _named(text, found.names):
        found.names |= more
        found.certain = False  # PyTorch met what was not found here
    names = sorted(found.names - set(_get_allowed_globals()))  # what PyTorch takes by itself needs no word
    if not names:
        return SourceError(f"{path}: {_unreadable(text, error)}")
    if blocked := [name for name in names if name.split(".")[0] in BLOCKED]:
        return SourceError(f"{path}: {_would_run(blocked, [name for name in names if name not in blocked])}")
    if found.module and not isinstance(found.content, dict):
        return SourceError(f"{path}: holds a whole module ({_listed(names)}), which only its own code makes; {ADVICE}")
    doubt = "" if found.certain else " (and perhaps more: PyTorch does not read its pickle to the end)"
    return SourceError(
        f"{path}: holds {_listed(names)} besides tensors{doubt}, which are pickled objects and never made; "
        f"{_conversion(path, names, found) or ADVICE}"
    )


def _unreadable(text: str, error: Exception) -> str:
    """What is said of a file in which nothing is named that PyTorch does not take."""
    # of PyTorch's advice for other readers only what it met
    reason = " ".join(text.split("WeightsUnpickler error:")[-1].split(". ")[0].split())
    return (
        f"cannot be read as a file of PyTorch ({_escaped(reason) or type(error).__name__}); it is cut, damaged or no "
        "such file: copy it again, or save it again"
    )


def _would_run(blocked: list[str], others: list[str]) -> str:
    also = f" (it names {_listed(others)} too)" if others else ""
    return (
        f"would run {_listed(blocked)} when it is loaded, which no checkpoint needs{also}; do not load it elsewhere, "
        "and ask who wrote it"
    )


def _conversion(path: Path, names: list[str], found: _Found) -> str | None:
    """The advice that has a command in it; None: the file may hold more than data, or no state dict is seen in it."""
    places = [*_states(found.content)]
    if not (found.certain and places and set(names) <= set(HARMLESS)):
        return None
    keys = _chosen(places)
    meaning = "" if keys else f' (instead of ["KEY"] one of {", ".join(_escaped(_index(each)) for each in places)})'
    return (
        "save model.state_dict() alone, or write the tensors to a new file with this command, which makes nothing but "
        f"these, runs no code of the file and overwrites nothing: `{_command(path, names, _index(keys or ('KEY',)))}`"
        f"{meaning}"
    )


def _escaped(text: str) -> str:
    """Text of a file as it may be printed: what would steer a terminal, or look like another letter, is escaped."""
    return ascii(text)[1:-1]


def _listed(names: list[str]) -> str:
    """Names for a message: all that may do more than hold data come first; of others at most :data:`SHOWN`."""
    harmless = [name for name in names if name in HARMLESS]
    shown = [name for name in names if name not in HARMLESS] + harmless[:SHOWN]
    more = len(harmless) - SHOWN
    return ", ".join(map(_escaped, shown)) + (f" and {more} more that merely hold data" if more > 0 else "")


def _named(text: str, known: set[str]) -> set[str]:
    """Names in PyTorch's message that are not known already; it leaves out ``builtins`` and, here, colours."""
    said = re.findall(r"GLOBAL (.+?) (?:was not an allowed|whose module)", text)
    plain = {re.sub(r"\x1b\[\d*m", "", name).removeprefix("builtins.") for name in known}
    # it has names of Python 2 where it does not know the new ones
    renamed = [_renamed(*name.rpartition(".")[::2]) if "." in name else name for name in said]
    return {name for name in renamed if name.removeprefix("builtins.") not in plain}


def _command(path: Path, names: list[str], index: str) -> str:
    """A command that writes a state dict to a new file; it makes no objects but those of the names given."""
    allowed = ", ".join(HARMLESS[name] for name in names)
    modules = {name.split(".")[0] for name in names} - {"builtins"}
    code = (
        f"import {', '.join(sorted(modules | {'sys', 'torch'}))}; "
        f"torch.serialization.add_safe_globals([{allowed}]); "
        f'state = torch.load(sys.argv[1], map_location="cpu", weights_only=True){index}; '
        'torch.save(state, open(sys.argv[2], "xb"))'  # x: never what is there already
    )
    source = path.absolute()
    new = source.with_name(f"{source.stem}-weights.pt")
    # P: no torch.py that came into the folder with the file is imported
    return shlex.join(["python", "-P", "-c", code, str(source), str(new)])


def _index(keys: tuple[str, ...]) -> str:
    return "".join(f'["{key}"]' for key in keys)


def _states(content: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Keys that lead to dictionaries of tensors alone."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, dict) or not value:
            continue
        if all(isinstance(name, str) and each is TENSOR for name, each in value.items()):
            yield (*before, key)
        elif len(before) + 1 < DEPTH:
            yield from _states(value, (*before, key))


def _chosen(places: list[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The keys that lead to the state dict; None: several may, or they are none to write into a command unescaped."""
    usual = [keys for keys in places if keys[-1] in STATE_KEYS]
    outer = [keys for keys in usual if len(keys) == 1]
    likely = outer or usual or places
    plain = all(re.fullmatch(r"[A-Za-z0-9_.-]+", key) for key in likely[0])
    return likely[0] if len(likely) == 1 and plain else None


def _scan(path: Path) -> _Found:
    """What the pickles of a file hold, be it of the zip format or of the one before."""
    found = _Found()
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[: len(ZIP)] == ZIP:  # as PyTorch tells them, whatever comes behind
                _scan_zip(path, found)
            else:
                for number in range(OLD):
                    value = _Pickle(content, found).read()
                    if number == CONTENT:
                        found.content = value
    except Exception:  # damaged and hostile bytes reach deep into the readers
        found.certain = False
    return found


def _scan_zip(path: Path, found: _Found) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.split("/")[-1] == "data.pkl"]
        for entry in entries:
            stream = io.BytesIO(archive.read(entry))
            found.content = _Pickle(stream, found).read()
            # of several, or of bytes behind one, it is not certain what another reader takes
            found.certain &= len(entries) == 1 and not stream.read(1)


class _Pickle:
    """One pickle of a stream, of which the stack is followed with what stands for its values."""

    def __init__(self, stream: Any, found: _Found) -> None:
        self.stream, self.found = stream, found
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Return the content, and add names to what was found; the stream stands behind the pickle then.

        Raises:
            Exception: of any kind, if the bytes are no pickle.
        """
        reader: Any = _Lines(self.stream)
        for opcode, argument, _ in pickletools.genops(reader):
            if not READ.fullmatch(opcode.name):
                self.found.certain = False
            self._step(opcode, argument, reader.last)
        return self.stack.pop()

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any, lines: list[str]) -> None:
        """Follow one opcode."""
        stack = self.stack
        match opcode.name:
            case "GLOBAL":
                stack.append(self._global(*lines[-2:]))
            case "INST":
                self._global(*lines[-2:])
                self._follow(opcode)
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._global(module, name))
            case "EXT1" | "EXT2" | "EXT4":  # a number in a table of another program
                stack.append(self._global(OTHER, OTHER))
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                self.found.module |= argument == "_parameters"
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                self._fill(self._to_mark() if opcode.name == "SETITEMS" else [stack.pop(), stack.pop()][::-1])
            case "REDUCE" | "NEWOBJ":
                stack.pop()
                stack.append(_made(stack.pop()))
            case "BUILD":
                stack.pop()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "STOP":
                pass
            case _:
                self._follow(opcode)

    def _global(self, module: Any, name: Any) -> _Global:
        """Note what is named."""
        if isinstance(module, str) and isinstance(name, str):
            found = _Global(_renamed(module, name))
        else:
            found = _Global(UNKNOWN)
        self.found.names.add(found.name)
        return found

    def _fill(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(self.stack[-1], dict):
                self.stack[-1][key if isinstance(key, str) else OTHER] = value

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def _follow(self, opcode: pickletools.OpcodeInfo) -> None:
        """Take from the stack, and put on it, as many values as an opcode does."""
        before = opcode.stack_before
        if pickletools.markobject in before:
            self._to_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self.stack.pop()
        self.stack.extend(MARK if after is pickletools.markobject else OTHER for after in opcode.stack_after)


def _renamed(module: str, name: str) -> str:
    """The name in Python 3 of what a pickle names; ``torch.save`` writes those of Python 2."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


class _Lines:
    """A stream whose last two lines are kept as they are.

    ``pickletools`` resolves escapes in names, as no pickle does, and stops at letters that are not of ASCII.
    """

    def __init__(self, stream: Any) -> None:
        self.read, self.tell, self._next = stream.read, stream.tell, stream.readline
        self.last: list[str] = []

    def readline(self) -> bytes:
        """Return the next line, in which question marks stand for what ``pickletools`` would not take."""
        line: bytes = self._next()
        self.last = [*self.last[-1:], line.removesuffix(b"\n").decode("utf-8", "backslashreplace")]
        return re.sub(rb"[\\\x80-\xff]", b"?", line)


def _made(maker: Any) -> Any:
    """What stands for the value that a class or a function returns."""
    if not isinstance(maker, _Global):
        return OTHER
    if maker.name in MAPPINGS:
        return {}
    return TENSOR if maker.name.startswith(REBUILDS) else OTHER
