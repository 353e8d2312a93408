"""What the experiment came to: the judge's newest result once it covers all that was published, and whether ClickHouse says the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable
from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Role
from millrace.schemas.result import Comparison, Harm, MetricResult, Result
from millrace.streams.stats.sample_ratio import SampleRatio, pearson
from millrace.workers.demo.result import Arm, Conclusion, Effect
from millrace.workers.demo.traffic import CORRECT
from millrace.workers.experiments_verify import Verified, verify_experiment
from millrace.workers.results import look_up

COVERED_SECONDS = 30.0
POLL_SECONDS = 0.25
ROUNDED = 1e-4
"""Accuracies are told to four places."""
FAULTS = ("multiple", "underived", "late", "duplicates")
"""What the experimenter counts of each arm, and none of which the demo has published."""


class Published(Struct, frozen=True):
    """What the experiment must have counted: units, and outcomes of its metrics."""

    units: int
    outcomes: int


class Concluded(Struct, frozen=True):
    """What was found, and what is wrong with it. ``result`` is what a report is made of; None where the judge has not said enough."""

    conclusion: Conclusion | None
    result: Result | None
    problems: tuple[str, ...]


def conclude(settings: Settings, plan: Plan, published: Published, arms: Mapping[str, Arm]) -> Concluded:
    """Wait for the result that covers it all, and compare it with ClickHouse: its moments, and the arms' accuracy as the views tell it."""
    result = _covering(settings, plan.name, published)
    if result is None:
        return Concluded(None, None, (f"the experiment {plan.name} has no result after {COVERED_SECONDS:g} s",))
    try:
        verified = verify_experiment(settings, plan.name)
    except Unavailable as error:
        return Concluded(None, result, (f"the experiment {plan.name} could not be verified: {error}",))
    return Concluded(told(result, verified), result, tuple(faults(result, verified, published, arms)))


def told(result: Result, verified: Verified) -> Conclusion:
    """The result of two arms, for telling."""
    effects = tuple(_effect(metric) for metric in result.metrics)
    arms = {name: arm.units for name, arm in result.arms.items()}
    ratio = pearson(list(arms.values()), [1.0] * len(arms))
    decision, primary = result.decision, next(effect for effect in effects if effect.role == Role.PRIMARY)
    return Conclusion(
        name=result.experiment,
        decision=decision.verdict,
        variant=decision.variant,
        rule=decision.rule,
        reason=decision.reason,
        effect=primary.effect,
        interval=primary.interval,
        chance_to_win=primary.chance_to_win,
        units=result.units,
        arms=arms,
        sample_ratio_p=ratio.p_value if isinstance(ratio, SampleRatio) else None,
        metrics=effects,
        health=tuple(f"{finding.severity}: {finding.check}: {finding.cause}" for finding in result.health),
        compared=verified.compared,
        unequal=len(verified.unequal),
        equal=verified.equal,
    )


def faults(result: Result, verified: Verified, published: Published, arms: Mapping[str, Arm]) -> Iterator[str]:
    """What is wrong with the result: what it has not counted, or counted twice, or otherwise than ClickHouse."""
    counted = covered(result)
    if counted != published:
        yield (
            f"the experiment's result counts {counted.units} units and {counted.outcomes} outcomes,"
            f" not {published.units} and {published.outcomes}"
        )
    for name, arm in result.arms.items():
        yield from (f"{found} {what} in {name}, but there were none" for what in FAULTS if (found := getattr(arm, what)))
    if {number: dict(ends) for number, ends in verified.offsets.items()} != {int(n): dict(ends) for n, ends in result.offsets.items()}:
        yield "the moments that were compared are of other offsets than the result"
    for one in verified.unequal:
        yield (
            f"{one.metric or 'the arm'} {one.arm} {one.number} of partition {one.partition}: the stream says {one.stream}, ClickHouse"
            f" {one.batch}"
        )
    yield from _otherwise(result, arms)


def covered(result: Result) -> Published:
    """What a result has counted."""
    return Published(result.units, sum(arm.outcomes for arm in result.arms.values()))


def _otherwise(result: Result, arms: Mapping[str, Arm]) -> Iterator[str]:
    """Where the stream's mean, if it tells one, is not the accuracy that the decisions in ClickHouse have."""
    judged = next(metric for metric in result.metrics if metric.name == CORRECT)
    for name, arm in judged.arms.items():
        if isinstance(arm.mean, CannotTell):
            continue
        accuracy = arms[name].accuracy if name in arms else None
        if accuracy is None or abs(arm.mean - accuracy) > ROUNDED:
            yield f"{CORRECT} of {name} is {arm.mean:.6g} to the judge, but {accuracy} by the decisions in ClickHouse"


def _covering(settings: Settings, name: str, published: Published) -> Result | None:
    """The newest result as soon as it covers everything, else what there is after the patience."""
    deadline = time.monotonic() + COVERED_SECONDS
    while (found := look_up(settings, name)) is None or covered(found) != published:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return found


def _effect(metric: MetricResult) -> Effect:
    means = {name: None if isinstance(arm.mean, CannotTell) else arm.mean for name, arm in metric.arms.items()}
    (one,) = metric.comparisons
    known = Effect(metric=metric.name, kind=metric.kind, role=metric.role, means=means, harmed=_harmed(one))
    if isinstance(one.estimate, CannotTell):
        return known
    anytime = one.estimate.always_valid
    return replace(
        known,
        effect=one.estimate.effect,
        interval=anytime.interval,
        p_value=anytime.p_value if anytime.adjusted_p_value is None else anytime.adjusted_p_value,
        chance_to_win=one.estimate.bayesian.chance_to_win,
    )


def _harmed(one: Comparison) -> bool | None:
    return one.harm.breached if isinstance(one.harm, Harm) else None
