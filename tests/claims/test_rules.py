import numpy as np
import pytest

from learning_geometry.claims.claim import Series, Window
from learning_geometry.claims.curves import Tables, bounds, window_mean
from learning_geometry.claims.evidence import Evidence, Missing
from learning_geometry.claims.statistics import outcome
from learning_geometry.geometry.uncertainty import interval, pseudo_values

from .conftest import AFTER, AT, BEFORE, END, EVENT, STEPS, claim, curve, event, judged_by, tables

NOISE = [-0.02, -0.01, 0.0, 0.01, 0.02]


def apply(rule, rows_of_seeds, null="chance", fields=None, **parameters):
    collected = Tables(tables(*rows_of_seeds))
    evidence = Evidence(claim(**(fields or {})), collected, tuple(collected.runs))
    return judged_by(rule, evidence, null, **parameters)


def test_window_mean_is_the_integral_of_the_broken_line():
    steps, values = np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 0.0])
    assert window_mean(steps, values, 0.0, 20.0) == pytest.approx(0.5)
    assert window_mean(steps, values, 5.0, 15.0) == pytest.approx(0.75)
    assert window_mean(steps, values, 5.0, 5.0) == pytest.approx(0.5)
    assert np.isnan(window_mean(steps, values, 15.0, 21.0))  # nothing is extrapolated
    assert np.isnan(window_mean(steps, values, float("nan"), 21.0))
    assert window_mean(steps[:1], values[:1] + 3, 5.0, 15.0) == 3.0


def test_a_series_has_the_indices_that_it_names_alone():
    collected = Tables(tables([curve("gap", float(index), index=index) for index in range(5)]))
    ((_, found),) = collected.curves(Series("gap", index=(1, 3))).items()
    assert set(found.values) == {3.0}  # of several indices the largest counts
    ((_, found),) = collected.curves(Series("gap", index=2)).items()
    assert set(found.values) == {2.0}


def test_windows_follow_the_event():
    assert bounds(Window(0.5, 2.0), 1000.0, 4000.0) == (500.0, 2000.0)
    assert np.isnan(bounds(Window(0.5, 2.0), float("nan"), 4000.0)[0])
    late = Window(0.9, 1.0, "training", not_before=1.5)
    assert bounds(late, 2000.0, 4000.0) == (3600.0, 4000.0)
    assert np.isnan(bounds(late, 3000.0, 4000.0)[0])
    assert np.isnan(bounds(late, float("nan"), 4000.0)[0])


def test_change_is_paired_within_runs():
    # the level differs by far more between runs than within them
    rows = [[event(2000), curve("score", 100 * i + (1 + noise) * (STEPS > 2000))] for i, noise in enumerate(NOISE)]
    judgement = apply("change", rows, start=BEFORE, stop=AFTER, side="above")
    assert judgement.estimate == pytest.approx(1.0)
    assert 0 < judgement.high - judgement.low < 0.1


def test_change_relative_to_a_null_leaves_what_both_do():
    def rows(fall):
        null = {"null": "chance", "low": 0.0, "high": 1.0, "n": 10}
        return [
            [
                event(2000),
                curve("score", 5 - (1 + noise) * (STEPS > 2000)),
                curve("other", -fall * (STEPS > 2000), **null),
            ]
            for noise in NOISE
        ]

    windows = {"start": BEFORE, "stop": AFTER, "side": "below", "baseline": "chance", "reference": Series("other")}
    assert apply("change", rows(0.0), **windows).estimate == pytest.approx(-1.0)
    assert apply("change", rows(1.0), **windows).estimate == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(Missing, match="other of model with its null elsewhere"):
        apply("change", rows(1.0), **windows | {"baseline": "elsewhere"})


def test_change_where_some_never_cross():
    rows = [[event(2000 if i < 3 else None), curve("score", 1.0 * (STEPS > 2000))] for i in range(5)]
    judgement = apply("change", rows, start=BEFORE, stop=AFTER, side="above")
    assert (judgement.kind, judgement.n, judgement.total) == ("share", 3, 5)


