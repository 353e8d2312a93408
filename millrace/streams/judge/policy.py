"""What a learning experiment's next weights are: a function of the exact sums of its reward, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from millrace.schemas.errors import UsageError
from millrace.schemas.event import NOTHING
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import CONTEXTUAL, Allocation, Plan, Policy
from millrace.schemas.metric import Direction, Metric
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.policy_state import STEPS, Gram, Method, features_of
from millrace.streams.bandits import custom
from millrace.streams.bandits.allocate import Settings, epsilon_greedy, thompson, ucb
from millrace.streams.bandits.contextual import Contextual
from millrace.streams.bandits.custom import CustomPolicy
from millrace.streams.bandits.floor import floored
from millrace.streams.bandits.ridge import ContextualSettings, learnt
from millrace.streams.judge.merge import Merged
from millrace.streams.stats.summary import of_moments

METHODS = {
    Policy.LIN_TS: Method.LIN_TS,
    Policy.SQUARE_CB: Method.SQUARE_CB,
    Policy.CONTEXTUAL_EPSILON_GREEDY: Method.EPSILON_GREEDY,
}


class Weights(Struct, frozen=True):
    """Each variant's chance, and the state of a contextual policy."""

    weights: dict[str, float]
    contextual: Raw = NOTHING


def policy(plan: Plan, sums: Merged, version: int, now: datetime, installed: Mapping[str, CustomPolicy]) -> PolicyVersion:
    """The next version of a plan's policy. Raises UsageError where it cannot be computed, which says what to do."""
    found = weights(plan, sums, installed)
    return PolicyVersion(
        experiment=plan.name,
        version=version,
        plan_version=plan.version,
        time=now,
        offsets=sums.offsets,
        weights=found.weights,
        contextual=found.contextual,
    )


def weights(plan: Plan, sums: Merged, installed: Mapping[str, CustomPolicy]) -> Weights:
    """The weights by the plan's allocation. A variant of weight 0 was ended and is given nothing, unless the policy is contextual."""
    allocation = plan.allocation
    if allocation is None:
        raise UsageError(f"experiment {plan.name} has no allocation: its weights are fixed")
    reward = next((metric for metric in plan.metrics if metric.name == allocation.metric), None)
    if reward is None:
        raise UsageError(f"experiment {plan.name}: the allocation's metric {allocation.metric!r} is none of the plan's")
    if allocation.policy in CONTEXTUAL:
        return _contextual(plan, allocation, reward, sums)
    names = [variant.name for variant in plan.variants if variant.weight > 0.0]
    arms = [better_is_more(sums.moments(reward.name, name), reward) for name in names]
    shares = dict(zip(names, _shares(names, arms, allocation, reward, installed), strict=True))
    return Weights({variant.name: shares.get(variant.name, 0.0) for variant in plan.variants})


def better_is_more(moments: Moments, metric: Metric) -> Moments:
    """The reward's sums, turned round where less is better: a proportion into its complement, anything else into its negative.

    >>> from millrace.schemas.metric import Direction, Metric
    >>> errors = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, direction=Direction.DECREASE)
    >>> better_is_more(Moments.of(1) + Moments.of(0) + Moments.of(0), errors).total
    2
    """
    if metric.direction is Direction.INCREASE:
        return moments
    if metric.kind is Kind.PROPORTION:
        return Moments(moments.n, moments.n - moments.total, moments.n - 2 * moments.total + moments.squares)
    return Moments(moments.n, -moments.total, moments.squares)


def _shares(
    names: Sequence[str], arms: Sequence[Moments], allocation: Allocation, reward: Metric, installed: Mapping[str, CustomPolicy]
) -> list[float]:
    settings = Settings(kind=reward.kind, resolution=reward.step, floor=allocation.floor, minimal=allocation.minimal_units)
    match allocation.policy:
        case Policy.THOMPSON:
            return thompson(arms, settings)
        case Policy.UCB:
            return ucb(arms, settings, allocation.exploration)
        case Policy.EPSILON_GREEDY:
            return epsilon_greedy(arms, settings, allocation.epsilon)
        case Policy.CUSTOM:
            return _custom(dict(zip(names, arms, strict=True)), allocation, reward, installed)
        case _:
            raise UsageError(f"the policy {allocation.policy} is contextual and has no weights of its own")


def _custom(arms: Mapping[str, Moments], allocation: Allocation, reward: Metric, installed: Mapping[str, CustomPolicy]) -> list[float]:
    function = installed.get(allocation.entry_point)
    if function is None:
        known = ", ".join(sorted(installed)) or "none"
        raise UsageError(
            f"the policy {allocation.entry_point!r} is not installed where the judge runs (there is: {known}):"
            f" install a package with this entry point of the group {custom.GROUP}, then restart the judge"
        )
    summaries = {name: of_moments(arm, reward.step) for name, arm in arms.items()}
    if min(arm.n for arm in summaries.values()) < allocation.minimal_units:
        return floored([1 / len(arms)] * len(arms), allocation.floor)
    try:
        return custom.allocate(function, summaries, allocation.floor)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - somebody else's function: whatever it raises, the weights before it go on
        raise UsageError(f"the policy {allocation.entry_point!r} failed: {type(error).__name__}: {error}") from None


def _contextual(plan: Plan, allocation: Allocation, reward: Metric, sums: Merged) -> Weights:
    grams = sums.features.get(reward.name, {})
    if not grams and sums.metrics.get(reward.name):
        raise UsageError(
            f"experiment {plan.name}: the sums of {reward.name} come without sums over features, from which a contextual policy is learnt:"
            f" no request so far had all of {', '.join(sorted(allocation.features))} as numbers in its context; send them"
        )
    zero = Gram.zero(len(allocation.features))
    arms = [_more(grams.get(variant.name, zero), reward) for variant in plan.variants]
    greedy = allocation.policy is Policy.CONTEXTUAL_EPSILON_GREEDY
    state = learnt(
        arms,
        ContextualSettings(
            method=METHODS[allocation.policy],
            features=features_of(allocation.features),
            exploration=allocation.epsilon if greedy else allocation.exploration,
            resolution=reward.step,
            floor=allocation.floor,
            minimal=allocation.minimal_units,
        ),
    )
    average = Contextual(state).at_steps(_mean_steps(arms))
    return Weights(dict(zip((v.name for v in plan.variants), average, strict=True)), Raw(msgspec.json.encode(state)))


def _more(gram: Gram, metric: Metric) -> Gram:
    if metric.direction is Direction.INCREASE:
        return gram
    if metric.kind is Kind.PROPORTION:
        return replace(gram, rewards=tuple(_first_row(gram)[i] // STEPS - reward for i, reward in enumerate(gram.rewards)))
    return replace(gram, rewards=tuple(-reward for reward in gram.rewards))


def _first_row(gram: Gram) -> tuple[int, ...]:
    """The sums of the constant times 1 and the features, each in steps of STEPS squared."""
    return gram.products[: len(gram.rewards)]


def _mean_steps(arms: Sequence[Gram]) -> list[float]:
    """The average context in steps, at which the published chances are told; of no request, the middle of the ranges."""
    n = sum(arm.n for arm in arms)
    rows = [_first_row(arm) for arm in arms]
    return [sum(row[i] for row in rows) / STEPS / n if n else 0.0 for i in range(1, len(rows[0]))]
