"""What a claim is made of: plain data, written before anyone looks at a result.

A claim states something about the runs of one experiment; the experiment is found by its settings (``Role``).
It is judged by one comparison or several: each reduces every run to one number by a rule and compares these
numbers with one null. A claim holds when all its comparisons hold. No verdict is ever part of this data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["seed", "layer", "prompt", "model"]
"""What n counts; layers and prompts are those of one language model, and say nothing of another."""

ANY_INDEX = (0, 10_000_000)
"""Where a series has one index that the config chooses, such as the number of latents."""

EACH = "*"
"""Stands for the name of a text or a contrast, in a comparison's null and its series' data; see ``Comparison.each``."""


@dataclass(frozen=True)
class Series:
    """Which rows of a tidy table are read: one curve over training, or one event, for each run."""

    quantity: str
    part: str = "model"
    """Part of the model; "layers.*.mlp.output" is that of every layer, for the rules that read layers."""
    data: str = ""
    index: int | tuple[int, int] = 0
    """One index; or the first and last of a range, over which the largest value counts."""
    relative_to: str = ""
    """Name of a null; every value is then divided by the upper limit of that null at its step and index."""


@dataclass(frozen=True)
class Window:
    """A stretch of training, from ``start`` to ``stop`` in units of a run's own time."""

    start: float
    stop: float
    of: Literal["transition", "training"] = "transition"
    """The unit: the step of the claim's event in this run, or the run's last step."""
    not_before: float = 0.0
    """Observed only if it starts no earlier than this many times the event's step."""


@dataclass(frozen=True)
class Role:
    """The part that an experiment plays for claims, told by its settings."""

    conditions: Mapping[str, Any]
    """Setting (``"model.layers"``) -> the value it must have, or a condition such as ``{"at_most": number}``
    (``studies.CONDITIONS``)."""
    published: Mapping[str, Any]
    """Setting -> its published value; the ledger's ``scale`` says where an experiment differs."""


@dataclass(frozen=True)
class Comparison:
    """One row of the ledger: a rule, its parameters, and the name of what it compares with."""

    null: str
    rule: str
    """Name of a rule: of its file in ``claims/rules``."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The rule's ``Parameters``, but for those with a default that holds; see ``rule.rule_of``."""
    rejects: bool = True
    """Whether its failing speaks against the claim; not where too little effort (steps, sequences) looks the same."""
    unit: Literal["layer", "prompt"] | None = None
    """What n counts in this row, if not the claim's unit: a claim of one model may rest on layers and on prompts."""
    each: Literal["text", "contrast", "first contrast"] | None = None
    """Made once for every text, or contrast, or for the first contrast alone, that the experiment (or every one of a
    claim across models) reads, whatever the config calls it."""


@dataclass(frozen=True)
class Claim:
    """A statement of a work, and how it is judged."""

    name: str
    study: str
    statement: str
    source: str
    published: str
    """The published figure, in words or as a number; empty where none is given."""
    role: str
    """Name of a role of the study; every experiment that plays it is judged by itself."""
    quantity: Series
    comparisons: tuple[Comparison, ...]
    floor: str | float
    """Differences up to this are no evidence: "evaluation_noise", "estimator_error", or a number; rules on times
    take the spacing of recorded steps instead."""
    reference: str = ""
    """Name of the role that other experiments play, if the claim compares with runs of theirs."""
    event: Series | None = None
    """The event that windows are relative to."""
    unit: Unit = "seed"
    """What n counts. "seed": runs, or dictionaries, of an experiment. "layer", "prompt": of one language model, which
    has one run. "model": all experiments of the role together, each one unit (the mean of its seeds; of a language
    model its layers' share or mean, or its measured value)."""
    steps_to_support: int = 0
    """Shorter training cannot speak for the claim."""
    steps_to_reject: int = 0
    """Shorter training cannot speak against the claim."""
    figure: str = ""
    """The figure that shows it, if any."""


@dataclass(frozen=True)
class Study:
    """All claims of one study, and the roles that experiments play for them."""

    name: str
    title: str
    roles: Mapping[str, Role]
    claims: tuple[Claim, ...]
    dictionaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What claims call the dictionaries of a sweep (as the data of series) -> the settings that they are told by."""
