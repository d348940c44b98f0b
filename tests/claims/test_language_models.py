"""The claims about language models: planted tables of one model, in which everything is as the works say, or not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from learning_geometry.claims import activation_geometry, attention_subspaces
from learning_geometry.claims.claim import Comparison, Series
from learning_geometry.claims.curves import Tables
from learning_geometry.claims.evidence import Evidence, Missing
from learning_geometry.claims.judge import judge
from learning_geometry.claims.models import distinct_models, weights_in
from learning_geometry.claims.names import named
from learning_geometry.claims.pages import markdown
from learning_geometry.claims.rule import rule_of
from learning_geometry.claims.statistics import LEVEL, judge_measured, judge_most, outcome
from learning_geometry.claims.studies import needed_experiments, players
from learning_geometry.config import settings_schema
from learning_geometry.config.schemas import filled
from learning_geometry.files import read_provenance, write_table
from learning_geometry.tables.tidy import tidy

from .conftest import claim, judged_by

LAYERS = 30
NUMBERS = np.arange(LAYERS)
WIDTH = 576
TEXTS, CONTRASTS = ("documentation", "source_code"), ("harmfulness", "sentiment")


def settings(study, **sections):
    return {"study": study, "model": {"source": "embedded"}, "texts": {}, "prompts": {}} | sections


def row(quantity, value, **columns):
    return {"step": 0, "quantity": quantity, "value": value} | columns


def by_layer(quantity, values, part, layers=NUMBERS, **columns):
    """Rows of some layers; ``part`` follows the layer's number."""
    parts = [f"layers.{layer}{part}" for layer in layers]
    return [row(quantity, np.broadcast_to(np.float64(values), LAYERS)[layers], part=parts, **columns)]


# Attention subspaces -------------------------------------------------------------------------------------


def attention_rows(
    seeds=5,
    attention=0.5,
    mlp=0.8,
    residual=0.75,
    on_code=None,
    isotropic=0.98,
    output=0.5,
    explained=(0.8, 0.7),
    random_writing=0.6,
    random_weight=0.75,
    dead=None,
    variance=None,
    texts=TEXTS,
    names=None,
):
    """Tidy tables: of the model with seed 0, and of dictionaries with seeds 0 to ``seeds``."""
    generator = np.random.default_rng(0)
    rows = []
    for text in texts:
        here = {"data": text, "n": 6000}
        of_attention = on_code if on_code is not None and text == texts[1] else attention
        of_part = {".attention.output": of_attention, ".mlp.output": mlp}
        of_part |= {".residual_pre": residual, ".residual_mid": residual}
        for part, value in of_part.items():
            for kind in ("directions_99", "effective_rank", "directions_99_without_rogues"):
                rows += by_layer(kind, value + 0.02 * generator.standard_normal(LAYERS), part, **here)
                limits = {"null": "isotropic", "low": isotropic - 0.01, "high": isotropic + 0.01}
                rows += by_layer(kind, isotropic, part, **here | limits)
        for kind in ("directions_99", "effective_rank"):
            rows += by_layer(f"white_z_{kind}", 0.9, ".attention.z", **here)
            rows += by_layer(f"projected_{kind}", output, ".attention.output", **here)
            nulls = {"random_writing": random_writing, "random_reading": 0.7, "random_weight": random_weight}
            for null, value in nulls.items():
                rows += by_layer(f"projected_{kind}", value, ".attention.output", null=null, **here)
        for cause, share in zip(("orthogonal_writing", "random_reading"), explained, strict=True):
            rows += by_layer("drop_explained", share, f".{cause}", **here)
    tables = [tidy(rows, "model", 0)]
    shares = {
        "standard_small": 0.2,
        "standard": 0.6,
        "standard_centred": 0.01,
        "active_subspace": 0.02,
        "active_subspace_centred": 0.0,
    }
    shares |= {"transcoder_standard": 0.4, "transcoder_active_subspace": 0.01}
    for seed in range(seeds):
        rows = []
        for dictionary, share in (shares | (dead or {})).items():
            part = "layers.15.mlp" if dictionary.startswith("transcoder") else "layers.15.attention.output"
            latents = WIDTH if dictionary == "standard_small" else 2 * WIDTH
            here = {"part": part, "data": (names or {}).get(dictionary, dictionary), "index": latents}
            rows.append(row("dead_share", share * (1 + 0.02 * generator.standard_normal()), **here))
            explains = (variance or {}).get(dictionary, 0.7) + 0.001 * generator.standard_normal()
            rows.append(row("explained_variance", explains, **here))
        tables.append(tidy(rows, "model", seed))
    return tables


def only(study, name):
    """The study with one of its claims, or all."""
    return replace(study, claims=tuple(each for each in study.claims if name in (None, each.name)))


