"""The words of the messages: what is given, what is expected, and how to write it."""

import datetime
import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any


def yaml_text(value: Any) -> str:
    """Return ``value`` as YAML would write it on one line, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    if isinstance(value, float):
        text = re.sub(r"^(-?\d+)e", r"\1.0e", text)  # YAML 1.1 reads 1e-09 as text
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind(value: Any) -> str:
    """Return in words what YAML made of a value, such as "a list"."""
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    kinds |= {datetime.date: "a date", datetime.datetime: "a time", bytes: "binary data"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def expected(schema: dict[str, Any]) -> str:
    """Return in words what a schema accepts, such as "integer ≥ 1 or null"."""
    if "enum" in schema:
        values = [value if isinstance(value, str) else yaml_text(value) for value in schema["enum"]]
        return f"one of {', '.join(values)}"
    if "anyOf" in schema:
        return " or ".join(expected(option) for option in schema["anyOf"])
    types = schema.get("type", [])
    words = [_expected_type(schema, word) for word in ([types] if isinstance(types, str) else types)]
    return " or ".join(words) or "a value"


def _expected_type(schema: dict[str, Any], word: str) -> str:
    if word in ("integer", "number"):
        bounds = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        limits = [f"{sign} {schema[bound]}" for bound, sign in bounds if bound in schema]
        return " ".join([word, " and ".join(limits)]).strip()
    if word == "array":
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        size = f"{low} entries" if low == high else "at least 1 entry" if low == 1 else "entries"
        entry = expected(schema["items"]) if "items" in schema else "a value"
        return f"list of {size}, each {entry}"
    if word == "object":
        return "mapping with at least 1 key" if schema.get("minProperties") else "mapping"
    if word == "string" and re.fullmatch(r"\^[a-z]+\$", schema.get("pattern", "")):
        return str(schema["pattern"][1:-1])
    if word == "string" and "pattern" in schema:
        return "text without braces" if schema["pattern"] == "^[^{}]+$" else f"text matching {schema['pattern']}"
    return {"string": "text", "boolean": "true or false"}.get(word, word)


def hint(value: Any, types: Sequence[str]) -> str:
    """Return what YAML most likely did to ``value``, and how to write it so that it gets one of ``types``."""
    if isinstance(value, str) and "null" in types and value.lower() in ("none", "null"):
        return "write null, without quotes"
    if isinstance(value, str) and {"integer", "number"} & set(types):
        return _number_hint(value, whole="number" not in types)
    if isinstance(value, str) and "boolean" in types and value.lower() in ("true", "false"):
        return f"write {value.lower()} without quotes"
    if isinstance(value, bool) and "string" in types:
        return 'YAML reads an unquoted yes, no, on or off as true or false; quote it: "no"'
    if isinstance(value, int | float) and "string" in types and "array" not in types:
        return f'quote it: "{value}"'
    if isinstance(value, float) and "integer" in types and value.is_integer():
        return f"write {int(value)}"
    if value is None and "object" in types:
        return "indent its keys below it, or write {} for all defaults"
    if "array" in types and not isinstance(value, dict | list):
        return f"write [{value}]"
    return ""


def _number_hint(text: str, whole: bool) -> str:
    try:
        number = float(text)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    if whole:
        return f"write {int(number)} without quotes" if number.is_integer() else ""
    power = re.fullmatch(r"([+-]?\d+)(?:\.(\d*))?[eE]([+-]?)(\d+)", text.strip())
    if power:
        digits, fraction, sign, exponent = power.groups()
        # YAML 1.1 wants both the point and the sign of the exponent
        return f"YAML reads {text} as text; write {digits}.{fraction or 0}e{sign or '+'}{exponent}"
    return f"write {text.strip()} without quotes"


def after(hint: str) -> str:
    """Return a hint as the end of a sentence; nothing if there is none."""
    return f"; {hint}" if hint else ""


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """Return the end of "unknown <word>": the closest known name, if one is close."""
    names = [name for name in known if isinstance(name, str)]
    close = difflib.get_close_matches(str(word), names, n=1)
    return f"; did you mean {close[0]}?" if close else ";"
