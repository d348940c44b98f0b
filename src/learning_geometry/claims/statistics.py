"""From one number per unit to evidence: interval, p values for and against, and Holm's correction.

All functions are pure: arrays in, numbers out. The rules of the ledger that hold for every claim are here:
95 % intervals (Student's t below ten units, BCa bootstrap from ten on), at least five units to hold, and a
difference up to the floor is no evidence.

Student's t takes the units to be normal. Symmetric ones, however heavy their tails, keep the error rates
(tests/claims); strongly skewed ones do not: for exponential units a study of six claims without an effect gets
one verdict too many in a quarter of all cases, at five units as at ten, always on the side away from the tail.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from learning_geometry.geometry import rounding
from learning_geometry.geometry.uncertainty import interval, share_interval

LEVEL = 0.05
"""Family-wise error rate of the claims of one study."""

FEWEST_UNITS = 5
"""A comparison of fewer units never holds, whatever its interval says."""

UNOBSERVED = "the event was reached, and its windows lie within training, in no unit"

WIDTH_IN_ERRORS = 2 * float(special.ndtri(0.975))
"""Width of the 95 % interval of a normal estimate, in standard errors: 3.92."""

Side = Literal["above", "below", "within"]
Outcome = Literal["holds", "fails", "open"]


class Judgement(NamedTuple):
    """The evidence of one comparison.

    Attributes:
        estimate: mean over the units; or, if ``kind`` is "share", the share of units.
        low: lower end of its 95 % interval, NaN where none exists.
        high: upper end.
        n: units that the estimate rests on.
        total: units there are; more than n if the event or window was not observed in some (right-censored).
        null_low: lower end of what the estimate is compared with.
        null_high: upper end; the same for a threshold.
        floor: differences up to this are no evidence.
        p_for: twice the one-sided p value of the claimed side, NaN without an interval.
        p_against: the same of the opposite side.
        side: the claimed side of the null.
        kind: "mean" or "share".
        each: false if the claim must hold in every unit and some unit does not show it.
        reason: why there is no evidence, if so.
        missing: which layers a quantity could not be measured in, and why.
        compares_seeds: true if the units are seeds whose numbers compare them, and were taken by the jackknife.
    """

    estimate: float
    low: float
    high: float
    n: int
    total: int
    null_low: float
    null_high: float
    floor: float
    p_for: float
    p_against: float
    side: Side
    kind: Literal["mean", "share"] = "mean"
    each: bool = True
    reason: str = ""
    missing: str = ""
    compares_seeds: bool = False


def nothing(reason: str, total: int = 0, side: Side = "above") -> Judgement:
    """Return the judgement of no unit at all, and why there is none."""
    nan = float("nan")
    return Judgement(nan, nan, nan, 0, total, nan, nan, nan, nan, nan, side, reason=reason)


def tail(values: Float[np.ndarray, " n"], threshold: float) -> float:
    """One-sided p value of Student's t test that the mean is at most ``threshold``; NaN for one value.

    >>> tail(np.array([-1.0, 1.0]), 0.0)
    0.5
    """
    if values.size < 2:
        return float("nan")
    difference = float(rounding.difference(np.mean(values), threshold, values.size))
    if rounding.equal(values):
        return 0.5 if difference == 0 else float(difference < 0)
    scale = np.abs(values).max()  # squares of numbers below 1e-162 are 0
    error = np.std(values / scale, ddof=1) / np.sqrt(values.size)
    with np.errstate(over="ignore"):
        return float(special.stdtr(values.size - 1, -difference / scale / error))


def exceeds(first: rounding.Numbers, second: rounding.Numbers, by: float = 0.0) -> Bool[np.ndarray, "..."]:
    """Whether numbers are above others by more than a floor, and by more than rounding.

    >>> exceeds(np.array([0.1 + 0.2, 0.4]), 0.3), bool(exceeds(0.15, 0.1, 0.05))
    (array([False,  True]), False)
    """
    apart = rounding.difference(first, second)
    # nothing is within rounding of 0 but 0
    return np.asarray((rounding.difference(apart, by) if np.any(by) else apart) > 0)


def mean_of_observed(values: Float[np.ndarray, " n"]) -> float:
    """Return the mean of the numbers that are finite; NaN for none.

    >>> mean_of_observed(np.array([1.0, np.nan, 2.0]))
    1.5
    """
    seen = values[np.isfinite(values)]
    return float(np.mean(seen)) if seen.size else float("nan")


def judge_mean(
    values: Float[np.ndarray, " units"],
    null_low: float,
    null_high: float,
    side: Side,
    floor: float,
    each: bool = False,
) -> Judgement:
    """Compare the mean of one number per unit with a null; units without a number (NaN) were not observed.

    The claimed side is above ``null_high``, below ``null_low``, or within both. If some unit was not observed,
    a mean over the others would be biased, so the share of them on the claimed side, by more than the floor,
    is compared with one half instead (sign test). Against the claim, those count that are on the other side by more
    than the floor.

    Args:
        values: one number per unit, shape (units,); NaN if not observed.
        null_low: lower end of the null's central 95 % range, or the threshold.
        null_high: upper end, or the same threshold.
        side: the claimed side.
        floor: numerical floor of a difference from the null.
        each: whether every single unit must be on the claimed side.

    Raises:
        ValueError: there is no unit, the null's ends are reversed, or the side is unknown.

    >>> seen = judge_mean(np.array([1.0, 1.2, 0.9, 1.1, 0.8]), 0.0, 0.0, "above", 0.0)
    >>> outcome(seen, LEVEL)
    'holds'
    """
    if values.size == 0:
        raise ValueError("values: a comparison of no units was asked for; pass one number per unit, NaN if unobserved")
    _check(null_low, null_high, side)
    seen = values[np.isfinite(values)]
    on_side = _on_side(seen, null_low, null_high, side, floor)
    if seen.size < values.size:
        share = judge_most(values, null_low, null_high, side, floor)
        return share._replace(each=bool(on_side.all()) or not each)
    mean = interval(seen)
    p_for, p_against = _p_of_both_sides(tail(seen, null_low), tail(seen, null_high), side)
    return Judgement(
        mean.estimate,
        mean.low,
        mean.high,
        seen.size,
        values.size,
        float(null_low),
        float(null_high),
        float(floor),
        p_for,
        p_against,
        side,
        each=bool(on_side.all()) or not each,
    )


def _check(null_low: float, null_high: float, side: Side) -> None:
    if null_low > null_high and exceeds(null_low, null_high):
        raise ValueError(f"null: its lower end {null_low} is above its upper end {null_high}; exchange them")
    if side not in ("above", "below", "within"):
        raise ValueError(f'side: {side!r} is unknown; use "above", "below" or "within"')


def _p_of_both_sides(over_low: float, over_high: float, side: Side) -> tuple[float, float]:
    """Return twice the p value of the claimed side of a null, and of the opposite side, NaN without one.

    Args:
        over_low: one-sided p value that the number is at most the null's lower end.
        over_high: the same of its upper end.
        side: the claimed side.
    """
    p_for, p_against = {
        "above": (over_high, 1 - over_high),
        "below": (1 - over_low, over_low),
        "within": (max(over_low, 1 - over_high), min(1 - over_low, over_high)),
    }[side]
    if not np.isfinite([p_for, p_against]).all():
        return p_for, p_against
    return min(1.0, 2 * p_for), min(1.0, 2 * p_against)


def _on_side(
    values: Float[np.ndarray, " n"], null_low: float, null_high: float, side: Side, floor: float
) -> Bool[np.ndarray, " n"]:
    if side == "above":
        return exceeds(values, null_high, floor)
    if side == "below":
        return exceeds(null_low, values, floor)
    return exceeds(values, null_low, floor) & exceeds(null_high, values, floor)


def _contrary(
    values: Float[np.ndarray, " n"], null_low: float, null_high: float, side: Side, floor: float
) -> Bool[np.ndarray, " n"]:
    if side == "above":
        return exceeds(null_high, values, floor)
    if side == "below":
        return exceeds(values, null_low, floor)
    return exceeds(values, null_high, floor) | exceeds(null_low, values, floor)


def judge_share(
    successes: Bool[np.ndarray, " n"], total: int, side: Literal["above", "below"], floor: float = 0.0
) -> Judgement:
    """Compare the share of units that show something with one half: Clopper-Pearson interval, binomial test.

    Args:
        successes: whether each unit that was observed shows it, shape (n,).
        total: how many units there are.
        side: whether more or fewer than half are claimed to show it.
        floor: numerical floor that the successes already respect; for the record.

    >>> five = judge_share(np.ones(5, dtype=bool), 5, "above")  # 2 * 0.5 ** 5 is not below .05
    >>> five.p_for, outcome(five, LEVEL)
    (0.0625, 'open')
    """
    n, k = successes.size, int(successes.sum())
    if n == 0:
        return nothing(UNOBSERVED, total, side)
    # half a second to import, and most studies have no shares
    from scipy.stats import binomtest

    low, high = share_interval(k, n)
    p_many, p_few = (float(binomtest(k, n, alternative=than_half).pvalue) for than_half in ("greater", "less"))
    p_for, p_against = (p_many, p_few) if side == "above" else (p_few, p_many)
    return Judgement(
        k / n, low, high, n, total, 0.5, 0.5, floor, min(1.0, 2 * p_for), min(1.0, 2 * p_against), side, "share"
    )


def judge_most(
    values: Float[np.ndarray, " units"], null_low: float, null_high: float, side: Side, floor: float
) -> Judgement:
    """Compare the share of units that are on the claimed side of a null, by more than the floor, with one half.

    A unit within the floor of the null speaks for neither side: against the claim, those count that are on the other
    side by more than the floor. Units without a number (NaN) were not observed.

    >>> judge_most(np.array([1.0, 2.0, -1.0, 3.0]), 0.0, 0.0, "above", 0.0).estimate
    0.75
    """
    seen = values[np.isfinite(values)]
    on_side = _on_side(seen, null_low, null_high, side, floor)
    contrary = _contrary(seen, null_low, null_high, side, floor)
    return judge_shown(on_side, contrary, values.size, floor)


def judge_shown(
    shown: Bool[np.ndarray, " n"], contrary: Bool[np.ndarray, " n"], total: int, floor: float = 0.0
) -> Judgement:
    """Compare the share of units that show something with one half; those that show the contrary speak against it.

    Args:
        shown: whether each unit that was observed shows it, shape (n,).
        contrary: whether it shows the contrary; it may show neither.
        total: how many units there are.
        floor: numerical floor that both already respect; for the record.
    """
    against = judge_share(~contrary, total, "above", floor)
    return judge_share(shown, total, "above", floor)._replace(p_against=against.p_against)


def judge_measured(
    value: float, low: float, high: float, n: int, null_low: float, null_high: float, side: Side, floor: float
) -> Judgement:
    """Compare one number that comes with its own 95 % interval, over n units such as prompts, with a null.

    The p values take the estimate to be normal: its standard error is the interval's width over 3.92. The interval
    itself may be a bootstrap's, and asymmetric.

    Args:
        value: the number.
        low: lower end of its 95 % interval; NaN if there is none.
        high: upper end.
        n: units that the interval is over.
        null_low: lower end of the null's central 95 % range, or the threshold.
        null_high: upper end, or the same threshold.
        side: the claimed side.
        floor: numerical floor of a difference from the null.

    Raises:
        ValueError: the null's ends are reversed, or the side is unknown.

    >>> seen = judge_measured(1.0, 0.51, 1.49, 64, 0.0, 0.0, "above", 0.0)
    >>> round(seen.p_for, 5), outcome(seen, LEVEL)  # four standard errors of a quarter
    (6e-05, 'holds')
    """
    _check(null_low, null_high, side)
    error = float(rounding.difference(high, low)) / WIDTH_IN_ERRORS

    def over(threshold: float) -> float:
        """One-sided p value that the number is at most a threshold."""
        difference = float(rounding.difference(value, threshold))
        if error == 0:
            return 0.5 if difference == 0 else float(difference < 0)
        return float(special.ndtr(-difference / error))

    p_for, p_against = _p_of_both_sides(over(null_low), over(null_high), side)
    return Judgement(value, low, high, n, n, float(null_low), float(null_high), float(floor), p_for, p_against, side)


def outcome(judgement: Judgement, level: float, rows: int = 1) -> Outcome:
    """Say whether one comparison holds, fails, or leaves the question open.

    - It holds if the 95 % interval lies on the claimed side of the null, ``p_for`` is below ``level``, the
      estimate is beyond the null by more than the floor, there are at least five units, and, where every unit
      must show it, every unit does.
    - It fails if the interval lies on the other side of the null, ``p_against`` times ``rows`` is below
      ``level``, and the estimate is beyond the null by more than the floor.
    - It is open otherwise.

    Args:
        judgement: the evidence.
        level: the level that Holm's correction leaves, at most .05.
        rows: how many comparisons the claim has: one that fails is enough against it (Bonferroni).
    """
    j = judgement
    if not np.isfinite([j.low, j.high, j.null_low, j.null_high, j.floor]).all():
        return "open"
    floor = 0.0 if j.kind == "share" else j.floor  # the successes already respect it
    # against "above" it is enough to lie below the upper end of the null, and vice versa
    if j.side == "above":
        shown, contradicted = _over(j, j.null_high, floor), _under(j, j.null_high, floor)
    elif j.side == "below":
        shown, contradicted = _under(j, j.null_low, floor), _over(j, j.null_low, floor)
    else:
        shown = _under(j, j.null_high, floor) and _over(j, j.null_low, floor)
        contradicted = _over(j, j.null_high, floor) or _under(j, j.null_low, floor)
    if shown and j.p_for < level and j.n >= FEWEST_UNITS and j.each:
        return "holds"
    if contradicted and j.p_against * rows < level:
        return "fails"
    return "open"


def _over(judgement: Judgement, limit: float, floor: float) -> bool:
    """Whether interval and estimate lie above a limit, the estimate by more than a floor."""
    return bool(exceeds(judgement.low, limit) and exceeds(judgement.estimate, limit, floor))


def _under(judgement: Judgement, limit: float, floor: float) -> bool:
    return bool(exceeds(limit, judgement.high) and exceeds(limit, judgement.estimate, floor))


def p_values(judgements: list[Judgement]) -> tuple[float, float]:
    """Return the p values for and against a claim of several comparisons.

    For the claim all must hold: the largest (intersection-union test). Against it one is enough: the smallest,
    times their number (Bonferroni). NaN where no comparison has one.
    """
    for_it = [j.p_for for j in judgements]
    against = [j.p_against for j in judgements if np.isfinite(j.p_against)]
    p_for = max(for_it) if for_it and np.isfinite(for_it).all() else float("nan")
    return p_for, min(1.0, len(judgements) * min(against)) if against else float("nan")


def holm_levels(p: Float[np.ndarray, " m"], level: float = LEVEL) -> Float[np.ndarray, " m"]:
    """Return, for each hypothesis, the level that Holm's step-down procedure compares its p value with.

    Sorted by p, the i-th of m (from 0) is compared with level / (m − i); from the first that is not below its
    level on, none is rejected, and that level is given for all of them. Hypotheses without a p value (NaN)
    were not tested and do not count.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure". Neither scipy nor scikit-learn has it;
    statsmodels has, which nothing else here needs, and gives adjusted p values, not the levels that the ledger tells.

    >>> holm_levels(np.array([0.04, 0.01, np.nan])).round(3)  # .01 < .05 / 2, then .04 < .05 / 1
    array([0.05 , 0.025, 0.05 ])
    """
    levels = np.full(p.shape, level)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    for i, hypothesis in enumerate(order):
        levels[hypothesis] = level / (len(order) - i)
        if p[hypothesis] >= levels[hypothesis]:
            levels[order[i:]] = levels[hypothesis]
            break
    return levels