def attention_verdicts(name=None, **options):
    experiments = {"model": settings("attention_subspaces", texts=dict.fromkeys(TEXTS, "a"))}
    ledger = judge(experiments, attention_rows(**options), (only(attention_subspaces.STUDY, name),))
    return dict(zip(ledger.table["claim"], ledger.table["verdict"], strict=True)), ledger


CENTRED = "active_subspace_cuts_dead_latents_when_centred"
ACROSS = {"attention_outputs_are_low_dimensional_across_models", "variance_and_cosine_are_alike_across_models"}


@pytest.fixture(scope="module")
def attention_as_published():
    return attention_verdicts()


def test_claims_on_attention_hold_where_they_are_planted(attention_as_published):
    found, ledger = attention_as_published
    # where few latents of the centred baseline are dead there is nothing to cut, and one model is no sample of models
    open_ones = {CENTRED, *ACROSS} & set(found)
    expected = {name: "inconclusive" if name in open_ones else "supported" for name in found}
    assert found == expected, ledger.notes["why"].unique()
    assert set(found) == {each.name for each in attention_subspaces.CLAIMS}
    (why,) = ledger.notes["why"][ledger.table["claim"] == CENTRED].unique()
    assert "of the latents of standard centred are dead, fewer than 0.05" in why
    assert all(ledger.table["scale"].str.contains("model.source embedded"))


def test_units_of_a_language_model(attention_as_published):
    _, ledger = attention_as_published
    table = ledger.table
    counted = table.groupby("unit")["n"].unique().map(set).to_dict()
    assert counted == {"layer": {LAYERS}, "model": {1}, "seed": {0, 5}}
    rules = table.loc[table["claim"] == "attention_outputs_are_low_dimensional", "rule"]
    assert rules.iloc[0] == (
        "layers: share of layers with directions 99 (attention.output, documentation) below directions 99 "
        "(mlp.output, documentation) of the same layer, above one half, taken as independent"
    )
    page = markdown(ledger, {}, (attention_subspaces.STUDY,))
    assert f"| {LAYERS} of {LAYERS} layers | holds |" in page and "| 5 of 5 | holds |" in page


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("attention_outputs_are_low_dimensional", {"mlp": 0.3}, "not supported"),
        ("attention_outputs_are_low_dimensional", {"residual": 0.3}, "not supported"),
        ("attention_outputs_are_low_dimensional", {"on_code": 0.9}, "not supported"),  # one text of two
        ("attention_outputs_are_low_dimensional", {"mlp": 0.505}, "inconclusive"),
        ("attention_outputs_are_low_dimensional", {"isotropic": 0.45}, "not supported"),  # too few tokens
        ("attention_outputs_have_a_low_effective_rank", {"mlp": 0.3}, "not supported"),
        ("output_projection_lowers_the_dimension", {"output": 0.95}, "not supported"),
        (
            "output_projection_lowers_the_dimension",
            {"output": 0.895, "random_weight": 0.95},
            "inconclusive",
        ),  # below the floor
        ("output_projection_lowers_the_dimension", {"random_weight": 0.45}, "not supported"),  # any matrix does as much
        ("output_projection_lowers_the_dimension", {"random_weight": 0.51}, "inconclusive"),  # below the floor
        ("head_overlap_explains_the_low_dimension", {"explained": (0.2, 0.2)}, "not supported"),
        ("head_overlap_explains_the_low_dimension", {"random_writing": 0.45}, "not supported"),  # chance does as much
        ("reading_explains_the_low_dimension", {"explained": (0.9, -0.1)}, "not supported"),
        ("reading_explains_the_low_dimension", {"explained": (0.9, np.nan)}, "inconclusive"),
        ("dead_latents_rise_with_dictionary_size", {"dead": {"standard_small": 0.7}}, "not supported"),
        ("dead_latents_rise_with_dictionary_size", {"seeds": 1}, "inconclusive"),
        ("active_subspace_cuts_dead_latents", {"dead": {"active_subspace": 0.2}}, "not supported"),
        ("active_subspace_cuts_dead_latents", {"variance": {"active_subspace": 0.6}}, "not supported"),
        (
            "active_subspace_cuts_dead_latents",
            {"variance": {"active_subspace": 0.695}},
            "supported",
        ),  # within the margin
        ("active_subspace_cuts_dead_latents", {"seeds": 1}, "inconclusive"),
        ("active_subspace_cuts_dead_latents", {"seeds": 0}, "inconclusive"),
        (CENTRED, {"dead": {"standard_centred": 0.3}}, "supported"),
        ("centring_alone_cuts_dead_latents", {"dead": {"standard_centred": 0.3}}, "not supported"),
        (
            "active_subspace_cuts_dead_latents_of_a_transcoder",
            {"dead": {"transcoder_active_subspace": 0.3}},
            "not supported",
        ),
    ],
)
def test_claims_on_attention_fail_or_stay_open_where_planted(name, options, expected):
    assert attention_verdicts(name, **options)[0] == {name: expected}


