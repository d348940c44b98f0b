"""What a ``config.json`` says of rotary positions and windows of attention: said once and known, or refused."""

from collections.abc import Mapping
from typing import Any

from learning_geometry.model_files.config_keys import among
from learning_geometry.model_files.family_keys import WINDOWS
from learning_geometry.model_files.layouts import layout

ROTATIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "dynamic": ("factor",),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
    "proportional": (),
    "yarn": ("factor",),
}
"""Kinds of rotary positions -> keys that they need."""

UNTURNED = ("bloom", "gpt2", "gpt_bigcode", "gptj", "opt")
"""Families that read no description of rotary positions; GPT-J has such positions, and ``rotary_dim``."""

BY_TYPE = ("gemma3_text", "olmo3")
"""Families that turn layers with a window otherwise than those without."""

PARTLY = ("phi", "phi3", "stablelm")
"""Families that turn a part of each head, ``partial_rotary_factor``; GPT-NeoX calls it ``rotary_pct``."""

HALF_TURNED = {"phi": 0.5, "stablelm": 0.25}
"""Those of them in which transformers (5.24) counts some dimensions twice if what is turned is odd -> their default."""


def check_positions(config: Mapping[str, Any]) -> None:
    """Check what a config says of rotary positions and windows of attention.

    Args:
        config: as ``config.json``, of a family that is known.

    Raises:
        ValueError: it says two things, or something that is not known or that its family passes over.
    """
    for key in ("rope_parameters", "rope_scaling"):
        if config.get(key) and isinstance(config[key], dict):
            _check_rotation(config["model_type"], key, config[key])
    family = config["model_type"]
    given = [config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key)]
    if odd := [each for each in given if not isinstance(each, dict)]:
        raise ValueError(f"config.json: rotary positions are described by {odd[0]!r}, which is no mapping; mend it")
    if len(given) > 1 and given[0] != given[1]:
        raise ValueError("config.json: rope_parameters and rope_scaling differ, and one is used; take the other out")
    rope = given[0] if given else {}
    _check_one_rotation(config, rope)
    for key, place in (("partial_rotary_factor", config), ("partial_rotary_factor", rope), ("rotary_pct", config)):
        partial = family == "gpt_neox" or (family in PARTLY and key == "partial_rotary_factor")
        if not partial and place.get(key) not in (None, 1):
            raise ValueError(
                f"config.json: {key} is {place[key]!r}, and the family {family!r} turns heads as a whole; correct "
                "model_type, or take the key out"
            )
    of = layout(config)
    if family in HALF_TURNED:
        said = (place.get("partial_rotary_factor") for place in (rope, config))
        factor = next((value for value in said if value is not None), HALF_TURNED[family])
        turned = of.head_width * factor if isinstance(factor, int | float) and 0 < factor <= 1 else -1
        if int(turned) % 2 or turned < 0:
            raise ValueError(
                f"config.json: partial_rotary_factor is {factor!r}, and must be a share of the width of heads, "
                f"{of.head_width}, that is an even number; correct it"
            )
    window, context = config.get("sliding_window"), of.context
    if family not in WINDOWS and isinstance(window, int) and (context is None or window < context):
        raise ValueError(
            f"config.json: sliding_window is {window}, and the family {family!r} applies none; correct model_type, or "
            "take the key out"
        )


def _check_one_rotation(config: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Check that all that a config says of the base and of the turned part of rotary positions is the same.

    transformers (5.24) reads the first one that it finds, and of GPT-NeoX no key of other families.
    """
    neox = config["model_type"] == "gpt_neox"
    if config["model_type"] in BY_TYPE:
        # what is said of all layers together is that of those without a window
        rope = rope.get("full_attention") or {}
    for key, old in (("rope_theta", "rotary_emb_base"), ("partial_rotary_factor", "rotary_pct")):
        read = {f"{key} in its rope_parameters": rope.get(key), old if neox else key: config.get(old if neox else key)}
        said = {name: value for name, value in {**read, key: config.get(key)}.items() if value is not None}
        if len({str(value).removesuffix(".0") for value in said.values()}) > 1:
            both = " and ".join(f"{name} is {value}" for name, value in said.items())
            raise ValueError(f"config.json: {both}, and one is used; take the others out")
        if said and all(value is None for value in read.values()):
            raise ValueError(
                f"config.json: {key} is {config[key]}, which the family 'gpt_neox' does not read; call it {old}"
            )


def _check_rotation(family: str, section: str, rope: Mapping[str, Any]) -> None:
    """Check the kind of rotary positions, and that what it needs is there."""
    if family in UNTURNED:
        raise ValueError(
            f"config.json: {section} is set, and the family {family!r} reads none; correct model_type, or take it out"
        )
    nested = [key for key, value in rope.items() if isinstance(value, dict)]
    if family in BY_TYPE and section == "rope_parameters":
        if set(rope) - {"full_attention", "sliding_attention"} or len(nested) < len(rope):
            raise ValueError(
                f"config.json: {section} is {rope!r}, and the family {family!r} has it for 'full_attention' and "
                "'sliding_attention' apart; mend it"
            )
        for key in nested:
            _check_kind(f"{section} for {key}", rope[key])
        return
    if nested:
        raise ValueError(
            f"config.json: {section} describes {nested[0]!r} apart, and all layers of the family {family!r} turn "
            "alike; correct model_type, or describe them once"
        )
    _check_kind(section, rope)


def _check_kind(section: str, rope: Mapping[str, Any]) -> None:
    said = {key: rope[key] for key in ("rope_type", "type") if key in rope}
    for key, kind in said.items():
        if not among(kind, tuple(ROTATIONS)):
            raise ValueError(
                f"config.json: {key} in its {section} is {kind!r}, which is no kind of rotary positions that is known; "
                f"correct it to one of {', '.join(ROTATIONS)}, or use another model"
            )
    if len(set(said.values())) > 1:
        raise ValueError(
            f"config.json: rope_type in its {section} is {rope['rope_type']!r} and type is {rope['type']!r}, and one "
            "is used; take the other out"
        )
    kind = next(iter(said.values()), "default")
    for key in ROTATIONS[kind]:
        if rope.get(key) is None:
            raise ValueError(
                f"config.json: {key} is not in its {section}, and rotary positions of the kind {kind!r} need it; add it"
            )
