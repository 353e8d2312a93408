"""Give each request its variant in every running experiment that targets it.

``h = xxHash64(salt:variant:unit)``, bucket ``(h >> 11) / 2^53`` in [0, 1), and the variants share [0, 1) by weight in their declared order.
ClickHouse's ``xxHash64`` is the same function, so that any bucket can be derived again in SQL. New weights move the units between the
old and the new bounds and nobody else. Whether a unit takes part (``sample``) hashes with a salt of its own, or a ramp would
correlate with the variant.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate

import xxhash
from msgspec import Struct

from millrace.schemas import wire
from millrace.schemas.assignment import Assignment
from millrace.schemas.errors import Never
from millrace.schemas.experiment import Condition, Plan, State, Variant
from millrace.schemas.request import Request
from millrace.schemas.versions import Versions
from millrace.streams.target import predicate

_hash = xxhash.xxh64_intdigest
UNIT = 2.0**-53


def bucket(key: bytes) -> float:
    """Where a key falls in [0, 1): the upper 53 bits of its xxHash64, which a double holds exactly.

    >>> bucket(b"salt:variant:unit-1") == bucket(b"salt:variant:unit-1")
    True
    """
    return (_hash(key) >> 11) * UNIT


def bounds(weights: Sequence[float]) -> list[float]:
    """The upper bound of each share of [0, 1) but the last.

    >>> bounds([1, 1, 2])
    [0.25, 0.5]
    """
    total = math.fsum(weights)
    return [upper / total for upper in accumulate(weights)][:-1]


class Arm(Struct, frozen=True):
    """A variant as it is given out. ``named``: by hand, to units that the plan's overrides name."""

    name: str
    propensity: float
    model: str | None
    named: bool = False


class Experiment:
    """One plan, made ready to assign. Raises Never naming what is wrong with a plan that cannot assign."""

    def __init__(self, plan: Plan) -> None:
        check(plan)
        total = math.fsum(variant.weight for variant in plan.variants)
        given = [variant for variant in plan.variants if variant.weight > 0]
        self._plan = plan
        self._arms = [Arm(variant.name, variant.weight / total, variant.model) for variant in given]
        self._bounds = bounds([variant.weight for variant in given])
        self._overrides = {unit: Arm(name, 1.0, _model_of(plan.variants, name), named=True) for unit, name in plan.overrides.items()}
        self._models = frozenset(plan.models)
        self._conditions = [predicate(condition) for condition in plan.targeting]
        self._sample_prefix = f"{plan.salt}:sample:".encode()
        self._variant_prefix = f"{plan.salt}:variant:".encode()

    def assign(self, requests: Sequence[Request], units: Sequence[bytes], now: datetime) -> list[Assignment | None]:
        """Each request's assignment, or None where it does not take part. ``units`` are their ``unit_id`` in UTF-8."""
        plan, arms, prefix, upper, overrides = self._plan, self._arms, self._variant_prefix, self._bounds, self._overrides
        selective = bool(self._models or self._conditions or plan.sample < 1)
        ids = wire.derived_ids([request.id for request in requests], plan.name)
        made: list[Assignment | None] = []
        for request, unit, assignment_id in zip(requests, units, ids, strict=True):
            if selective and not self._takes_part(request, unit):
                made.append(None)
                continue
            place = (_hash(prefix + unit) >> 11) * UNIT
            arm = (overrides.get(request.unit_id) if overrides else None) or arms[bisect_right(upper, place)]
            made.append(
                Assignment(
                    id=assignment_id,
                    request_id=request.id,
                    unit_id=request.unit_id,
                    time=now,
                    experiment=plan.name,
                    plan_version=plan.version,
                    variant=arm.name,
                    bucket=place,
                    propensity=arm.propensity,
                    override=arm.named,
                    model=arm.model,
                )
            )
        return made

    def _takes_part(self, request: Request, unit: bytes) -> bool:
        """Overrides stand above targeting and sample, and below the models that the plan is limited to."""
        if self._models and request.model not in self._models:
            return False
        if request.unit_id in self._overrides:
            return True
        for holds in self._conditions:
            if not holds(request.context):
                return False
        return self._plan.sample >= 1 or bucket(self._sample_prefix + unit) < self._plan.sample


class Assigner:
    """Every running experiment, in the order of names: the order in which plans arrived plays no part."""

    def __init__(self) -> None:
        self._plans: Versions[Plan] = Versions()
        self._able: dict[str, Plan] = {}
        self.running: list[Experiment] = []

    def observe(self, plan: Plan) -> bool:
        """Take in a plan's next version; False where it is not the next one, or cannot assign: then the one before goes on."""
        if not self._plans.offer(plan):
            return False
        try:
            check(plan)
        except Never:
            return False
        self._able[plan.name] = plan
        self.running = [Experiment(known) for _, known in sorted(self._able.items()) if known.state is State.RUNNING]
        return True


def check(plan: Plan) -> None:
    """Raise Never naming what is wrong with a plan: a weight, a name twice, an override or a condition that means nothing."""
    names = [variant.name for variant in plan.variants]
    weights = [variant.weight for variant in plan.variants]
    where = f"experiment {plan.name!r} version {plan.version}"
    if len(set(names)) != len(names):
        raise Never(f"{where}: two variants have one name; name each variant once")
    if not all(map(math.isfinite, weights)) or not math.isfinite(sum(weights)) or sum(weights) <= 0:
        raise Never(f"{where}: weights must be finite, and one of them above 0")
    unknown = sorted(set(plan.overrides.values()) - set(names))
    if unknown:
        raise Never(f"{where}: an override names the variant {unknown[0]!r}, which is none of {', '.join(names)}")
    for condition in plan.targeting:
        _check_condition(condition, where)


def _check_condition(condition: Condition, where: str) -> None:
    try:
        predicate(condition)
    except Never as error:
        raise Never(f"{where}: {error}") from None


def _model_of(variants: Sequence[Variant], name: str) -> str | None:
    return next(variant.model for variant in variants if variant.name == name)