def test_excess_over_trend_forgives_a_steady_rise():
    steady = [[event(2000), curve("score", STEPS * (1 + noise) / 1000)] for noise in NOISE]
    windows = {"early": Window(0.2, 0.4), "start": BEFORE, "stop": AFTER, "side": "above"}
    assert apply("excess_over_trend", steady, **windows).estimate == pytest.approx(0.0, abs=1e-9)
    sudden = [[event(2000), curve("score", STEPS / 1000 + (STEPS > 2000))] for _ in NOISE]
    assert apply("excess_over_trend", sudden, **windows).estimate == pytest.approx(1.0)


def moments(part, *values, error=0.001):
    return [
        {"step": 4000, "quantity": "score", "part": part, "index": index, "value": value}
        | {"low": value - error, "high": value + error, "censored": bool(np.isnan(value))}
        for index, value in zip((60, 125), values, strict=True)
    ]


def test_growth_is_a_ratio_within_runs():
    # levels differ by far more between runs and parts than they grow
    rows = [
        [event(2000), *moments("model", 10.0**i, 2 * 10.0**i * (1 + noise)), *moments("rest", 7.0, 14.0 * (1 - noise))]
        for i, noise in enumerate(NOISE)
    ]
    at = {"start": 60, "stop": 125, "side": "above"}
    alone = apply("growth", rows, **at)
    assert alone.estimate == pytest.approx(np.log(2), abs=1e-3) and alone.low > 0.6
    assert alone.floor == 0.01  # the claim's own
    estimated = {"fields": {"floor": "estimator_error"}}
    against = apply("growth", rows, against=Series("score", part="rest"), **at, **estimated)
    assert against.estimate == pytest.approx(0.0, abs=1e-3)
    smallest = 2 * (1 - 0.02)  # run 0 has the largest relative errors
    assert against.floor == pytest.approx(0.001 * (1 + 1 / smallest + 1 / 7 + 1 / (14 * 1.02)), rel=1e-6)
    with pytest.raises(ValueError, match="floor"):
        apply("growth", rows, **at, fields={"floor": "evaluation_noise"})


def test_growth_where_a_moment_was_not_reached_or_is_not_positive():
    rows = [[event(2000), *moments("model", 1.0, value)] for value in (2.0, 3.0, float("nan"), 2.5, -1.0)]
    judgement = apply("growth", rows, start=60, stop=125, side="above")
    assert (judgement.kind, judgement.n, judgement.total) == ("share", 3, 5)
    nothing = apply("growth", rows[2:3], start=60, stop=125, side="above")
    assert nothing.n == 0 and nothing.reason


def test_level_against_the_range_of_a_null():
    rows = [
        [event(2000), curve("score", 0.5 + noise), curve("score", 0.1, null="chance", low=0.0, high=0.2 + noise)]
        for noise in NOISE
    ]
    judgement = apply("level", rows, window=END, side="above")
    assert judgement.estimate == pytest.approx(0.5)
    assert (judgement.null_low, judgement.null_high) == pytest.approx((0.0, 0.2))


def test_level_against_a_null_that_has_another_name_in_the_tables():
    rows = [[event(2000), curve("score", 0.5), curve("score", 0.1, null="chance", low=0.0, high=0.2)] for _ in NOISE]
    judgement = apply("level", rows, null="chance_of_the_score", baseline="chance", window=END, side="above")
    assert (judgement.null_low, judgement.null_high) == pytest.approx((0.0, 0.2))


def test_level_paired_with_the_null_of_another_series():
    rows = [
        [
            event(2000),
            curve("score", 0.9 + noise + 0.005 * i, data="in_distribution"),
            curve("error", 0.9 + noise, data="in_distribution", null="constant_prediction", low=0.0, high=1.0),
        ]
        for i, noise in enumerate(NOISE)
    ]
    judgement = apply(
        "level",
        rows,
        null="constant_prediction",
        quantity=Series("score", data="in_distribution"),
        reference=Series("error", data="in_distribution"),
        window=BEFORE,
        side="within",
        paired=True,
        margin=0.02,
    )
    assert judgement.estimate == pytest.approx(0.01)
    assert (judgement.null_low, judgement.null_high) == (-0.02, 0.02)