# Activation geometry -------------------------------------------------------------------------------------


def geometry_rows(
    growth=0.1,
    exponential=-0.3,
    square=-0.3,
    apart=0.2,
    dip=-0.3,
    rise=0.2,
    swapped=0.01,
    gain=0.2,
    late=0.95,
    untrained=0.7,
    overlap=0.3,
    permuted=0.2,
    cosine=0.15,
    cosine_by_layer=0.15,
    error=0.05,
    pairs=64,
    seed=0,
    contrasts=CONTRASTS,
):
    generator = np.random.default_rng(seed)
    rows = []

    def measured(quantity, value, **columns):
        return row(quantity, value, low=value - error, high=value + error, n=pairs, **columns)

    def null(quantity, name, half_width, **columns):
        return row(quantity, 0.0, low=-half_width, high=half_width, n=100, null=name, **columns)

    for contrast in contrasts:
        here = {"data": contrast}
        for stream in activation_geometry.STREAMS:
            for each in activation_geometry.SETS:
                variances = np.exp(growth * NUMBERS + 0.005 * generator.standard_normal(LAYERS))
                variances[0] = 0.0 if stream == "residual_pre" else 1.0
                rows += by_layer(f"mean_variance-{each}", variances, f".{stream}", **here)
            for law in ("power", "square", "linear"):
                value = square if law == "square" else exponential
                rows.append(measured(f"exponential_minus_{law}-mean_variance", value, part=stream, **here))
        limits = {"low": apart - 0.02, "high": apart + 0.02}
        rows += by_layer("log_variance_difference", apart, "", NUMBERS[1:], **limits, **here)
        for quantity, value in (("cosine_middle_minus_first", dip), ("cosine_last_minus_middle", rise)):
            rows += [measured(quantity, value, **here), null(quantity, "swapped_pairs", swapped, **here)]
        rows.append(measured("separability_gain", gain, **here))
        accuracy = np.linspace(0.6, late, LAYERS)
        rows += by_layer("separability", accuracy, ".residual_mid", **here)
        rows += by_layer("separability", 0.5, ".residual_mid", null="swapped_pairs", low=0.4, high=0.6, **here)
        rows += by_layer("separability", untrained, ".residual_mid", null="untrained", **here)
        rows.append(measured("mean_increment_cosine", cosine, **here))
        rows.append(null("mean_increment_cosine", "random_directions", 0.01, **here))
        rows += by_layer("increment_cosine", cosine_by_layer, ".residual_post", **here)
        limits = {"null": "random_directions", "low": -0.01, "high": 0.01}
        rows += by_layer("increment_cosine", 0.0, ".residual_post", **limits, **here)
    for weight in ("output", "down"):
        rows += by_layer("mean_output_overlap", overlap, f".{weight}")
        for name, value in (("random_subspaces", 0.1), ("rows_permuted", permuted)):
            rows += by_layer("mean_output_overlap", value, f".{weight}", null=name, low=value - 0.01, high=value + 0.01)
    return rows


PROMPTS = settings("activation_geometry", prompts={name: ["a", "b"] for name in CONTRASTS})


def geometry_verdicts(name=None, models=1, weights=None, changed=None, **options):
    names = [f"model_{i}" for i in range(models)]
    tables = [tidy(geometry_rows(seed=i, **options), name, 0) for i, name in enumerate(names)]
    experiments = {each: PROMPTS | {"model": {"source": each}} | (changed or {}) for each in names}
    ledger = judge(experiments, tables, (only(activation_geometry.STUDY, name),), weights)
    return dict(zip(ledger.table["claim"], ledger.table["verdict"], strict=True)), ledger


@pytest.fixture(scope="module")
def geometry_as_published():
    return geometry_verdicts()


def test_claims_on_activations_hold_where_they_are_planted(geometry_as_published):
    found, ledger = geometry_as_published
    assert found == {
        each.name: "inconclusive" if each.name in ACROSS else "supported" for each in activation_geometry.CLAIMS
    }, ledger.notes["why"].unique()
    units = ledger.table[ledger.table["claim"] == "sets_become_separable_with_depth"]
    # one claim may rest on prompts and on layers: the last third of these
    assert units["unit"].tolist() == ["prompt", "layer", "layer"] * 2
    assert units["n"].tolist() == [64, 10, 10] * 2
    grows = ledger.table[ledger.table["claim"] == "variance_grows_with_depth"]
    assert set(grows["n"]) == {LAYERS - 2}  # from layer 2 on, against the layer before


