"""Claims about models of text, on planted runs: supported where they are true, and not where they are not."""

import numpy as np
import pytest

from learning_geometry.claims.judge import judge
from learning_geometry.claims.studies import players
from learning_geometry.claims.text_models import CLAIMS, FINAL, HELD_OUT, REPEATED, STUDY, WALKS

from .conftest import curve, shipped, tables

STEPS = np.arange(0, 3001, 50)
LAST = 3000
ROW = {"step": LAST}


def experiments():
    return {"text": shipped("text.yaml")["text"]}


def seed_rows(seed, phases=(0.5, 0.8, 0.4), attention=0.5, sharp=True, induction=0.6, match=0.4, pc1=0.8, late=0):
    """One run in which all is as the study says, at step 1000; the options make one thing false."""
    generator = np.random.default_rng(seed)
    wiggle = 1 + 0.01 * generator.standard_normal(len(STEPS))
    step = 1000 + 10 * seed
    after = 1 / (1 + np.exp(-(STEPS - step) / 40))
    rows = []

    def add(quantity, values, null=None, limits=None, **where):
        rows.append(curve(quantity, values * wiggle, STEPS, **where))
        if null:
            low, high = limits
            rows.append(curve(quantity, (low + high) / 2, STEPS, null=null, **where, low=low, high=high))

    for quantity in ("effective_rank_of_variances", "power_law_exponent"):
        for index, change in enumerate(phases):
            where = {"quantity": f"{quantity}_phase", "part": FINAL, "data": HELD_OUT, "index": index}
            rows.append(ROW | where | {"value": change * (1 + 0.05 * generator.standard_normal())})
    for kind in ("directions_99", "effective_rank"):
        falls = 0.9 + (attention - 0.9) * after
        add(kind, falls, "isotropic", (0.97, 0.98), part="attention.output", data=HELD_OUT)
        rows.append(
            curve(kind, 0.9, STEPS, part="attention.output", data=HELD_OUT, null="untrained", low=0.9, high=0.9)
        )
        for part in ("mlp.output", "residual_mid", "residual_post"):
            add(kind, 0.8, part=part, data=HELD_OUT)
    for name, height in (("induction", induction), ("previous_token", 0.7)):
        rise = after if name == "induction" else 1 / (1 + np.exp(-(STEPS - step - late) / 40))
        chance = {"null": "uniform_attention", "low": 0.03, "high": 0.03}
        add(f"largest_{name}_score", 0.05 + height * rise, data=REPEATED)
        rows.append(curve(f"largest_{name}_score", 0.03, STEPS, data=REPEATED, **chance))
        untrained = chance | {"null": "untrained", "low": 0.05, "high": 0.05}
        rows.append(curve(f"largest_{name}_score", 0.05, STEPS, data=REPEATED, **untrained))
        times = (step - 90, step, step + 90 if sharp else min(4 * step, LAST))
        for percent, time in zip((10, 50, 90), times, strict=True):
            event = {"quantity": f"{name}_score_rise_step", "index": percent, "data": REPEATED, "unit": "steps"}
            happened = height > 0.05
            rows.append(ROW | event | {"value": float(time) if happened else float(LAST), "censored": not happened})
    add("loss_saved_by_repetition", 5 * induction * after, data=REPEATED)
    matched = 0.28 + match * after
    add("circuit_match_rms_cosine", matched, "random_subspaces", (0.26, 0.3), index=10)
    rows.append(curve("circuit_match_rms_cosine", 0.3, STEPS, index=10, null="other_heads", low=0.25, high=0.35))
    rows.append(ROW | {"quantity": "trajectory_pc1_share", "value": pc1 + 0.01 * generator.standard_normal()})
    for walk in WALKS:
        where = {"quantity": "trajectory_pc1_share", "null": walk, "value": 0.6, "low": 0.55, "high": 0.65}
        rows.append(ROW | where)
    return rows


def verdicts(seeds=5, **options):
    ledger = judge(experiments(), tables(*(seed_rows(seed, **options) for seed in range(seeds)), experiment="text"))
    return dict(zip(ledger.table["claim"], ledger.table["verdict"], strict=True)), ledger


def test_the_shipped_config_plays_every_role():
    for role in STUDY.roles:
        assert players(STUDY, role, experiments()) == ["text"]
    other = experiments()["text"] | {"task": {"name": "copying"}}
    assert players(STUDY, "text", {"other": other}) == []
    learned = experiments()["text"] | {"model": experiments()["text"]["model"] | {"positions": "learned"}}
    assert players(STUDY, "rotary", {"learned": learned}) == [] != players(STUDY, "text", {"learned": learned})


def test_every_claim_is_supported_where_it_is_planted():
    found, ledger = verdicts()
    assert found == dict.fromkeys((claim.name for claim in CLAIMS), "supported"), ledger.notes["why"].unique()


def test_three_seeds_support_nothing():
    assert set(verdicts(seeds=3)[0].values()) == {"inconclusive"}


RANK, EXPONENT = "effective_rank_has_three_phases", "power_law_exponent_has_three_phases"


@pytest.mark.parametrize(
    ("options", "false"),
    [
        ({"phases": (0.0, 0.8, 0.4)}, {RANK, EXPONENT}),
        ({"phases": (0.5, 0.03, 0.4)}, {RANK, EXPONENT}),
        ({"phases": (0.5, 0.8, 0.0)}, {RANK, EXPONENT}),
        ({"attention": 0.95}, {c.name for c in CLAIMS if c.name.startswith("attention_outputs")}),
        ({"sharp": False}, {"induction_comes_in_a_transition"}),
        ({"induction": -0.05}, {"induction_heads_form"}),
        ({"late": 1500}, {"previous_token_heads_rise_with_induction"}),
        ({"match": -0.05}, {"subspace_match_rises_with_induction"}),
        ({"pc1": 0.4}, {"first_component_exceeds_random_walks"}),
    ],
)
def test_what_is_false_is_not_supported(options, false):
    found, _ = verdicts(**options)
    assert {name for name, verdict in found.items() if verdict == "not supported"} == false
    unobserved = {"induction_comes_in_a_transition", "previous_token_heads_rise_with_induction"}
    unobserved |= {"subspace_match_rises_with_induction"}
    for name, verdict in found.items():
        never_rose = "induction" in options and name in unobserved
        assert name in false or verdict == ("inconclusive" if never_rose else "supported"), name


def test_a_phase_within_its_margin_is_not_decided():
    assert verdicts(phases=(0.5, 0.8, 0.095))[0][RANK] == "inconclusive"


def test_other_configs_have_no_row_of_these_claims():
    copying = shipped("config.yaml")["copying"]
    made = tables([{"step": 10, "quantity": "error", "value": 0.5}], experiment="copying")
    assert not set(judge({"copying": copying}, made).table["claim"]) & {claim.name for claim in CLAIMS}
