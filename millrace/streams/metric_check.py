"""What a plan's metrics, its allocation and its analysis must be; each refusal names the field and what to do about it."""

from __future__ import annotations

from itertools import pairwise

from millrace.schemas.errors import Never
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import CONTEXTUAL, LEAST_STEP, Allocation, Analysis, Plan, Policy, Rule, Unit
from millrace.schemas.metric import Aggregation, Metric, Role, Source
from millrace.schemas.policy_state import features_of

COVARIATES = frozenset({Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX})
GREEDY = frozenset({Policy.EPSILON_GREEDY, Policy.CONTEXTUAL_EPSILON_GREEDY})
EXPLORING = frozenset({Policy.UCB, Policy.LIN_TS, Policy.SQUARE_CB})
LEFT_OUT = Metric(name="metric", outcome="outcome")
"""A metric of which nothing else is said: what differs from it was written by somebody, who is told where it has no effect."""
REWARDS = frozenset({Kind.MEAN, Kind.PROPORTION})
FEATURES = 16
LOOKS = 50
LONGEST_SECONDS = 10 * 366 * 86_400.0
"""Of a window and of lateness, which are whole microseconds in the sums and in SQL."""


def check_metrics(plan: Plan) -> None:
    """Raise Never naming the metric and its field that means nothing."""
    names = [metric.name for metric in plan.metrics]
    if len(set(names)) != len(names):
        raise Never("`metrics`: two metrics have one name; name each metric once")
    for i, metric in enumerate(plan.metrics):
        for part in (_window, _denominator, _proportion, _covariate, _quantile, _resolution, _cap, _guardrail):
            part(plan, metric, f"metrics[{i}]")
    if plan.metrics and not any(metric.role is Role.PRIMARY for metric in plan.metrics):
        raise Never('`metrics`: none of them is primary, so nothing could be decided: give one of them role = "primary"')


def _window(plan: Plan, metric: Metric, path: str) -> None:
    if not 1e-6 <= metric.window_seconds <= LONGEST_SECONDS:
        raise Never(f"`{path}.window_seconds`: {metric.window_seconds:g} for {metric.name}: state a microsecond to ten years")


def _denominator(plan: Plan, metric: Metric, path: str) -> None:
    if metric.kind is Kind.RATIO and metric.denominator is None:
        raise Never(f"`{path}.denominator`: the ratio {metric.name} has none: name what it divides by, or take kind mean")
    if metric.kind is not Kind.RATIO and metric.denominator is not None:
        raise Never(f"`{path}.denominator`: {metric.name} is a {metric.kind} and divides by nothing: leave it out, or take kind ratio")


def _proportion(plan: Plan, metric: Metric, path: str) -> None:
    """What is counted is whether there was an outcome that is not 0."""
    if metric.kind is not Kind.PROPORTION:
        return
    if metric.aggregation is not Aggregation.SUM:
        raise Never(f"`{path}.aggregation`: a proportion ({metric.name}) has none: leave it out, or take kind mean")
    if metric.cap is not None:
        raise Never(f"`{path}.cap`: a unit's value of a proportion ({metric.name}) is 0 or 1: leave it out, or take kind mean")


def _covariate(plan: Plan, metric: Metric, path: str) -> None:
    if not metric.covariate_days:
        return
    refused = f"`{path}.covariate_days`: {metric.name} cannot have a covariate: "
    if plan.unit is Unit.REQUEST:
        raise Never(f"{refused}a request has no past; leave it out, or randomise units")
    if metric.kind not in REWARDS:
        raise Never(f"{refused}only means and proportions are adjusted, and it is a {metric.kind}; leave it out")
    if metric.kind is Kind.MEAN and metric.aggregation not in COVARIATES:
        raise Never(f"{refused}whole days are put together by sum, count or max, not by {metric.aggregation}; leave it out")


def _quantile(plan: Plan, metric: Metric, path: str) -> None:
    """Quantiles do not merge exactly, so that no stream judges them."""
    if metric.kind is Kind.QUANTILE and metric.role is not Role.SECONDARY:
        raise Never(
            f"`{path}.role`: the quantile {metric.name} is computed in reports alone, from ClickHouse, and can neither decide nor guard:"
            " make it secondary, and decide by a mean"
        )
    if metric.kind is Kind.QUANTILE and metric.aggregation is not Aggregation.SUM:
        raise Never(f"`{path}.aggregation`: the quantile {metric.name} is of single outcomes, not of units: leave it out")
    if metric.kind is Kind.QUANTILE and metric.cap is not None:
        raise Never(f"`{path}.cap`: the quantile {metric.name} is of single outcomes, which are not cut: leave it out")
    if metric.kind is not Kind.QUANTILE and metric.quantile != LEFT_OUT.quantile:
        raise Never(f"`{path}.quantile`: {metric.name} is a {metric.kind}: leave it out, or take kind quantile")


def _resolution(plan: Plan, metric: Metric, path: str) -> None:
    for source, where in _sources(metric, path):
        if source.aggregation is Aggregation.COUNT and source.resolution != LEFT_OUT.resolution:
            raise Never(f"`{where}.resolution`: outcomes are counted in ones ({metric.name}): leave it out, or take another aggregation")


def _cap(plan: Plan, metric: Metric, path: str) -> None:
    for source, where in _sources(metric, path):
        if source.cap is not None and source.cap < source.step:
            raise Never(f"`{where}.cap`: {source.cap:g} is less than one step, {source.step:g}: every value would be 0; raise it")