def test_claims_across_models_need_models():
    (name,) = ACROSS & {each.name for each in activation_geometry.CLAIMS}
    rows = geometry_verdicts(name, models=5)[1].table
    assert set(rows["verdict"]) == {"supported"} and set(rows["n"]) == {5}
    # errors of laws are logarithms, cosines are not
    laws = rows["null"].str.contains("power_law|line")
    assert laws.sum() == 6 and set(rows["floor"][laws]) == {activation_geometry.LOG_FLOOR}
    assert set(rows["floor"][~laws]) == {activation_geometry.COSINE_FLOOR}
    assert set(geometry_verdicts(name, models=4)[1].table["verdict"]) == {"inconclusive"}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("variance_grows_with_depth", {"growth": -0.1}, "not supported"),
        ("variance_grows_with_depth", {"growth": 0.0}, "inconclusive"),
        ("variance_grows_exponentially", {"exponential": 0.3}, "not supported"),
        ("variance_grows_exponentially", {"exponential": -0.03}, "inconclusive"),  # the interval holds 0
        ("variance_grows_exponentially", {"exponential": -0.005, "error": 0.001}, "inconclusive"),  # below the floor
        ("variance_grows_exponentially", {"pairs": 4}, "inconclusive"),
        ("variance_grows_exponentially", {"error": np.nan}, "inconclusive"),
        ("curves_of_both_streams_are_separate", {"apart": -0.2}, "supported"),
        ("curves_of_both_streams_are_separate", {"apart": 0.0}, "not supported"),
        ("curves_of_both_streams_are_separate", {"apart": 0.05}, "inconclusive"),
        ("cosine_dips_and_rises", {"dip": 0.1}, "not supported"),
        ("cosine_dips_and_rises", {"rise": -0.1}, "not supported"),
        ("cosine_dips_and_rises", {"swapped": 0.5}, "not supported"),  # swapped pairs do as much
        ("sets_become_separable_with_depth", {"gain": -0.2}, "not supported"),
        ("sets_become_separable_with_depth", {"gain": 0.0}, "inconclusive"),
        ("sets_become_separable_with_depth", {"late": 0.55}, "not supported"),
        ("sets_become_separable_with_depth", {"untrained": 0.99}, "not supported"),
        ("weights_share_output_directions", {"overlap": 0.05}, "not supported"),
        ("weights_share_output_directions", {"permuted": 0.4}, "not supported"),
        ("variance_grows_exponentially", {"square": 0.2}, "not supported"),
        ("state_moves_in_similar_directions", {"cosine": -0.2}, "not supported"),
        ("state_moves_in_similar_directions", {"cosine": 0.03}, "inconclusive"),
        ("state_moves_in_similar_directions", {"cosine_by_layer": 0.005}, "not supported"),
    ],
)
def test_claims_on_activations_fail_or_stay_open_where_planted(name, options, expected):
    assert geometry_verdicts(name, **options)[0] == {name: expected}


# The rules ------------------------------------------------------------------------------------------------


def apply(rule, rows, unit, floor=0.01, others=None, **parameters):
    """Apply a rule to the rows of a model, and to those of others, by name."""
    tables = Tables([tidy(each, name, 0) for name, each in ({"model": rows} | (others or {})).items()])
    evidence = Evidence(claim(unit=unit, floor=floor), tables, tuple(tables.runs))
    return judged_by(rule, evidence, "chance", **parameters)


SCORE = Series("score", part="layers.*.mlp", data="a")


def test_layers_are_compared_one_by_one():
    rows = by_layer("score", NUMBERS, ".mlp", data="a") + by_layer("score", NUMBERS - 0.5, ".attention", data="a")
    rows += by_layer("score", 0.0, ".mlp_other", data="a")  # another part, whose name begins alike
    other = replace(SCORE, part="layers.*.attention")
    share = apply("layers", rows, "layer", side="above", quantity=SCORE, other=other)
    assert (share.estimate, share.n, share.kind) == (1.0, LAYERS, "share")
    mean = apply("layers", rows, "layer", side="above", quantity=SCORE, other=other, summary="mean")
    assert (mean.estimate, mean.kind) == (0.5, "mean") and outcome(mean, LEVEL) == "holds"
    late = apply("layers", rows, "layer", side="above", quantity=SCORE, threshold=24.5, depth=(2 / 3, 1.0))
    assert (late.estimate, late.n) == (0.5, 10)
    between = apply("layers", rows, "layer", side="above", quantity=SCORE, threshold=0.0, depth=(0.501, 0.502))
    assert (between.n, between.reason) == (0, "no measured layer lies where the rule looks")
    with pytest.raises(Missing, match=r"score of layers\.\*\.mlp on a with its null chance"):
        apply("layers", rows, "layer", side="above", quantity=SCORE)
    missing = rows[:1] + by_layer("score", 0.0, ".attention", NUMBERS[:-1], data="a")
    with pytest.raises(Missing, match="in layer 29"):
        apply("layers", missing, "layer", side="above", quantity=SCORE, other=other)
    with pytest.raises(ValueError, match="names no layers"):
        apply("layers", rows, "layer", side="above", quantity=Series("score"))
    with pytest.raises(ValueError, match="the unit is seed"):
        apply("layers", rows, "seed", side="above", quantity=SCORE, other=other)
    with pytest.raises(ValueError, match="use a number"):
        apply("layers", rows, "layer", side="above", quantity=SCORE, other=other, floor="estimator_error")


