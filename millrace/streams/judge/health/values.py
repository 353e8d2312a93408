"""Checks of what was measured: arms that differed before, metrics that do not vary, an effect that every segment contradicts."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Metric, Role
from millrace.schemas.result import Comparison, Finding, MetricResult, Severity
from millrace.streams.judge.estimate import Terms
from millrace.streams.judge.merge import Merged
from millrace.streams.judge.metrics import adjusts, pair_of
from millrace.streams.stats.compare import difference
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.sequence import AlwaysValid, always_valid
from millrace.streams.stats.summary import Summary


def findings(plan: Plan, sums: Merged, results: tuple[MetricResult, ...]) -> Iterator[Finding]:
    """What the sums of the metrics speak of."""
    yield from _before(plan, sums)
    for metric, result in zip(plan.metrics, results, strict=True):
        yield from _no_variance(plan, metric, sums)
        for comparison in result.comparisons:
            if metric.role is Role.PRIMARY:
                yield from _reversed(plan, metric, sums, comparison)


def _before(plan: Plan, sums: Merged) -> Iterator[Finding]:
    """Pre-exposure bias: the covariate, which the treatment cannot have changed, differs between the arms.

    An always-valid test at the strict level of the sample ratio, shared by all comparisons (Bonferroni).
    """
    pairs = [(metric, variant.name) for metric in plan.metrics if adjusts(plan, metric) for variant in plan.variants[1:]]
    for metric, variant in pairs:
        pair = pair_of(plan, metric, sums, variant)
        effect = difference(_covariate(pair.control), _covariate(pair.treatment), Kind.MEAN, Difference.ABSOLUTE)
        test = effect if isinstance(effect, CannotTell) else always_valid(effect, plan.analysis.ratio_alpha, plan.analysis.tuning)
        if isinstance(effect, Effect) and isinstance(test, AlwaysValid) and test.p_value <= plan.analysis.ratio_alpha / len(pairs):
            cause = (
                f"over the {metric.covariate_days} days before their exposure the units of {variant} averaged {effect.treatment_mean:.6g}"
                f" and those of {plan.variants[0].name} {effect.control_mean:.6g}: the arms differed before the experiment"
            )
            numbers = {"difference": effect.effect, "p_value": test.p_value}
            yield Finding(
                check="pre_exposure_bias", severity=Severity.WARNING, cause=cause, variant=variant, metric=metric.name, numbers=numbers
            )


def _covariate(arm: Summary) -> Summary:
    return Summary(n=arm.n, mean=arm.covariate_mean, variance=arm.covariate_variance)


def _no_variance(plan: Plan, metric: Metric, sums: Merged) -> Iterator[Finding]:
    if metric.kind is Kind.QUANTILE:
        return
    for variant in plan.variants[1:]:
        pair = pair_of(plan, metric, sums, variant.name)
        if min(pair.control.n, pair.treatment.n) >= 2 and pair.control.variance == pair.treatment.variance == 0.0:
            cause = f"all units of {plan.variants[0].name} and {variant.name} have one value: do outcomes named {metric.outcome!r} arrive?"
            numbers = {"control_value": pair.control.mean, "treatment_value": pair.treatment.mean}
            yield Finding(
                check="no_variance", severity=Severity.WARNING, cause=cause, variant=variant.name, metric=metric.name, numbers=numbers
            )


def _reversed(plan: Plan, metric: Metric, sums: Merged, comparison: Comparison) -> Iterator[Finding]:
    """Simpson's reversal: the segments of a field contradict the whole, all of those with evidence and most of all."""
    if isinstance(comparison.estimate, CannotTell):
        return
    overall = comparison.estimate.effect
    for field, values in plan.segments.items():
        told = dict(_segments(plan, metric, sums, comparison.variant, [f"{field}={value}" for value in values]))
        certain = [effect for effect, p in told.values() if p <= plan.analysis.alpha / max(1, len(told))]
        against = sum(effect * overall < 0.0 for effect, _ in told.values())
        if len(told) >= 2 and certain and all(effect * overall < 0.0 for effect in certain) and 2 * against > len(told):
            shown = ", ".join(f"{key} {effect:+.4g}" for key, (effect, _) in told.items())
            cause = f"overall {comparison.variant} differs by {overall:+.4g}, but by segment of {field} the other way: {shown}"
            numbers = {"overall": overall} | {key: effect for key, (effect, _) in told.items()}
            yield Finding(
                check="simpson", severity=Severity.WARNING, cause=cause, variant=comparison.variant, metric=metric.name, numbers=numbers
            )


def _segments(plan: Plan, metric: Metric, sums: Merged, variant: str, keys: list[str]) -> Iterator[tuple[str, tuple[float, float]]]:
    """The effect and its always-valid p-value in each segment in which there is one, without the covariate."""
    terms = Terms.of(plan.analysis)
    for key in keys:
        pair = pair_of(plan, metric, sums, variant, key)
        effect = difference(pair.control, pair.treatment, pair.kind, terms.difference)
        test = effect if isinstance(effect, CannotTell) else always_valid(effect, terms.alpha, terms.tuning)
        if isinstance(effect, Effect) and isinstance(test, AlwaysValid):
            yield key, (effect.effect, test.p_value)
