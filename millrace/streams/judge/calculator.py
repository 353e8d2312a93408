"""The judge as a calculator: two arms' sums as a person writes them down, in; every method's say on the difference, out.

The same functions as the judge's. What cannot be told stands as such in place of each number, never as a number.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import NormalPrior
from millrace.schemas.result import Estimate, Interval
from millrace.streams.judge.estimate import Pair, Terms, estimate, prior_of
from millrace.streams.stats.effect import Difference
from millrace.streams.stats.effect_size import cohens_d
from millrace.streams.stats.sample_ratio import pearson
from millrace.streams.stats.summary import Summary, Totals, of_totals

Count = Annotated[int, Meta(ge=0)]
Squares = Annotated[float, Meta(ge=0)]


class Sums(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the arms of every kind have."""

    n: Count


class MeanSums(Sums, frozen=True):
    """Units, the sum of their values and of the values' squares. Where both arms have a covariate's sums, it is taken out (CUPED)."""

    total: float
    squares: Squares
    covariate_total: float | UnsetType = UNSET
    covariate_squares: Squares | UnsetType = UNSET
    covariate_cross: float | UnsetType = UNSET


class ProportionSums(Sums, frozen=True):
    """Units, and how many of them did it."""

    total: Squares
    squares: Squares | UnsetType = UNSET
    """The same number again, where it is given: the square of 1 is 1."""


class RatioSums(Sums, frozen=True):
    """Units, and the sums of numerator y, denominator z, their squares, and y z."""

    numerator_total: float
    numerator_squares: Squares
    denominator_total: float
    denominator_squares: Squares
    cross: float