@pytest.mark.parametrize(
    ("summary", "estimate", "null"),
    [
        ("mean", (0.9 - 0.3 + 0.1) / 3, 0.0),  # of the means of the models' layers
        ("share", (1.0 + 0.0 + 1.0) / 3, 0.5),  # of the shares of their layers
    ],
)
def test_across_models_each_is_one_unit_with_its_mean_or_its_share(summary, estimate, null):
    def rows(level, layers=NUMBERS):
        return by_layer("score", level, ".mlp", layers, data="a")

    # a layer without a number is left out
    others = {"second": rows(-0.3), "third": rows(0.1, NUMBERS[:-1]) + rows(np.nan, NUMBERS[-1:])}
    said = {"side": "above", "quantity": SCORE, "threshold": 0.0, "summary": summary}
    judgement = apply("layers", rows(0.9), "model", others=others, **said)
    assert judgement.estimate == pytest.approx(estimate)
    assert (judgement.n, judgement.null_low, judgement.kind) == (3, null, "mean")


def test_a_mean_over_layers_is_said_to_be_one():
    said = {"side": "above", "quantity": SCORE, "threshold": 0.5, "summary": "mean", "depth": (0.5, 1.0)}
    rule, parameters = rule_of(claim(unit="layer"), Comparison("half", "layers", said))
    words = "mean over layers from 0.5 to 1 of the depth of the difference: score (mlp, a) above 0.5"
    assert rule.describe(claim(unit="layer"), parameters) == f"{words}, taken as independent"


def test_models_are_apart_by_the_shares_of_their_layers():
    def rows(*values):
        return [
            row("score", value, part=f"layers.{layer}.mlp", data="a", low=value - 0.1, high=value + 0.1)
            for layer, value in enumerate(values)
        ]

    # 3 of 4 layers lie outside of ±0.5, 1 of 2 from layer 2 on; of the other model none and none
    model, others = rows(1.0, -1.0, 1.0, 0.55), {"others": {"second": rows(0.0, 0.1, 0.2, 0.3)}}
    for first, estimate in ((0, 3 / 8), (2, 1 / 4)):
        judgement = apply("apart", model, "model", margin=0.5, quantity=SCORE, first=first, **others)
        assert (judgement.estimate, judgement.n, judgement.null_low) == (estimate, 2, 0.5)
    alone = apply("apart", model, "layer", margin=0.5, quantity=SCORE)
    assert (alone.estimate, alone.n, alone.kind) == (0.75, 4, "share")


def test_layers_that_were_not_all_measured_follow_the_measured_one_before():
    rows = by_layer("score", NUMBERS, ".mlp", NUMBERS[::2], data="a")
    judgement = apply("layers", rows, "layer", side="above", quantity=SCORE, previous=True, first=1)
    assert (judgement.estimate, judgement.n) == (1.0, 13)  # 4 against 2 to 28 against 26


def test_layers_within_the_floor_speak_for_neither_side():
    near = judge_most(np.full(20, 0.005), 0.0, 0.0, "above", 0.01)
    assert near.estimate == 0.0 and outcome(near, LEVEL) == "open"
    assert outcome(judge_most(np.full(20, -0.5), 0.0, 0.0, "above", 0.01), LEVEL) == "fails"
    assert outcome(judge_most(np.full(20, 0.5), 0.0, 0.0, "above", 0.01), LEVEL) == "holds"


def test_measured_numbers_have_the_p_values_of_normal_ones():
    found = judge_measured(1.0, 0.02, 1.98, 64, 0.0, 0.0, "above", 0.0)
    assert found.p_for == pytest.approx(0.0455, abs=1e-3)  # two standard errors
    mirrored = judge_measured(-1.0, -1.98, -0.02, 64, 0.0, 0.0, "below", 0.0)
    assert mirrored.p_for == pytest.approx(found.p_for)
    assert judge_measured(1.0, 0.02, 1.98, 64, 0.0, 0.0, "below", 0.0).p_against == pytest.approx(found.p_for)
    assert outcome(judge_measured(0.1, 0.05, 0.15, 64, -0.3, 0.3, "within", 0.0), LEVEL) == "holds"
    assert outcome(judge_measured(0.5, 0.45, 0.55, 64, -0.3, 0.3, "within", 0.0), LEVEL) == "fails"
    exact = judge_measured(0.0, 0.0, 0.0, 64, 0.0, 0.0, "above", 0.0)
    assert exact.p_for == exact.p_against == 1.0
    assert outcome(judge_measured(1.0, np.nan, np.nan, 64, 0.0, 0.0, "above", 0.0), LEVEL) == "open"
    with pytest.raises(ValueError, match="exchange"):
        judge_measured(0.0, 0.0, 0.0, 64, 1.0, 0.0, "above", 0.0)


