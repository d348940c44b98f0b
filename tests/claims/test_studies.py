"""The claims themselves: well-formed data, found by the experiments of the configs, judged on planted runs."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import learning_geometry
from learning_geometry.claims import (
    activation_geometry,
    attention_subspaces,
    execution_manifolds,
    orthogonal_subspaces,
    text_models,
)
from learning_geometry.claims.claim import Role
from learning_geometry.claims.judge import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, judge
from learning_geometry.claims.orthogonal_subspaces import CLAIMS, STUDY
from learning_geometry.claims.rule import rule_of
from learning_geometry.claims.studies import STUDIES, needed_experiments, players, plays

from .conftest import curve, event, shipped, tables

OUT, IN = "out_of_distribution", "in_distribution"


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_claims_are_well_formed(study):
    assert len({claim.name for claim in study.claims}) == len(study.claims)
    for claim in study.claims:
        assert claim.study == study.name
        assert claim.role in study.roles
        assert claim.statement.endswith(".") and claim.source
        assert claim.comparisons
        nulls = [comparison.null for comparison in claim.comparisons]
        assert all(nulls) and len(set(nulls)) == len(nulls)
        for comparison in claim.comparisons:
            rule_of(claim, comparison)  # raises for what the rule does not know


@pytest.mark.parametrize(
    "module", [orthogonal_subspaces, execution_manifolds, attention_subspaces, activation_geometry, text_models]
)
def test_no_verdict_is_typed_by_hand(module):
    tree = ast.parse(Path(module.__file__).read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert len(texts) > 50
    for verdict in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE):
        assert [text for text in texts if verdict in text.lower()] == []


def test_parsing_the_snakefile_stays_fast():
    code = (
        "import learning_geometry.claims.studies, sys; print({'numpy', 'pandas', 'scipy', 'torch'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(learning_geometry.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_experiments_find_their_roles():
    default = shipped("config.yaml")
    assert players(STUDY, "two_layers", default)[:1] == ["copying"]
    assert players(STUDY, "one_layer", default) == ["copying_one_layer"]
    # the reduced runs of positions and pools are no runs of the published task
    assert not any(name.startswith("small_") for name in needed_experiments(default))
    paper = shipped("paper.yaml")
    assert players(STUDY, "two_layers", paper) == ["copying"]
    assert players(STUDY, "small_pool", paper) == [f"copying_pool_{size}" for size in (300, 500, 600, 700)]
    assert "copying_mlp" not in needed_experiments(paper) and "copying_pool_750" not in needed_experiments(paper)
    assert needed_experiments({"mine": default["copying"] | {"study": "none"}}) == []
    pool = paper["copying_pool_300"]
    reduced = {
        "mine": pool | {"task": pool["task"] | {"vocabulary": 32}},
        "shorter": pool | {"task": pool["task"] | {"length": 40}},
    }
    assert players(STUDY, "small_pool", reduced) == []


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        (2, True),
        (3, False),
        ({"at_most": 2}, True),
        ({"at_most": 1}, False),
        ({"at_least": 2}, True),
        ({"at_least": 2.5}, False),
        ({"one_of": [1, 2]}, True),
        ({"one_of": []}, False),
        ({"given": True}, True),
        ({"given": False}, False),
        ({"longer_than": 0}, False),  # a number has no length
    ],
)
def test_conditions_of_roles(condition, fits):
    assert plays({"model": {"layers": 2}}, Role({"model.layers": condition}, {})) == fits


def test_conditions_on_what_is_not_there_and_on_lists():
    assert not plays({"model": {}}, Role({"model.layers": {"at_most": 2}}, {}))
    assert plays({"model": {}}, Role({"model.layers": {"given": False}}, {}))
    assert plays({"task": {"markers": [1, 2]}}, Role({"task.markers": {"longer_than": 1}}, {}))
    assert plays({"texts": {"a": "b"}}, Role({"texts": {"filled": True}}, {}))
    for empty in ({}, {"texts": {}}, {"texts": None}):
        assert not plays(empty, Role({"texts": {"filled": True}}, {}))
    with pytest.raises(ValueError, match="unknown"):
        plays({"model": {"layers": 2}}, Role({"model.layers": {"about": 2}}, {}))


STEPS = np.arange(0, 20_001, 200)


def moment_row(part, moment, value):
    """The largest eigenvalue of a group of blocks at a moment of the transition; None if it never came."""
    row = {"step": 20_000, "part": part, "quantity": "block_largest_hessian_eigenvalue_at_moment", "index": moment}
    value = np.nan if value is None else value
    return row | {"data": IN, "value": value, "low": 0.999 * value, "high": 1.001 * value, "censored": np.isnan(value)}


def seed_rows(seed, sharp=True, layers=2, contrast=0.5, bridge=True):
    """One run in which, at step 2000, everything happens as the study says (or, without ``sharp``, slowly)."""
    wiggle = 1 + 0.01 * np.random.default_rng(seed).standard_normal(len(STEPS))
    step = 2000 + 10 * seed
    after = 1 / (1 + np.exp(-(STEPS - step) / 40))  # 0 before, 1 after
    peak = np.exp(-(((STEPS - step) / 500) ** 2))
    late = 1 / (1 + np.exp(-(STEPS - 8000) / 1000))
    times = (step - 100, step, step + (400 if sharp else 3 * step))
    if layers == 1:
        times, after = (None, None, None), 0 * after
    rows = [event(t, f"first_step_below_{x}", 20_000) for t, x in zip(times, (0.9, 0.5, 0.2), strict=True)]

    def add(quantity, values, null=None, limits=(0.0, 0.0), **where):
        rows.append(curve(quantity, values * wiggle, STEPS, **where))
        if null:
            low, high = limits
            where = {"n": 100} | where | {"low": low, "high": high}
            rows.append(curve(quantity, (low + high) / 2, STEPS, null=null, **where))

    n = {"n": 5000}
    add("running_error", 0.98 - 0.97 * after, data=OUT, **n)
    add("error", 0.98 - 0.97 * after, data=OUT, **n)
    rows.append(curve("running_error", 0.911 - 0.9 * after, STEPS, data=IN, n=500))
    rows.append(curve("error", 0.911, STEPS, data=IN, null="constant_prediction", low=0.911, high=0.911, n=500))
    for quantity, part in (("previous_token_score", "layers.0"), ("induction_score", "layers.1")):
        add(quantity, 0.05 + 0.8 * after, "uniform_attention", (0.05, 0.05), data=OUT, part=part, **n)
    add("subspace_match_rms_cosine", 0.4 + 0.4 * peak, "random_subspaces", (0.35, 0.45), part="layers.1", index=10)
    for part, values, limits in (
        ("medium", 0.5 - 0.4 * late, (0.45, 0.6)),
        ("bottom", 0.45 + 0.4 * late, (0.4, 0.5)),
        ("top", 0.01 + 0.08 * late, (0.0, 0.04)),
    ):
        add("bridge_energy_key", values, "random_subspace", limits, part=f"embedding.{part}", index=10)
    for index, values in ((1, 3 + late), (35, 1 + late), (36, np.ones(len(STEPS)))):
        add("singular_value_gap", values, "gaussian_matrix", (1.0, 1.3), part="embedding", index=index)
    add("attention_logit_share_content", 0.6 - 0.55 * late, "untrained", (0.6, 0.6), part="layers.0", data=OUT)
    function = {"data": OUT, "n": 50}
    for quantity, part in (("induction_score", "layers.1.query"), ("previous_token_score", "layers.0.query_key")):
        where = function | {
            "part": part,
            "low": contrast * after - 0.02,
            "high": contrast * after + 0.02,
        }
        rows.append(curve(f"{quantity}_dissociation", contrast * after * wiggle, STEPS, **where))
        where |= {"null": "random_subspace", "low": -0.1, "high": 0.1}
        rows.append(curve(f"{quantity}_dissociation", 0.0, STEPS, **where))
    where = function | {"part": "layers.1.key-bridge", "index": 10}
    error = {"random_subspace": 0.1, "equal_norm_ablation": 0.3, "": 0.9 if bridge else 0.2}
    for null, value in error.items():
        limits = {"null": null, "low": value - 0.05, "high": value + 0.05}
        rows.append(curve("error_after_ablation", 0.98 + (value - 0.98) * after * wiggle, STEPS, **where, **limits))
    sharpness = (1 + 5 * after) * wiggle
    where = {"data": IN, "low": sharpness - 0.01, "high": sharpness + 0.01}
    rows.append(curve("largest_hessian_eigenvalue", sharpness, STEPS, **where))
    for part, factor in (("positional", 3.0), ("matching", 4.0), ("rest", 1.5)):
        for moment, value in ((60, 1.0), (125, factor * wiggle[seed] if layers == 2 else None)):
            rows.append(moment_row(part, moment, value))
    return rows + landscape_rows(seed)


def landscape_rows(seed, saddle=True, effort=True, censored=False):
    """The plateau as a saddle or a minimum, measured with enough sequences and steps or with too few."""
    wiggle = 1 + 0.1 * np.random.default_rng(seed).standard_normal()
    drop, share = (0.003 * wiggle, 0.9 * wiggle) if saddle and effort else (-0.001 * wiggle, 0.02 * wiggle)
    # few sequences have negative curvature of their own, wherever they are
    ratio = -0.05 * wiggle if saddle or not effort else -1e-6 * wiggle
    here = {"step": 20_000, "part": "plateau_0.5", "data": "held_out", "censored": censored}
    of_drop = here | {"quantity": "loss_drop_along_most_negative_direction"}

    def close(value, error):
        return {"value": value, "low": value - error, "high": value + error}

    return [
        of_drop | close(drop, 0.0002),
        of_drop | close(-0.002, 0.0002) | {"null": "solution"},
        of_drop | close(-1e-5, 1e-6) | {"null": "random_direction"},
        here | {"quantity": "descent_error_share"} | close(share, 0.02),
        here | {"quantity": "smallest_to_largest_eigenvalue", "data": IN} | close(ratio, 0.001),
    ]


@functools.cache
def without_circuit(experiment, seeds):
    """Runs in which nothing happens, the same in every planted study; not to be changed."""
    return tuple(tables(*(seed_rows(seed, layers=1) for seed in range(seeds)), experiment=experiment))


def planted_study(seeds=10, **options):
    experiments = shipped("paper.yaml")
    chosen = {name: experiments[name] for name in ("copying", "copying_one_layer", "copying_pool_300")}
    made = [
        *tables(*(seed_rows(seed, **options) for seed in range(seeds)), experiment="copying"),
        *without_circuit("copying_one_layer", seeds),
        *without_circuit("copying_pool_300", seeds),
    ]
    ledger = judge(chosen, made)
    return dict(zip(ledger.table["claim"], ledger.table["verdict"], strict=True)), ledger


def test_every_claim_is_supported_where_it_is_planted():
    verdicts, ledger = planted_study()
    assert verdicts == dict.fromkeys((claim.name for claim in CLAIMS), "supported"), ledger.notes["why"].unique()


def test_three_seeds_support_nothing():
    verdicts, _ = planted_study(seeds=3)
    assert set(verdicts.values()) == {"inconclusive"}


@pytest.mark.parametrize("contrast", [-0.5, 0.05])
def test_subspaces_without_a_dissociation_are_not_distinct(contrast):
    # of the other sign, or no larger than between random subspaces
    assert planted_study(contrast=contrast)[0]["subspaces_are_functionally_distinct"] == "not supported"


def test_both_halves_of_the_dissociation_must_hold():
    experiments = {"copying": shipped("paper.yaml")["copying"]}
    made = dissociated(5)
    assert verdict(experiments, made, "subspaces_are_functionally_distinct") == "supported"
    for table in made:
        half = table["quantity"] == "previous_token_score_dissociation"
        table.loc[half & (table["null"] == ""), ["value", "low", "high"]] *= -1
        table[["low", "high"]] = np.sort(table[["low", "high"]], axis=1)
    assert verdict(experiments, made, "subspaces_are_functionally_distinct") == "not supported"


def test_short_training_cannot_speak_against_the_dissociation_but_for_it():
    experiment = shipped("config.yaml")["copying"]
    for contrast, expected in ((0.5, "supported"), (-0.5, "inconclusive")):
        made = dissociated(5, contrast=contrast)
        for table in made:
            table.loc[table["quantity"].str.startswith("first_step"), "step"] = 3400
        made = [table[table["step"] <= 3400] for table in made]
        assert verdict({"copying": experiment}, made, "subspaces_are_functionally_distinct") == expected


@pytest.mark.parametrize(
    ("seeds", "bridge", "expected"), [(5, True, "supported"), (3, True, "inconclusive"), (5, False, "not supported")]
)
def test_removing_the_bridge(seeds, bridge, expected):
    # without an effect the error is above that of a random subspace, but not of an ablation of equal norm
    experiments = {"copying": shipped("paper.yaml")["copying"]}
    assert verdict(experiments, dissociated(seeds, bridge=bridge), "removing_the_bridge_destroys_copying") == expected


def dissociated(seeds, **options):
    return tables(*(seed_rows(seed, **options) for seed in range(seeds)), experiment="copying")


def verdict(experiments, made, name):
    ledger = judge(experiments, made).table
    (found,) = ledger.loc[ledger["claim"] == name, "verdict"].unique()
    return found


def test_a_slow_transition_is_not_sharp():
    assert planted_study(sharp=False)[0]["transition_is_sharp"] == "not supported"


def test_sharpness_that_rises_everywhere_alike_rises_in_no_blocks():
    """A rise of a group alone is no evidence; nor is one that the rest shares."""
    names = ["sharpness_rises_in_positional_blocks", "sharpness_rises_in_matching_blocks"]
    experiments = {"copying": shipped("paper.yaml")["copying"]}

    def verdicts(positional, matching, rest, seeds=10):
        factors = {"positional": positional, "matching": matching, "rest": rest}
        rows = []
        for seed in range(seeds):
            wiggle = np.random.default_rng(seed).normal(1, 0.05, 3)
            rows.append([event(2000, "first_step_below_0.5", 20_000)])
            for (part, factor), noise in zip(factors.items(), wiggle, strict=True):
                rows[-1] += [moment_row(part, 60, 2.0), moment_row(part, 125, 2 * factor * noise)]
        table = judge(experiments, tables(*rows, experiment="copying")).table
        return [table.loc[table["claim"] == name, "verdict"].iloc[0] for name in names]

    assert verdicts(3.0, 5.0, 1.0) == ["supported", "supported"]
    assert verdicts(3.0, 3.0, 6.0) == ["not supported", "not supported"]
    assert verdicts(3.0, 1.0, 1.0) == ["supported", "inconclusive"]
    assert verdicts(3.0, 3.0, 3.0) == ["inconclusive", "inconclusive"]
    assert verdicts(0.5, 3.0, 0.3) == ["not supported", "supported"]  # it falls less than the rest: no rise
    assert verdicts(3.0, 5.0, 1.0, seeds=3) == ["inconclusive", "inconclusive"]


@pytest.mark.parametrize(
    ("seeds", "options", "expected"),
    [
        (5, {}, "supported"),
        (5, {"saddle": False}, "not supported"),
        (3, {}, "inconclusive"),
        (5, {"effort": False}, "inconclusive"),
        (5, {"effort": False, "saddle": False}, "inconclusive"),
        (5, {"censored": True}, "inconclusive"),
    ],
)
def test_the_plateau_is_a_saddle_where_it_is_one(seeds, options, expected):
    experiments = {"copying": shipped("paper.yaml")["copying"]}
    made = tables(*(landscape_rows(seed, **options) for seed in range(seeds)), experiment="copying")
    assert verdict(experiments, made, "plateau_is_a_saddle") == expected


@pytest.mark.parametrize("weak", ["solution", "random_direction"])
def test_a_saddle_needs_more_than_each_null(weak):
    experiments = {"copying": shipped("paper.yaml")["copying"]}
    made = tables(*(landscape_rows(seed) for seed in range(5)), experiment="copying")
    for table in made:
        table.loc[table["null"] == weak, ["value", "low", "high"]] = [0.01, 0.009, 0.011]
    ledger = judge(experiments, made)
    rows = ledger.table["claim"] == "plateau_is_a_saddle"
    assert set(ledger.table["verdict"][rows]) == {"inconclusive"}
    (why,) = set(ledger.notes["why"][rows])
    assert why == f"{weak}: it does not hold, but too little effort would look the same"
    assert all("cannot speak against" in rule for rule in ledger.table["rule"][rows][:4])


def test_without_a_transition_nothing_was_observed():
    experiments = {"copying": shipped("paper.yaml")["copying"]}
    made = tables(*(landscape_rows(seed, censored=True) for seed in range(5)), experiment="copying")
    ledger = judge(experiments, made).table
    assert (ledger.loc[ledger["claim"] == "plateau_is_a_saddle", "n"] == 0).all()