class Question(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """How to compare, and the counts of units of all arms, where their ratio is to be tested."""

    difference: Difference
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    tuning: Annotated[float, Meta(gt=0)] = 5_000.0
    prior: NormalPrior | None = None
    counts: tuple[Count, ...] | None = None
    weights: tuple[Annotated[float, Meta(ge=0)], ...] | None = None


class MeanQuestion(Question, frozen=True, tag="mean"):
    """A mean."""

    control: MeanSums
    treatment: MeanSums


class ProportionQuestion(Question, frozen=True, tag="proportion"):
    """A proportion."""

    control: ProportionSums
    treatment: ProportionSums


class RatioQuestion(Question, frozen=True, tag="ratio"):
    """A ratio of two sums."""

    control: RatioSums
    treatment: RatioSums


AnyQuestion = MeanQuestion | ProportionQuestion | RatioQuestion
COVARIATE = ("covariate_total", "covariate_squares", "covariate_cross")


class Sequence(Struct, frozen=True):
    """What holds at every look."""

    interval: Interval
    p_value: float


class Belief(Struct, frozen=True, kw_only=True):
    """The posterior. ``risk`` is the expected loss of choosing the control, and of choosing the treatment."""

    lift: float
    std: float
    interval: Interval
    chance_to_win: float
    risk: Interval


class Ratio(Struct, frozen=True):
    """Pearson's test of the arms' counts."""

    p_value: float


class Answer(Struct, frozen=True, kw_only=True):
    """All that the sums say. Where there is no estimate, ``type`` is ``cannot_tell`` and the reason stands in place of each number."""

    type: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    effect: float | CannotTell
    std_error: float | CannotTell
    interval: Interval | CannotTell
    p_value: float | CannotTell
    always_valid: Sequence | CannotTell
    bayesian: Belief | CannotTell
    cohens_d: float | CannotTell
    sample_ratio: Ratio | CannotTell | None = None


def evaluate(question: AnyQuestion) -> Answer:
    """Answer a question. Raises UsageError naming the field of sums that no units can have."""
    pair = _pair(question)
    terms = Terms(difference=question.difference, alpha=question.alpha, tuning=question.tuning, prior=prior_of(question.prior))
    told, ratio = estimate(pair, terms), _ratio(question)
    if isinstance(told, Estimate):
        return _answer(told, ratio)
    size = cohens_d(pair.control, pair.treatment, pair.kind, question.alpha)
    return Answer(
        type="cannot_tell",
        reason=told.reason,
        effect=told,
        std_error=told,
        interval=told,
        p_value=told,
        always_valid=told,
        bayesian=told,
        cohens_d=size if isinstance(size, CannotTell) else size.d,
        sample_ratio=ratio,
    )


def _answer(told: Estimate, ratio: Ratio | CannotTell | None) -> Answer:
    belief = told.bayesian
    return Answer(
        effect=told.effect,
        std_error=told.std_error,
        interval=told.fixed.interval,
        p_value=told.fixed.p_value,
        always_valid=Sequence(told.always_valid.interval, told.always_valid.p_value),
        bayesian=Belief(lift=belief.lift, std=belief.std, interval=belief.interval, chance_to_win=belief.chance_to_win, risk=belief.risk),
        cohens_d=told.cohens_d,
        sample_ratio=ratio,
    )


def _pair(question: AnyQuestion) -> Pair:
    adjust = _adjusts(question)
    match question:
        case MeanQuestion():
            control, treatment, kind = _mean("control", question.control), _mean("treatment", question.treatment), Kind.MEAN
        case ProportionQuestion():
            control, treatment = _proportion("control", question.control), _proportion("treatment", question.treatment)
            kind = Kind.PROPORTION
        case RatioQuestion():
            control, treatment, kind = _quotient("control", question.control), _quotient("treatment", question.treatment), Kind.RATIO
    return Pair(control=control, treatment=treatment, kind=kind, adjust=adjust)


def _adjusts(question: AnyQuestion) -> bool:
    """Whether the arms have a covariate: both, with all of its sums, or neither."""
    if not isinstance(question, MeanQuestion):
        return False
    given = [(arm, name) for arm in ("control", "treatment") for name in COVARIATE if getattr(getattr(question, arm), name) is not UNSET]
    if given and len(given) < 2 * len(COVARIATE):
        absent = next(f"$.{arm}.{name}" for arm in ("control", "treatment") for name in COVARIATE if (arm, name) not in given)
        raise UsageError(f"a covariate needs {', '.join(COVARIATE)} in both arms; there is no `{absent}`")
    return bool(given)


def _mean(name: str, arm: MeanSums) -> Summary:
    totals = Totals(
        n=arm.n,
        total=arm.total,
        squares=arm.squares,
        covariate_total=_given(arm.covariate_total),
        covariate_squares=_given(arm.covariate_squares),
        covariate_cross=_given(arm.covariate_cross),
    )
    return _checked(name, totals, ("squares", "covariate_squares"))


def _proportion(name: str, arm: ProportionSums) -> Summary:
    if arm.total > arm.n:
        raise UsageError(f"{arm.total:g} of {arm.n} units cannot have done it: at most all - at `$.{name}.total`")
    if arm.squares is not UNSET and arm.squares != arm.total:
        raise UsageError(f"of a proportion the sum of squares is the total, {arm.total:g}: leave it out - at `$.{name}.squares`")
    return of_totals(Totals(n=arm.n, total=arm.total, squares=arm.total))


def _quotient(name: str, arm: RatioSums) -> Summary:
    totals = Totals(
        n=arm.n,
        total=arm.numerator_total,
        squares=arm.numerator_squares,
        denominator_total=arm.denominator_total,
        denominator_squares=arm.denominator_squares,
        cross=arm.cross,
    )
    return _checked(name, totals, ("numerator_squares", "denominator_squares"))


def _checked(name: str, totals: Totals, fields: tuple[str, str]) -> Summary:
    """The summary. Raises UsageError for a sum of squares that is smaller than its total allows."""
    summary = of_totals(totals)
    others = (summary.covariate_variance, summary.denominator_variance)
    for field, variance in zip(fields, (summary.variance, min(others)), strict=True):
        if variance < 0.0 and not _rounding(totals, variance):
            raise UsageError(f"no {totals.n} units with this total have so small a sum of squares - at `$.{name}.{field}`")
    return summary


def _rounding(totals: Totals, variance: float) -> bool:
    """Whether a variance is below 0 by the rounding of sums that were written as decimals alone."""
    scale = max(totals.squares, totals.denominator_squares, totals.covariate_squares)
    return -variance * max(1, totals.n - 1) <= 1e-12 * scale


def _given(value: float | UnsetType) -> float:
    return 0.0 if isinstance(value, UnsetType) else value


def _ratio(question: AnyQuestion) -> Ratio | CannotTell | None:
    if question.counts is None:
        if question.weights is not None:
            raise UsageError("weights say which counts are expected: give the counts with them - at `$.counts`")
        return None
    weights = question.weights if question.weights is not None else (1.0,) * len(question.counts)
    if len(weights) != len(question.counts):
        raise UsageError(f"{len(weights)} weights for {len(question.counts)} counts: give each arm one of both - at `$.weights`")
    if not any(weights):
        raise UsageError("one of the weights must be above 0 - at `$.weights`")
    test = pearson(question.counts, weights)
    return test if isinstance(test, CannotTell) else Ratio(test.p_value)
