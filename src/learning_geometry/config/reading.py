"""Strict reading of YAML files: errors name the file and the line, and no key is given twice."""

from pathlib import Path
from typing import Any

import yaml

from learning_geometry.config.problems import ConfigError
from learning_geometry.config.wording import kind


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice; Snakemake's own keeps the last one in silence."""

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


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: no such file, not UTF-8, empty, not a mapping, bad syntax, or a key given twice; the
            message names the file and, where there is one, the line.
    """
    path = Path(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # a SafeLoader
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; give the path of a config file"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); give the path of a config file"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8 text; save it as UTF-8"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([_yaml_problem(path, error)]) from None
    if data is None:
        raise ConfigError([f"{path}: is empty; it needs at least the key experiments"])
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: holds {kind(data)} at the top level, expected a mapping, key: value"])
    return data


def _yaml_problem(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"{path}, line {mark.line + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    text = f"{problem} ({context})" if context else problem
    if "'\\t'" in text:
        text += "; indent with spaces, not with tabs"
    elif isinstance(error, yaml.MarkedYAMLError) and not isinstance(error, yaml.constructor.ConstructorError):
        text += "; check the indentation, brackets and colons there and on the line before"
    return f"{place}: {text}"
