"""Strict reading of YAML files: errors name the file and the line, and what YAML would quietly change is refused.

Quietly changed are a key given twice (the first is lost), ``1:30`` (90, in base 60) and ``017`` (15, in base 8).
Aliases and nesting are bounded before anything is expanded, so that no small file takes long or much memory.
"""

import copy
import functools
import re
from pathlib import Path
from typing import Any

import yaml

from learning_geometry.config.problems import ConfigError
from learning_geometry.config.wording import kind

LARGEST_FILE = 2**20
"""Bytes of a config file; the shipped ones have some ten thousand."""

DEEPEST = 40
"""Levels of mappings and lists inside each other; a config has eight."""

MOST_VALUES = 100_000
"""Keys and values once all aliases are written out; ``paper.yaml`` has some four thousand."""

AFTER_CONFIGFILE = " (Snakemake takes a target that follows --configfile for a config file: put the target first)"

BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
BASE_8 = re.compile(r"[-+]?0[0-7_]+")


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice; Snakemake's own keeps the last one in silence."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark
            problem = f"more than {DEEPEST} levels inside each other; close the brackets, or indent less"
            raise yaml.constructor.ConstructorError(None, None, problem, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    # while composing: later on, the keys that `<<` merges are in the node as well
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in first:
                    problem = f"key {key.value} is already given on line {first[key.value]}; remove one of the two"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                first[key.value] = key.start_mark.line + 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _expanded(node, {})
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, OverflowError, AttributeError) as error:
            # PyYAML converts dates, numbers and tagged scalars without catching what Python raises there
            problem = (
                f"{_shortened(str(node.value))} cannot be read as {node.tag.rpartition(':')[2]} ({error}); quote it"
            )
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Refuse numbers that YAML 1.1 reads in another base than they seem to be in."""
    text, kind_of_number = node.value, node.tag.rpartition(":")[2]
    if kind_of_number not in ("int", "float"):
        return
    if BASE_60.fullmatch(text):
        problem = f"YAML reads {text} as a number in base 60; write it in base 10, or quote it"
    elif kind_of_number == "int" and BASE_8.fullmatch(text) and text.lstrip("+-").strip("0_"):
        problem = f"YAML reads {text} as a number in base 8; write it without the leading 0, or quote it"
    else:
        return
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _expanded(node: Any, known: dict[int, tuple[int, int]], above: frozenset[int] = frozenset()) -> tuple[int, int]:
    """Return how many values a node holds with its aliases written out, and in how many levels; visits each node once.

    A node inside itself counts as one value: it is refused later, with its key path.
    """
    if id(node) in above or not isinstance(node, yaml.CollectionNode):
        return 1, 1
    if id(node) not in known:
        pairs = isinstance(node, yaml.MappingNode)
        children = [child for pair in node.value for child in pair] if pairs else node.value
        sizes = [_expanded(child, known, above | {id(node)}) for child in children]
        size, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        problem = ""
        if size > MOST_VALUES:
            problem = f"more than {MOST_VALUES:,} values once its aliases are written out; use fewer aliases"
        elif depth > DEEPEST:
            problem = (
                f"more than {DEEPEST} levels inside each other once its aliases are written out; use fewer aliases"
            )
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        known[id(node)] = size, depth
    return known[id(node)]


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: no such file, too large, not UTF-8, empty, not a mapping, bad syntax, nested too deeply, too many
            aliases, a key given twice, or a number in base 8 or 60; the message names the file and, where there is
            one, the line.
    """
    path = Path(path)
    try:
        data = copy.deepcopy(_loaded(_text(path)))
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; give the path of a config file{AFTER_CONFIGFILE}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); give the path of a config file"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8 text; save it as UTF-8"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([_yaml_problem(path, error)]) from None
    except ValueError as error:  # such as a path with a null character
        raise ConfigError([f"{path!s:.200}: cannot be read ({error}); give the path of a config file"]) from None
    if data is None:
        raise ConfigError([f"{path}: is empty; it needs at least the key experiments"])
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: holds {kind(data)} at the top level, expected a mapping, key: value"])
    return data


@functools.lru_cache(maxsize=16)
def _loaded(text: str) -> Any:
    """Return what a text says, read once: parsing takes 20 times as long as copying what it gave."""
    return yaml.load(text, _StrictLoader)  # a SafeLoader


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe or a device might never end
        raise ConfigError([f"{path}: cannot be read (it is no file); give the path of a config file"])
    with open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ConfigError([f"{path}: is larger than {LARGEST_FILE // 2**20} MiB; give the path of a config file"])
    return data.decode("utf-8")


def _yaml_problem(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"{path}, line {mark.line + 1}" if mark else str(path)
    if isinstance(error, yaml.reader.ReaderError):
        return f"{place}: holds a character that YAML does not allow, U+{int(error.character):04X}; remove it"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    text = f"{problem} ({context})" if context else problem
    if "'\\t'" in text:
        text += "; indent with spaces, not with tabs"
    elif isinstance(error, yaml.MarkedYAMLError) and not isinstance(error, yaml.constructor.ConstructorError):
        text += "; check the indentation, brackets and colons there and on the line before"
    return f"{place}: {text}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
