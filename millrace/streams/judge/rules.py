"""What a plan's rule says of one treatment on one metric: better, worse, not better by what is worth having, or nothing yet."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import Plan, Rule
from millrace.schemas.metric import Direction, Metric
from millrace.schemas.result import Comparison, Estimate, Interval, LookEvidence, MixtureEvidence, Verdict


class Word(Struct, frozen=True, kw_only=True):
    """What one primary metric says of one variant, and the numbers that led there; ``gain`` is the effect in the better direction."""

    metric: str
    verdict: Verdict
    worse: bool
    reason: str
    gain: float
    numbers: dict[str, float]


def word(plan: Plan, metric: Metric, comparison: Comparison) -> Word:
    """What the plan's rule says of one comparison."""
    rule, variant = plan.analysis.rule, comparison.variant
    if rule is Rule.GROUP_SEQUENTIAL:
        return _by_look(metric, comparison)
    estimate = comparison.estimate
    if isinstance(estimate, CannotTell):
        return _untold(metric, variant, estimate.reason)
    match rule:
        case Rule.BAYESIAN:
            return _bayesian(plan, metric, variant, estimate)
        case Rule.MSPRT:
            return _by_mixture(plan, metric, variant, estimate)
        case Rule.FIXED | Rule.ALWAYS_VALID:
            evidence = estimate.always_valid if rule is Rule.ALWAYS_VALID else estimate.fixed
            p = evidence.p_value if evidence.adjusted_p_value is None else evidence.adjusted_p_value
            return _tested(plan, metric, variant, Tested(effect=estimate.effect, p=p, interval=evidence.interval))


def _untold(metric: Metric, variant: str, why: str) -> Word:
    reason = f"{metric.name} cannot be told for {variant}: {why}"
    return Word(metric=metric.name, verdict=Verdict.CONTINUE, worse=False, reason=reason, gain=0.0, numbers={})


class Tested(Struct, frozen=True, kw_only=True):
    """A test as a rule takes it: corrected p-value and interval. ``agrees``: whether the evidence is of the side that the effect is on."""

    effect: float
    p: float
    interval: Interval
    agrees: bool = True
    numbers: dict[str, float] = {}


def _tested(plan: Plan, metric: Metric, variant: str, test: Tested) -> Word:
    """Better or worse where the corrected p-value is at most alpha; not worth having where the whole interval is below that."""
    numbers = {"effect": test.effect, "p_value": test.p, "low": test.interval[0], "high": test.interval[1]}
    numbers |= {"alpha": plan.analysis.alpha, "minimal_effect": metric.minimal_effect} | test.numbers
    shown = f"{metric.name} of {variant} differs by {test.effect:+.4g} (p {test.p:.3g})"
    found = Found(metric.name, shown, numbers)
    return _weighed(metric, test.effect, test.interval, test.p <= plan.analysis.alpha and test.agrees, found)


class Found(Struct, frozen=True):
    """What is said of a test: of which metric, in words, and its numbers."""

    metric: str
    shown: str
    numbers: dict[str, float]


def _weighed(metric: Metric, effect: float, interval: Interval, certain: bool, found: Found) -> Word:
    gain, most = _gain(metric, effect), max(_gain(metric, bound) for bound in interval)
    word = Word(
        metric=found.metric,
        verdict=Verdict.CONTINUE,
        worse=False,
        reason=f"{found.shown}: not certain",
        gain=gain,
        numbers=found.numbers,
    )
    if certain and gain < 0.0:
        return replace(word, verdict=Verdict.REJECT, worse=True, reason=f"{found.shown}: worse")
    if most < metric.minimal_effect:
        return replace(
            word, verdict=Verdict.REJECT, reason=f"{found.shown}: at best {most:.4g}, below the {metric.minimal_effect:g} worth having"
        )
    if certain and gain >= metric.minimal_effect:
        return replace(word, verdict=Verdict.IMPLEMENT, reason=f"{found.shown}: better")
    return word


def _by_mixture(plan: Plan, metric: Metric, variant: str, estimate: Estimate) -> Word:
    """By the largest evidence so far, where the effect is still on the side that it was on then."""
    mixture = estimate.always_valid.mixture
    if not isinstance(mixture, MixtureEvidence):
        return _untold(metric, variant, "there is no mixture" if mixture is None else mixture.reason)
    most = mixture.so_far
    p = most.p_value if most.adjusted_p_value is None else most.adjusted_p_value
    numbers = {"tau": mixture.tau, "log_evalue": mixture.log_evalue, "largest_log_evalue": most.log_evalue}
    agrees = most.effect * estimate.effect > 0.0
    test = Tested(effect=estimate.effect, p=p, interval=mixture.interval, agrees=agrees, numbers=numbers)
    return _tested(plan, metric, variant, test)


def _by_look(metric: Metric, comparison: Comparison) -> Word:
    """By the newest planned look, as of when it was made."""
    seen = comparison.look
    if seen is None:
        reason = f"{metric.name} of {comparison.variant} has not been looked at"
        return Word(metric=metric.name, verdict=Verdict.CONTINUE, worse=False, reason=reason, gain=0.0, numbers={})
    if not isinstance(seen, LookEvidence):
        return _untold(metric, comparison.variant, seen.reason)
    numbers = {"look": float(seen.number), "planned_looks": float(seen.planned), "units": float(seen.units[-1])}
    numbers |= {"effect": seen.effect, "z": seen.z, "boundary": seen.boundary, "nominal_alpha": seen.nominal_alpha}
    numbers |= {"low": seen.interval[0], "high": seen.interval[1], "minimal_effect": metric.minimal_effect}
    shown = (
        f"{metric.name} of {comparison.variant} differs by {seen.effect:+.4g} at look {seen.number} of {seen.planned}"
        f" (z {seen.z:+.3g}, boundary {seen.boundary:.3g})"
    )
    return _weighed(metric, seen.effect, seen.interval, seen.crossed, Found(metric.name, shown, numbers))


def _bayesian(plan: Plan, metric: Metric, variant: str, estimate: Estimate) -> Word:
    """Better above the plan's chance to win, worse below its complement; in between open."""
    belief, wanted = estimate.bayesian, plan.analysis.chance_to_win
    gain = _gain(metric, belief.lift)
    most = max(_gain(metric, bound) for bound in belief.interval)
    numbers = {"lift": belief.lift, "chance_to_win": belief.chance_to_win, "wanted": wanted, "minimal_effect": metric.minimal_effect}
    numbers |= {"risk_control": belief.risk[0], "risk_treatment": belief.risk[1]}
    shown = f"{variant} is better on {metric.name} with a chance of {belief.chance_to_win:.1%}, lift {belief.lift:+.4g}"
    word = Word(metric=metric.name, verdict=Verdict.CONTINUE, worse=False, reason=shown, gain=gain, numbers=numbers)
    if belief.chance_to_win <= 1.0 - wanted:
        return replace(word, verdict=Verdict.REJECT, worse=True)
    if most < metric.minimal_effect:
        return replace(word, verdict=Verdict.REJECT, reason=f"{shown}: below the {metric.minimal_effect:g} worth having")
    if belief.chance_to_win >= wanted and gain >= metric.minimal_effect:
        return replace(word, verdict=Verdict.IMPLEMENT)
    return word


def _gain(metric: Metric, effect: float) -> float:
    """An effect in the direction that is better."""
    return effect if metric.direction is Direction.INCREASE else -effect