def test_the_floor_of_a_paired_difference_is_the_error_of_both():
    rows = [curve("score", 0.5, low=0.4, high=0.6), curve("score", 0.1, null="chance", low=-0.2, high=0.4)]
    fields = {"floor": "estimator_error"}
    judgement = apply("level", [rows] * 5, fields=fields, window=END, side="above", paired=True)
    assert judgement.floor == pytest.approx(0.1 + 0.3)
    exact = [rows[0], curve("score", 0.1, null="chance")]
    assert apply("level", [exact] * 5, fields=fields, window=END, side="above", paired=True).floor == pytest.approx(0.1)


def test_a_range_of_indices_relative_to_its_null():
    def rows(second):
        gaps = [curve("gap", value, index=i) for i, value in ((1, 9.0), (20, 1.1), (30, second))]
        limits = [curve("gap", 1.0, index=i, null="gaussian", low=1.0, high=2.0) for i in (1, 20, 30)]
        return [event(2000), *gaps, *limits]

    quantity = Series("gap", index=(20, 50), relative_to="gaussian")
    seeds = [rows(3.0 + noise) for noise in NOISE]
    judgement = apply("level", seeds, quantity=quantity, window=END, side="above", threshold=1.0)
    assert judgement.estimate == pytest.approx(1.5)


def test_a_censored_index_of_a_range_leaves_the_others():
    rows = [curve("gap", 3.0, index=20), curve("gap", 9.0, index=30, censored=True)]
    judgement = apply(
        "level", [rows] * 5, quantity=Series("gap", index=(20, 50)), window=END, side="above", threshold=0.0
    )
    assert (judgement.n, judgement.estimate) == (5, 3.0)


def test_the_error_of_a_censored_run_is_no_floor():
    rows = [[curve("score", 1.0, low=1.0 - error, high=1.0 + error, censored=error > 0.1)] for error in (0.1, 0.1, 5.0)]
    judgement = apply("level", rows, fields={"floor": "estimator_error"}, window=END, side="above", threshold=0.0)
    assert (judgement.n, judgement.total, judgement.floor) == (2, 3, pytest.approx(0.1))


def test_crossing_against_the_event():
    rows = [[event(2000), curve("score", 1.0 / (1 + np.exp(-(STEPS - 2100 - 10 * i) / 50)))] for i in range(5)]
    judgement = apply("crossing", rows, margin=0.25)
    assert judgement.estimate == pytest.approx(2200 / 2000 - 1, abs=0.03)
    assert judgement.floor == pytest.approx(100 / 2000)
    never = [[event(2000), curve("score", -STEPS / 1000)] for _ in range(5)]
    assert apply("crossing", never, margin=0.25).n == 0
    assert apply("crossing", [[event(None), curve("score", STEPS / 1000)]] * 5, margin=0.25).n == 0


@pytest.mark.parametrize("second,expected", [(2600, 2600 - 4000), (None, None)])
def test_duration(second, expected):
    rows = [
        [
            event(2000, "first_step_below_0.9"),
            event(second, "first_step_below_0.2"),
            curve("running_error", 0.5, data="out_of_distribution"),
        ]
    ] * 5
    series = [Series(f"first_step_below_{t}", data="out_of_distribution") for t in (0.9, 0.2)]
    grid = Series("running_error", data="out_of_distribution")
    judgement = apply("duration", rows, first=series[0], second=series[1], grid=grid)
    if expected is None:
        assert (judgement.n, judgement.total) == (0, 5) and np.isnan(judgement.estimate)
    else:
        assert judgement.estimate == expected
        assert judgement.floor == 200


def test_crossed_counts():
    rows = [[event(2000 if i == 0 else None)] for i in range(6)]
    series = Series("first_step_below_0.5", data="out_of_distribution")
    judgement = apply("crossed", rows, event=series, side="below")
    assert (judgement.estimate, judgement.n) == (pytest.approx(1 / 6), 6)


def test_a_share_within_one_half_is_refused(unchecked):
    with pytest.raises(ValueError, match='claim: a share is "above" or "below" one half'):
        apply("crossed", [[event(2000)]] * 6, event=EVENT, side="within")