def test_a_null_without_a_range_is_its_mean():
    rows = [row("score", 1.0, low=0.9, high=1.1, n=64), row("score", 0.5, null="chance")]
    judgement = apply("measured", rows, "prompt", side="above", quantity=Series("score"))
    assert (judgement.null_low, judgement.null_high, judgement.n) == (0.5, 0.5, 64)


def test_language_models_find_their_roles():
    experiments = {
        "reads": settings("attention_subspaces", texts={"documentation": "a"}),
        "reads_nothing": settings("attention_subspaces"),
        "trained": {"study": "attention_subspaces", "task": {"name": "copying"}, "training": {"steps": 10}},
        "prompted": PROMPTS,
    }
    assert players(attention_subspaces.STUDY, "language_model", experiments) == ["reads"]
    assert players(activation_geometry.STUDY, "prompts", experiments) == ["prompted"]
    assert needed_experiments(experiments) == ["reads", "prompted"]


@pytest.mark.parametrize("study", [attention_subspaces.STUDY, activation_geometry.STUDY], ids=lambda study: study.name)
def test_rows_about_models_and_layers_name_series_that_can_be_read(study):
    for each in study.claims:
        assert isinstance(each.floor, float) and each.floor >= 0
        for comparison in each.comparisons:
            reads_layers = comparison.rule in ("layers", "apart", "dictionaries", "dead_ratio")
            series = comparison.parameters.get("quantity", each.quantity)
            assert ("*" in series.part) == reads_layers, (each.name, comparison.null)
            unit = comparison.unit or each.unit
            allowed = {"measured": ("prompt", "model"), "dictionaries": ("seed",), "dead_ratio": ("seed",)}
            assert unit in allowed.get(comparison.rule, ("layer", "model"))
    assert any(each.unit == "model" for each in study.claims)


def test_a_row_may_count_another_unit_than_its_claim():
    rows = [*by_layer("score", NUMBERS, ".mlp", data="a"), row("gain", 1.0, low=0.9, high=1.1, n=64)]
    comparisons = (
        Comparison("zero", "measured", {"side": "above", "threshold": 0.0, "quantity": Series("gain")}),
        Comparison("ten", "layers", {"side": "above", "threshold": 10.0, "quantity": SCORE}, unit="layer"),
    )
    planted = replace(activation_geometry.STUDY, claims=(claim(*comparisons, unit="prompt", role="prompts"),))
    ledger = judge({"model": PROMPTS}, [tidy(rows, "model", 0)], (planted,))
    assert ledger.table[["unit", "n"]].to_numpy().tolist() == [["prompt", 64], ["layer", LAYERS]]


# What counts as one model ------------------------------------------------------------------------------------

(ALIKE,) = ACROSS & {each.name for each in activation_geometry.CLAIMS}
FIVE = [f"model_{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("weights", "changed"),
    [
        ({each: ["1f"] for each in FIVE}, {}),  # one file under five names, or in five folders
        ({}, {"model": {"source": "one", "revision": None, "gguf": None}}),
        ({name: [name] for name in FIVE}, {"set_up": "one training, five seeds"}),
    ],
    ids=["weights", "source", "set_up"],
)
def test_one_model_under_five_names_is_one(weights, changed):
    rows = geometry_verdicts(ALIKE, 5, weights, changed)[1].table
    assert set(rows["verdict"]) == {"inconclusive"} and set(rows["n"]) == {1}
    assert rows["low"].isna().all() and rows["high"].isna().all()
    assert all(rows["scale"].str.startswith("5 names of 1 model; "))


def test_five_models_are_five_whatever_is_said_of_their_weights():
    for weights in (None, {}, {name: [name] for name in FIVE}):
        rows = geometry_verdicts(ALIKE, 5, weights)[1].table
        assert set(rows["verdict"]) == {"supported"} and set(rows["n"]) == {5}
        assert not rows["scale"].str.contains("names of").any()


def test_names_of_one_model_are_averaged_before_models_are():
    # three names of one model, which dips by .4, and one model that dips by .1
    dips = dict(zip(FIVE, (-0.4, -0.4, -0.4, -0.1), strict=False))
    tables = [tidy(geometry_rows(dip=dip, swapped=-dip / 10), name, 0) for name, dip in dips.items()]
    experiments = {name: PROMPTS | {"model": {"source": name}} for name in dips}
    weights = {"model_0": ["1f"], "model_1": ["1f", "2e"], "model_2": ["2e"], "model_3": ["3d"]}
    ledger = judge(experiments, tables, (only(activation_geometry.STUDY, ALIKE),), weights)
    rows = ledger.table.set_index("null")
    for null in ("middle_unchanged-harmfulness", "middle_swapped_pairs-harmfulness"):
        assert rows.loc[null, "n"] == 2
        assert rows.loc[null, "estimate"] == pytest.approx(-0.25)  # not -.325, the mean over names
    assert rows.loc["middle_swapped_pairs-harmfulness", "null_high"] == pytest.approx(0.025)


