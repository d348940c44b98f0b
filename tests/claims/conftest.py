"""Planted runs: tables in which it is known what is true."""

import functools
from pathlib import Path

import numpy as np
import pytest

from learning_geometry.claims.claim import Claim, Comparison, Role, Series, Study, Window
from learning_geometry.claims.rule import rule_of
from learning_geometry.config import load
from learning_geometry.tables.tidy import tidy

CONFIG = Path(__file__).parents[2] / "config"
STEPS = np.arange(0, 4001, 100)
EVENT = Series("first_step_below_0.5", data="out_of_distribution")
BEFORE, AT, AFTER = Window(0.5, 0.75), Window(0.9, 1.1), Window(1.1, 1.5)
END = Window(0.9, 1.0, "training")


@functools.cache
def shipped(name):
    """The experiments of a config of the repository, read once; not to be changed."""
    return load(CONFIG / name)["experiments"]


def event(value, quantity="first_step_below_0.5", last=4000):
    """The row of an event; ``value`` None if it never happened."""
    row = {"step": last, "quantity": quantity, "data": "out_of_distribution", "unit": "steps"}
    return row | {"value": float(last if value is None else value), "censored": value is None}


def curve(quantity, values, steps=STEPS, **columns):
    return {"step": steps, "quantity": quantity, "value": np.broadcast_to(values, len(steps))} | columns


def tables(*rows_of_seeds, experiment="runs"):
    return [tidy(rows, experiment, seed) for seed, rows in enumerate(rows_of_seeds)]


def settings(**sections):
    return {"study": "planted", "training": {"steps": 4000}} | sections


def claim(*comparisons, name="claim", **fields):
    default = {"study": "planted", "statement": "It rises.", "source": "a work", "published": "2.5", "role": "any"}
    default |= {"quantity": Series("score"), "event": EVENT, "floor": 0.01}
    return Claim(name=name, comparisons=comparisons, **(default | fields))


def study(*claims, conditions=None):
    role = Role(conditions or {}, {"training.steps": 20_000})
    return Study("planted", "A planted study", {"any": role}, claims)


def judged_by(rule, evidence, null, **parameters):
    """The judgement of one comparison by itself."""
    found, filled = rule_of(evidence.claim, Comparison(null, rule, parameters))
    return found.judge(evidence, filled)


RISE = Comparison("before", "change", {"start": BEFORE, "stop": AFTER, "side": "above"})
ABOVE_CHANCE = Comparison("chance", "level", {"window": END, "side": "above"})
ABOVE_OTHER = Comparison("other", "level", {"window": END, "side": "above"})


@pytest.fixture
def rising():
    """Make runs whose score rises by ``rise`` ± ``spread`` over seeds at step 2000, with nulls around 0."""

    def make(n=5, rise=1.0, spread=0.1, chance=(-0.2, 0.2), other=(-0.1, 0.1), transition=2000, seed=0):
        generator = np.random.default_rng(seed)
        rows = []
        for _ in range(n):
            height = rise + spread * generator.standard_normal()
            null = {"n": 100}
            rows.append(
                [
                    event(transition),
                    curve("score", height * (STEPS > 2000)),
                    curve("score", 0.0, null="chance", low=chance[0], high=chance[1], **null),
                    curve("score", np.mean(other), null="other", low=other[0], high=other[1], **null),
                ]
            )
        return tables(*rows)

    return make