def test_floors():
    rows = [[event(2000), curve("score", 0.2, low=0.15, high=0.25, n=100)]] * 5
    windows = {"start": BEFORE, "stop": AT, "side": "above"}
    noise = apply("change", rows, fields={"floor": "evaluation_noise"}, **windows)
    assert noise.floor == pytest.approx(2 * np.sqrt(0.2 * 0.8 / 100))
    error = apply("change", rows, fields={"floor": "estimator_error"}, **windows)
    assert error.floor == pytest.approx(2 * 0.05)
    unknown = [[event(2000), curve("score", 0.2)]] * 5
    assert np.isnan(apply("change", unknown, fields={"floor": "estimator_error"}, **windows).floor)
    with pytest.raises(
        ValueError, match="claim: the floor 'guess' is unknown here; use a number, \"evaluation_noise\""
    ):
        apply("change", unknown, fields={"floor": "guess"}, **windows)


def test_windows_relative_to_an_event_need_one():
    with pytest.raises(ValueError, match="claim: its windows are relative to an event; give the claim one"):
        apply("level", [[curve("score", 1.0)]] * 5, fields={"event": None}, window=BEFORE, side="above", threshold=0.0)


def test_what_is_not_measured_is_named():
    with pytest.raises(Missing, match="score of model with its null chance"):
        apply("level", [[event(2000), curve("score", 1.0)]] * 5, window=END, side="above")
    with pytest.raises(Missing, match="first_step"):
        apply("change", [[curve("score", 1.0)]] * 5, start=BEFORE, stop=AFTER, side="above")


def test_models_are_the_mean_of_their_seeds():
    collected = Tables(
        table
        for name in ("a", "b")
        for table in tables(*[[curve("score", i + (name == "b"))] for i in range(3)], experiment=name)
    )
    evidence = Evidence(claim(unit="model"), collected, tuple(collected.runs))
    judgement = judged_by("level", evidence, "zero", window=END, side="above", threshold=0.0)
    assert (judgement.n, judgement.estimate) == (2, 1.5)


def test_contrast_is_paired_within_runs():
    # both series differ by far more between runs than from one another
    rows = [[curve("score", 100 * i + noise), curve("other", 100 * i + 1.0)] for i, noise in enumerate(NOISE)]
    judgement = apply("contrast", rows, window=END, other=Series("other"), side="below")
    assert judgement.estimate == pytest.approx(-1.0) and judgement.high < -0.9
    assert judgement.floor == 0.01
    wide = [[curve("score", 1.0, low=0.8, high=1.2), curve("other", 0.0, low=-0.1, high=0.1)] for _ in NOISE]
    fields = {"floor": "estimator_error"}
    assert apply("contrast", wide, fields=fields, window=END, other=Series("other"), side="above").floor == (
        pytest.approx(0.3)
    )


def compare_with(ours, theirs, rule="difference", role="others", floor=0.01, **parameters):
    """Apply a rule to runs of two experiments; ``theirs`` None if nothing plays the reference role."""
    stated = claim(reference=role, floor=floor)
    collected = Tables(tables(*ours))
    compared = None
    if theirs is not None:
        merged = Tables([table for rows, name in theirs for table in tables(*rows, experiment=name)])
        compared = Evidence(stated, merged, tuple(merged.runs))
    evidence = Evidence(stated, collected, tuple(collected.runs), compared)
    return judged_by(rule, evidence, "others", **parameters)


def test_difference_takes_the_mean_of_the_same_seed_in_the_reference_experiments():
    ours = [[curve("score", 10.0 * i + 3)] for i in range(5)]
    one = [[curve("score", 10.0 * i + 1)] for i in range(5)]
    other = [[curve("score", 10.0 * i + 2)] for i in range(5)]
    judgement = compare_with(ours, [(one, "one"), (other, "other")], window=END, side="above")
    assert (judgement.estimate, judgement.low, judgement.high, judgement.n) == (1.5, 1.5, 1.5, 5)
    assert compare_with(ours, [(one, "one")], window=END, side="within", margin=3.0).null_high == 3.0
    fewer = compare_with(ours, [(one[:3], "one")], window=END, side="above")
    assert (fewer.kind, fewer.n, fewer.total) == ("share", 3, 5)