def test_layers_and_curves_of_one_model_under_several_names_are_one():
    tables = attention_rows()
    (name,) = ACROSS & {each.name for each in attention_subspaces.CLAIMS}
    experiments, renamed = {}, []
    for each in FIVE:
        experiments[each] = settings("attention_subspaces", texts=dict.fromkeys(TEXTS, "a"), model={"source": each})
        renamed += [table.assign(experiment=each) for table in tables]
    for weights, n in (({each: ["1f"] for each in FIVE}, 1), (None, 5)):
        rows = judge(experiments, renamed, (only(attention_subspaces.STUDY, name),), weights).table
        assert set(rows["n"]) == {n} and set(rows["unit"]) == {"model"}


def test_all_seeds_of_one_set_up_are_one_model():
    made = {"task": {"name": "copying"}, "model": {"layers": 2}, "optimizer": {}, "training": {"steps": 10}}
    again = made | {"training": {"steps": 10, "seconds_between_saves": 5}}
    wider = made | {"model": {"layers": 3}}
    found = distinct_models(["a", "b", "c"], {"a": made | {"seeds": [0, 1]}, "b": again | {"seeds": [2]}, "c": wider})
    assert found == {"a": "a", "b": "a", "c": "c"}


def test_models_are_one_through_a_third():
    read = {name: {"model": {"source": name}} for name in "abcd"}
    weights = {"a": ["1"], "b": ["2"], "c": ["1", "2"], "d": []}
    assert distinct_models("abcd", read, weights) == {"a": "a", "b": "a", "c": "a", "d": "d"}
    assert distinct_models("abcd", read) == {name: name for name in "abcd"}
    # revisions are checkpoints of one training, files of one folder may be any
    read = {
        "a": {"model": {"source": "o/m", "revision": "step1", "gguf": None}},
        "b": {"model": {"source": "o/m", "revision": "step2", "gguf": None}},
        "c": {"model": {"source": "models", "gguf": "one.gguf"}},
        "d": {"model": {"source": "models", "gguf": "two.gguf"}},
    }
    assert distinct_models("abcd", read) == {"a": "a", "b": "a", "c": "c", "d": "d"}


def test_hashes_of_weights_are_found_where_tables_were_gathered(tmp_path):
    tables = {"ranks.parquet": {"weights": "1f"}, "loss.parquet": {"weights": "1f"}, "basis.parquet": {"weights": None}}
    write_table(pd.DataFrame({"value": [1.0]}), tmp_path / "runs.parquet", {"tables": tables, "code": "c"})
    assert weights_in(read_provenance(tmp_path / "runs.parquet")) == ["1f"]
    assert weights_in({}) == []


# Names of the config -------------------------------------------------------------------------------------------

DICTIONARIES = {
    "standard_small": {"latents": 576},
    "standard": {"latents": 1152},
    "standard_centred": {"latents": 1152, "centred": True},
    "active_subspace": {"latents": 1152, "subspace": "active"},
    "active_subspace_centred": {"latents": 1152, "subspace": "active", "centred": True},
    "transcoder_standard": {"latents": 1152, "target": "transcoder", "tied": False},
    "transcoder_active_subspace": {"latents": 1152, "target": "transcoder", "subspace": "active", "tied": False},
}


def sweep(dictionaries):
    """The section of the config, defaults filled in."""
    schema = settings_schema("measurements", "dictionary_sweep")
    return {"dictionary_sweep": filled({"dictionaries": dictionaries}, schema)}


def comparable(ledger):
    table = ledger.table.drop(columns=["rule", "experiment"])
    return table.sort_values(["claim", "null"], ignore_index=True)


def test_a_users_texts_and_dictionaries_are_judged_as_ours(attention_as_published):
    _, ours = attention_as_published
    dictionaries = {f"dictionary_{i}": name for i, name in enumerate(DICTIONARIES)}
    texts = ("novel", "law")
    tables = attention_rows(texts=texts, names={role: name for name, role in dictionaries.items()})
    measurements = sweep({name: DICTIONARIES[role] for name, role in dictionaries.items()})
    theirs = settings("attention_subspaces", texts=dict.fromkeys(texts, "a"), measurements=measurements)
    found = judge({"model": theirs}, tables, (attention_subspaces.STUDY,))
    renamed = ours.table.assign(
        null=ours.table["null"].str.replace("documentation", "novel").str.replace("source_code", "law")
    )
    pd.testing.assert_frame_equal(comparable(found), comparable(ours._replace(table=renamed)))
    assert not found.notes["why"].str.contains("not measured").any()
    assert found.table["rule"].str.contains("dictionary").any() and found.table["rule"].str.contains("novel").any()