def _sources(metric: Metric, path: str) -> list[tuple[Source, str]]:
    """What a metric is made of, and where it stands in the plan."""
    return [(metric.value, path)] + ([(metric.denominator, f"{path}.denominator")] if metric.denominator else [])


def _guardrail(plan: Plan, metric: Metric, path: str) -> None:
    if metric.limit and metric.role is not Role.GUARDRAIL:
        raise Never(
            f"`{path}.limit`: {metric.name} is {metric.role}, and only a guardrail has a limit: leave it out, or make it a guardrail"
        )


def check_allocation(plan: Plan) -> None:
    """Raise Never naming what a plan lacks to learn its weights."""
    allocation = plan.allocation
    if allocation is None:
        return
    if plan.unit is not Unit.REQUEST:
        raise Never('`unit`: weights that are learnt change under a unit that keeps its variant: write unit = "request"')
    arms = sum(variant.weight > 0 for variant in plan.variants)
    if arms < 2:
        raise Never("`variants`: there is nothing to learn between fewer than two variants with a weight")
    if allocation.floor * len(plan.variants) >= 1:
        raise Never(
            f"`allocation.floor`: {allocation.floor:g} for each of {len(plan.variants)} variants leaves nothing to learn:"
            f" state less than {1 / len(plan.variants):.4g}"
        )
    _reward(plan, allocation)
    _policy(allocation)


def _reward(plan: Plan, allocation: Allocation) -> None:
    metric = next((metric for metric in plan.metrics if metric.name == allocation.metric), None)
    if metric is None:
        known = ", ".join(metric.name for metric in plan.metrics) or "none"
        raise Never(f"`allocation.metric`: {allocation.metric!r} is no metric of the plan; there are: {known}")
    if metric.kind not in REWARDS:
        raise Never(f"`allocation.metric`: {metric.name} is a {metric.kind}: a reward is a mean or a proportion over requests")


def _policy(allocation: Allocation) -> None:
    policy, features = allocation.policy, features_of(allocation.features)
    if policy in CONTEXTUAL and not 0 < len(features) <= FEATURES:
        raise Never(f"`allocation.features`: {policy} chooses by 1 to {FEATURES} numbers of the context, and {len(features)} are named")
    if policy not in CONTEXTUAL and features:
        raise Never(f"`allocation.features`: {policy} does not look at the context: leave them out, or take a contextual policy")
    for feature in features:
        if not feature.name:
            raise Never("`allocation.features`: a feature is empty: name a field of the context")
        if not feature.has_range:
            raise Never(
                f"`allocation.features[{feature.name!r}]`: [{feature.low:g}, {feature.high:g}] is no range:"
                " write [low, high], finite and low below high"
            )
    if policy is Policy.CUSTOM and not allocation.entry_point:
        raise Never("`allocation.entry_point`: name the installed entry point of the group millrace.policies that computes the weights")
    if policy is not Policy.CUSTOM and allocation.entry_point:
        raise Never(f"`allocation.entry_point`: {policy} calls none: leave it out, or take the policy custom")
    plain = Allocation(policy=policy, metric=allocation.metric)
    if policy not in GREEDY and allocation.epsilon != plain.epsilon:
        raise Never(f"`allocation.epsilon`: {policy} has none: leave it out, or take an epsilon-greedy policy")
    if policy not in EXPLORING and allocation.exploration != plain.exploration:
        raise Never(f"`allocation.exploration`: {policy} does not use it: leave it out, or take {', '.join(sorted(EXPLORING))}")


def check_analysis(plan: Plan) -> None:
    """Raise Never naming what contradicts itself in how a plan is judged."""
    analysis = plan.analysis
    if analysis.lateness_seconds > LONGEST_SECONDS:
        raise Never(f"`analysis.lateness_seconds`: {analysis.lateness_seconds:g}: state ten years at most")
    if analysis.maximal_seconds is not None and analysis.maximal_seconds <= analysis.minimal_seconds:
        raise Never(
            f"`analysis.maximal_seconds`: {analysis.maximal_seconds:g} is not above minimal_seconds, {analysis.minimal_seconds:g}:"
            " nothing could be decided in between"
        )
    if analysis.stop_on_harm and not any(metric.role is Role.GUARDRAIL for metric in plan.metrics):
        raise Never("`analysis.stop_on_harm`: no metric is a guardrail, so no harm could be seen: add one, or leave it out")
    if analysis.rule is not Rule.BAYESIAN and analysis.chance_to_win != Analysis().chance_to_win:
        raise Never(f'`analysis.chance_to_win`: the rule {analysis.rule} does not ask for it: leave it out, or write rule = "bayesian"')
    _looks(analysis)


def _looks(analysis: Analysis) -> None:
    looks, planned = analysis.looks, analysis.rule is Rule.GROUP_SEQUENTIAL
    if looks is None and planned:
        raise Never(f"`analysis.looks`: the rule {analysis.rule} looks when planned: write [analysis.looks] with units = 20000, or so")
    if looks is None:
        return
    if not planned:
        raise Never(f'`analysis.looks`: the rule {analysis.rule} plans no looks: leave them out, or write rule = "group_sequential"')
    if not looks.fractions or looks.fractions[-1] != 1 or len(looks.fractions) > LOOKS:
        raise Never(f"`analysis.looks.fractions`: name 1 to {LOOKS} shares of the units, such as [0.25, 0.5, 0.75, 1]; the last is 1")
    if any(after - before < LEAST_STEP for before, after in pairwise((0.0, *looks.fractions))):
        raise Never(f"`analysis.looks.fractions`: each must be at least {LEAST_STEP} above the one before: leave looks out")