def test_the_floor_of_a_difference_between_experiments_is_the_error_of_both():
    ours = [[curve("score", 0.5, low=0.4, high=0.6, n=100)]] * 5
    theirs = [[curve("score", 0.2, low=0.17, high=0.23, n=400)]] * 5
    for floor, expected in ((0.01, 0.01), ("estimator_error", 0.1 + 0.03), ("evaluation_noise", 0.05 + 0.02)):
        judgement = compare_with(ours, [(theirs, "one")], floor=floor, window=END, side="above")
        assert judgement.floor == pytest.approx(expected)


def test_a_missing_reference_is_said():
    ours = [[curve("score", 1.0)] for _ in range(5)]
    with pytest.raises(Missing, match="no experiment of the config plays the role others"):
        compare_with(ours, None, window=END, side="above")
    with pytest.raises(ValueError, match="give the claim a reference"):
        compare_with(ours, None, role="", window=END, side="above")


def test_crossings_of_the_reference_are_counted_there():
    ours = [[event(1000), curve("score", 1.0)] for _ in range(5)]
    theirs = [[event(1000 if seed == 0 else None), curve("score", 1.0)] for seed in range(4)]
    seen = compare_with(ours, [(theirs, "one")], "crossed", event=claim().event, side="below", reference=True)
    assert (seen.estimate, seen.n, seen.kind) == (0.25, 4, "share")
    assert compare_with(ours, None, "crossed", event=claim().event, side="below").estimate == 1.0


@pytest.mark.parametrize(
    ("side", "limit", "value", "holds"),
    [
        ("below", "high", 0.0, True),  # inside the range: not above it
        ("below", None, 0.0, False),
        ("below", "high", 0.5, False),
        ("above", "low", 0.0, True),
        ("above", "low", -0.5, False),
    ],
)
def test_one_end_of_a_null_says_not_above_or_not_below(side, limit, value, holds):
    rows = [
        [curve("score", value + noise), curve("score", 0.0, null="chance", low=-0.2, high=0.2, n=100)]
        for noise in NOISE
    ]
    judgement = apply("level", rows, window=END, side=side, limit=limit)
    assert (outcome(judgement, 0.05) == "holds") == holds


def compares(said, scale=1.0, seeds=5):
    """Seeds i and j are at a_i + a_j, .3 above 1 in the mean; the marker of the rows and their spread are given."""
    a = 0.65 + 0.1 * scale * np.random.default_rng(3).standard_normal(seeds)
    other = (a.sum() - a) / (seeds - 1) if said == "all" else np.roll(a, -1)
    rows = [{"step": STEPS, "quantity": "score", "value": np.full(len(STEPS), value)} for value in a + other]
    return [[event(2000), row | {"other_seeds": said}] for row in rows], a


@pytest.mark.parametrize("said", ["none", "next", "all"])
def test_means_of_compared_seeds_follow_their_rows(said):
    """By the rows alone: no claim has to say it, and a difference from what is of one seed each takes both right."""
    rows, a = compares(said)
    values = np.array([each[1]["value"][0] for each in rows])
    judgement = apply("level", rows, window=END, side="above", threshold=1.0)
    expected = interval(pseudo_values(values, said))
    np.testing.assert_allclose(judgement[:3], expected[:3], rtol=1e-9)
    if said == "all":
        np.testing.assert_allclose(judgement[:3], interval(2 * a)[:3], rtol=1e-9)
    null = [curve("score", value / 3, null="chance", low=0.0, high=1.0, other_seeds="none") for value in a]
    both = [[*each, of_null] for each, of_null in zip(rows, null, strict=True)]
    paired = apply("level", both, window=END, side="above", paired=True)
    np.testing.assert_allclose(paired[:3], interval(pseudo_values(values, said) - a / 3)[:3], rtol=1e-9)


def test_rules_that_do_not_allow_for_compared_seeds_refuse_them():
    rows, _ = compares("all")
    with pytest.raises(ValueError, match="claim: score compares each seed with all of the others, which this rule"):
        apply("growth", rows, start=0, stop=0, side="above")
    with pytest.raises(ValueError, match="rows differ in other_seeds"):
        apply("level", [*rows[:4], *compares("next")[0][4:]], window=END, side="above", threshold=1.0)