@pytest.mark.parametrize("texts", [("only",), ("a", "b", "documentation")])
def test_every_text_of_a_user_has_its_rows(texts):
    experiments = {"model": settings("attention_subspaces", texts=dict.fromkeys(texts, "a"))}
    name = "attention_outputs_are_low_dimensional"
    ledger = judge(experiments, attention_rows(texts=texts), (only(attention_subspaces.STUDY, name),))
    kinds = ["mlp_output", "residual_pre", "residual_mid", "isotropic"]
    assert ledger.table["null"].tolist() == [f"{kind}-{text}" for text in texts for kind in kinds]
    assert set(ledger.table["verdict"]) == {"supported"}
    # one text of which it is not so
    low = judge(experiments, attention_rows(texts=texts, mlp=0.3), (only(attention_subspaces.STUDY, name),))
    assert set(low.table["verdict"]) == {"not supported"}


def test_a_users_contrasts_are_judged_as_ours(geometry_as_published):
    _, ours = geometry_as_published
    contrasts = ("tense", "number")
    prompts = {name: ["a", "b"] for name in contrasts}
    experiments = {"model_0": PROMPTS | {"prompts": prompts, "model": {"source": "model_0"}}}
    tables = [tidy(geometry_rows(contrasts=contrasts), "model_0", 0)]
    found = judge(experiments, tables, (activation_geometry.STUDY,))
    renamed = ours.table["null"].str.replace("harmfulness", "tense").str.replace("sentiment", "number")
    pd.testing.assert_frame_equal(comparable(found), comparable(ours._replace(table=ours.table.assign(null=renamed))))


def test_claims_across_models_take_what_all_read():
    (name,) = ACROSS & {each.name for each in attention_subspaces.CLAIMS}
    study = (only(attention_subspaces.STUDY, name),)
    experiments, tables = {}, []
    for each, texts in zip(FIVE, [("a", "b"), ("b", "c"), ("b",), ("d", "b"), ("b", "a")], strict=True):
        experiments[each] = settings("attention_subspaces", texts=dict.fromkeys(texts, "t"), model={"source": each})
        tables += [table.assign(experiment=each) for table in attention_rows(texts=(*texts, "unread"), seeds=0)]
    rows = judge(experiments, tables, study).table
    assert rows["null"].tolist() == ["mlp_output-b", "residual_pre-b", "residual_mid-b", "isotropic-b"]
    assert set(rows["n"]) == {5}
    experiments["model_2"]["texts"] = {"e": "t"}
    ledger = judge(experiments, tables, study)
    assert set(ledger.table["n"]) == {0} and set(ledger.table["verdict"]) == {"inconclusive"}
    assert ledger.notes["why"].str.contains("no text that all have under one name").all()


def dictionaries_judged(dictionaries, name):
    """What the claim's rows read of the dictionaries of a config: quantity and baseline of its first comparison."""
    experiment = {"texts": {"t": "a"}, "measurements": sweep(dictionaries)}
    (chosen,) = only(attention_subspaces.STUDY, name).claims
    found = named(chosen, attention_subspaces.STUDY, [experiment])
    return found.quantity.data, found.comparisons[0].parameters["other"].data


def test_dictionaries_are_told_by_their_settings():
    cuts = "active_subspace_cuts_dead_latents"
    sized = {
        f"{role}_{latents}": DICTIONARIES[role] | {"latents": latents}
        for latents in (64, 128)
        for role in ("standard", "active_subspace")
    }
    assert dictionaries_judged(sized, cuts) == ("active_subspace_128", "standard_128")
    assert dictionaries_judged(sized, "dead_latents_rise_with_dictionary_size") == ("standard_128", "standard_64")
    # of one size, though a larger one is there; and alike in all else
    some = {name: sized[name] for name in ("active_subspace_64", "standard_64", "standard_128")}
    assert dictionaries_judged(some, cuts) == ("active_subspace_64", "standard_64")
    others = {"a": {"latents": 64, "subspace": "active", "optimizer": "sparse_adam"}, "s": {"latents": 64}}
    assert dictionaries_judged(others, cuts) == ("active_subspace", "standard")  # none in the config: not measured
    others["t"] = {"latents": 64, "optimizer": "sparse_adam"}
    assert dictionaries_judged(others, cuts) == ("a", "t")
    assert dictionaries_judged(DICTIONARIES, CENTRED) == ("active_subspace_centred", "standard_centred")
    assert dictionaries_judged(DICTIONARIES, "active_subspace_cuts_dead_latents_of_a_transcoder") == (
        "transcoder_active_subspace",
        "transcoder_standard",
    )
