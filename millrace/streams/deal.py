"""Which variant a bucket gives, and with which chance: by the plan's spans, by a policy's weights, or by each request's context.

Whoever is asked gets the variants' shares of [0, 1) in the plan's order, by the probabilities that are logged: what a policy chose can
be derived again from its assignment and the order of the plan's variants alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from millrace.schemas.errors import Never
from millrace.schemas.experiment import CONTEXTUAL, Plan
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.policy_state import ContextualState, features_of
from millrace.schemas.request import Request
from millrace.streams.bandits.contextual import Contextual
from millrace.streams.spans import bounds, of_plan
from millrace.streams.target import at, is_number

NO_NUMBERS: dict[str, float] = {}


class Given(Struct, frozen=True):
    """A variant as it is given out. ``named``: by hand, to units that the plan's overrides name."""

    name: str
    propensity: float
    model: str | None
    named: bool = False
    policy_version: int = 0
    propensities: dict[str, float] = NO_NUMBERS
    features: dict[str, float] = NO_NUMBERS


class Dealer(Protocol):
    """Gives each bucket its variant."""

    def deal(self, requests: Sequence[Request], buckets: Sequence[float]) -> list[Given]: ...


class Shares:
    """The same shares for all: whose upper bounds these are."""

    def __init__(self, uppers: Sequence[float], given: Sequence[Given]) -> None:
        self._uppers = uppers
        self._given = given

    def deal(self, requests: Sequence[Request], buckets: Sequence[float]) -> list[Given]:
        """By bucket alone."""
        uppers, given = self._uppers, self._given
        return [given[bisect_right(uppers, place)] for place in buckets]


class ByContext:
    """Shares of its own for each request that has all of the policy's features as finite numbers; ``average`` for the others.

    The numbers are logged before there is a policy too: the first one is learnt from them.
    """

    def __init__(self, plan: Plan, average: Shares, version: int = 0, contextual: Contextual | None = None) -> None:
        self._features = [feature.name for feature in features_of(plan.allocation.features)] if plan.allocation else []
        self._paths = [tuple(field.split(".")) for field in self._features]
        self._arms = [(variant.name, variant.model, variant.weight > 0) for variant in plan.variants]
        self._average = average
        self._version = version
        self._contextual = contextual

    def deal(self, requests: Sequence[Request], buckets: Sequence[float]) -> list[Given]:
        """By bucket and context."""
        given = self._average.deal(requests, buckets)
        known = [(i, values) for i, request in enumerate(requests) if (values := self._values(request.context)) is not None]
        if not known:
            return given
        if self._contextual is None:
            for i, values in known:
                given[i] = msgspec.structs.replace(given[i], features=dict(zip(self._features, values, strict=True)))
            return given
        rows = self._contextual.probabilities([values for _, values in known]).tolist()
        for (i, values), row in zip(known, rows, strict=True):
            given[i] = self._by(row, values, buckets[i])
        return given

    def _by(self, row: list[float], values: list[float], place: float) -> Given:
        chances = limited(row, [alive for *_, alive in self._arms])
        name, model, _ = self._arms[at_bucket(chances, place)]
        told = {arm: chance for (arm, *_), chance in zip(self._arms, chances, strict=True)}
        features = dict(zip(self._features, values, strict=True))
        return Given(name, told[name], model, policy_version=self._version, propensities=told, features=features)

    def _values(self, context: Mapping[str, object]) -> list[float] | None:
        values = []
        for path in self._paths:
            value = number(at(context, path))
            if value is None:
                return None
            values.append(value)
        return values


def number(value: object) -> float | None:
    """A value of the context as a double; None for what is no finite number.

    >>> number(3), number(True), number("3"), number(10**400)
    (3.0, None, None, None)
    """
    if not is_number(value):
        return None
    try:
        double = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return double if math.isfinite(double) else None


def at_bucket(chances: Sequence[float], place: float) -> int:
    """Whose share of [0, 1) a bucket falls into; of a chance of 0 it never is."""
    return bisect_right(bounds(chances), place)


def limited(chances: Sequence[float], alive: Sequence[bool]) -> list[float]:
    """Chances without those of variants that the plan has ended by a weight of 0.

    >>> limited([0.5, 0.25, 0.25], [True, False, True]), limited([0.75, 0.25], [True, True])
    ([0.6666666666666666, 0.0, 0.3333333333333333], [0.75, 0.25])
    """
    if all(alive):
        return list(chances)
    kept = [chance if lives else 0.0 for chance, lives in zip(chances, alive, strict=True)]
    total = math.fsum(kept)
    return [chance / total for chance in kept]


def dealer(plan: Plan, policy: PolicyVersion | None) -> Dealer:
    """Who deals for a plan. Raises Never for a policy that is not of these variants, or that says nothing usable."""
    contextual = plan.allocation is not None and plan.allocation.policy in CONTEXTUAL
    if policy is None:
        return ByContext(plan, by_plan(plan)) if contextual else by_plan(plan)
    average = by_policy(plan, policy)
    if not contextual or not bytes(policy.contextual):
        return ByContext(plan, average) if contextual else average
    return ByContext(plan, average, policy.version, state_of(plan, policy))


def by_plan(plan: Plan) -> Shares:
    """By the plan's spans; each variant's chance is its weight."""
    total = math.fsum(variant.weight for variant in plan.variants)
    arms = {variant.name: Given(variant.name, variant.weight / total, variant.model) for variant in plan.variants}
    spans = of_plan(plan)
    return Shares([span.high for span in spans][:-1], [arms[span.variant] for span in spans])


def by_policy(plan: Plan, policy: PolicyVersion) -> Shares:
    """By a policy's weights. Raises Never for a policy that is not of the plan's variants."""
    names = [variant.name for variant in plan.variants]
    where = f"policy version {policy.version} of experiment {plan.name!r}"
    if policy.weights.keys() != set(names):
        raise Never(f"{where}: its variants are {', '.join(policy.weights)}, and the plan's {', '.join(names)}")
    weights = [policy.weights[name] for name in names]
    alive = [variant.weight > 0 for variant in plan.variants]
    if not all(0 <= weight <= 1 for weight in weights) or not any(weight for weight, lives in zip(weights, alive, strict=True) if lives):
        raise Never(f"{where}: weights must be from 0 to 1, and that of a variant that the plan has not ended above 0")
    told = dict(zip(names, limited(weights, alive), strict=True))
    given = [Given(v.name, told[v.name], v.model, policy_version=policy.version, propensities=told) for v in plan.variants]
    return Shares(bounds(list(told.values())), given)


def state_of(plan: Plan, policy: PolicyVersion) -> Contextual:
    """A contextual policy's coefficients, made ready. Raises Never where they are not of the plan's features and variants."""
    where = f"policy version {policy.version} of experiment {plan.name!r}"
    features = features_of(plan.allocation.features) if plan.allocation else ()
    try:
        state = msgspec.json.decode(policy.contextual, type=ContextualState)
    except msgspec.MsgspecError as error:
        raise Never(f"{where}: {error}") from None
    if state.features != features or len(state.arms) != len(plan.variants):
        told = ", ".join(f"{one.name} in [{one.low:g}, {one.high:g}]" for one in features)
        raise Never(f"{where}: it is not of the plan's features {told} and its {len(plan.variants)} variants")
    return Contextual(state)
