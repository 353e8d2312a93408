"""Give each request its variant in every running experiment that it takes part in.

``h = xxHash64(salt:variant:subject)``, bucket ``(h >> 11) / 2^53`` in [0, 1). The subject is the unit, or the request where requests are
randomised. Who takes part is decided in ``eligible``, what a bucket gives in ``deal``; both are functions of the request, the plan's
version, the policy's version and ``now``, so that any assignment can be derived again, in Python and in SQL.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime

from millrace.schemas import wire
from millrace.schemas.assignment import Assignment
from millrace.schemas.errors import Never
from millrace.schemas.experiment import Plan, State, Unit, Variant
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.request import Request
from millrace.streams.buckets import UNIT, bucket, digest
from millrace.streams.deal import Given, at_bucket, dealer
from millrace.streams.eligible import Gates
from millrace.streams.plan_check import can_assign, check
from millrace.streams.plan_versions import PlanVersions
from millrace.streams.segments import Segments
from millrace.streams.spans import of_plan


class Experiment:
    """One plan, made ready to assign. Raises Never naming what is wrong with a plan that cannot assign, or with its policy."""

    def __init__(self, plan: Plan, policy: PolicyVersion | None = None) -> None:
        check(plan)
        self.gates = Gates(plan)
        self._plan = plan
        self._dealer = dealer(plan, policy)
        self._overrides = {unit: Given(name, 1.0, _model_of(plan.variants, name), named=True) for unit, name in plan.overrides.items()}
        self._prefix = f"{plan.salt}:variant:".encode()
        self._segments = Segments(plan.segments)
        self._plain = not plan.segments and plan.allocation is None

    def assign(self, requests: Sequence[Request], units: Sequence[bytes], now: datetime) -> list[Assignment | None]:
        """Each request's assignment, or None where it does not take part. ``units`` are their ``unit_id`` in UTF-8."""
        asked = self.gates.asked(requests, units, now)
        places = self.gates.admitted(asked)
        if places is None:
            return [*self._assigned(requests, asked.subjects, now)]
        made: list[Assignment | None] = [None] * len(requests)
        if places:
            taking = self._assigned([requests[i] for i in places], [asked.subjects[i] for i in places], now)
            for i, assignment in zip(places, taking, strict=True):
                made[i] = assignment
        return made

    def _assigned(self, requests: Sequence[Request], subjects: Sequence[bytes], now: datetime) -> list[Assignment]:
        prefix, overrides = self._prefix, self._overrides
        buckets = [(digest(prefix + subject) >> 11) * UNIT for subject in subjects]
        given = self._dealer.deal(requests, buckets)
        if overrides:
            given = [overrides.get(request.unit_id, dealt) for request, dealt in zip(requests, given, strict=True)]
        return (self._plainly if self._plain else self._wholly)(requests, buckets, given, now)

    def _plainly(self, requests: Sequence[Request], buckets: list[float], given: list[Given], now: datetime) -> list[Assignment]:
        """Without what only policies and segments say: the fewer fields a call names, the less each record costs."""
        name, version = self._plan.name, self._plan.version
        ids = wire.derived_ids([request.id for request in requests], name)
        return [
            Assignment(
                id=assignment_id,
                request_id=request.id,
                unit_id=request.unit_id,
                time=now,
                experiment=name,
                plan_version=version,
                variant=arm.name,
                bucket=place,
                propensity=arm.propensity,
                override=arm.named,
                model=arm.model,
            )
            for assignment_id, request, place, arm in zip(ids, requests, buckets, given, strict=True)
        ]

    def _wholly(self, requests: Sequence[Request], buckets: list[float], given: list[Given], now: datetime) -> list[Assignment]:
        """With the policy's part and the segments: fifteen fields, with more of which CPython builds a dictionary for each call."""
        name, version, segments_of = self._plan.name, self._plan.version, self._segments.of
        ids = wire.derived_ids([request.id for request in requests], name)
        return [
            Assignment(
                id=assignment_id,
                request_id=request.id,
                unit_id=request.unit_id,
                time=now,
                experiment=name,
                plan_version=version,
                variant=arm.name,
                bucket=place,
                propensity=arm.propensity,
                override=arm.named,
                model=arm.model,
                policy_version=arm.policy_version,
                propensities=arm.propensities,
                segments=segments_of(request.context),
                features=arm.features,
            )
            for assignment_id, request, place, arm in zip(ids, requests, buckets, given, strict=True)
        ]


class Assigner:
    """Every running experiment, in the order of names: the order in which plans and policies arrived plays no part."""

    def __init__(self) -> None:
        self._plans = PlanVersions()
        self._policies: dict[str, PolicyVersion] = {}
        self._ready: dict[str, Experiment] = {}
        self.running: list[Experiment] = []

    def observe(self, event: Plan | PolicyVersion) -> bool:
        """Take in a plan's next version, or a newer policy; False where it is neither, or cannot be used: then the one before goes on."""
        return self._observe_plan(event) if isinstance(event, Plan) else self._observe_policy(event)

    def _observe_plan(self, plan: Plan) -> bool:
        if not self._plans.offer(plan):
            return False
        self._make_ready(plan.name)
        return True

    def _observe_policy(self, policy: PolicyVersion) -> bool:
        """A policy of another plan version is kept: its plan may be on its way, or have changed nothing that it knows of."""
        before = self._policies.get(policy.experiment)
        if before is not None and policy.version <= before.version:
            return False
        plan = self._plans.newest(policy.experiment)
        if plan is not None and plan.version == policy.plan_version and not fits(plan, policy):
            return False
        self._policies[policy.experiment] = policy
        self._make_ready(policy.experiment)
        return True

    def _make_ready(self, name: str) -> None:
        plan, policy = self._plans.newest(name), self._policies.get(name)
        if plan is not None and plan.state is State.RUNNING:
            self._ready[name] = Experiment(plan, policy if policy is not None and fits(plan, policy) else None)
        else:
            self._ready.pop(name, None)
        self.running = [experiment for _, experiment in sorted(self._ready.items())]


def fits(plan: Plan, policy: PolicyVersion) -> bool:
    """Whether a policy can deal for a plan: one that learns, with the same variants and features."""
    if plan.allocation is None:
        return False
    try:
        dealer(plan, policy)
    except Never:
        return False
    return True


class Derivation:
    """One version of a plan, made ready to derive its assignments again. From one that cannot assign, none follows."""

    def __init__(self, plan: Plan) -> None:
        spans = of_plan(plan) if can_assign(plan) else ()
        self._plan = plan
        self._names = [variant.name for variant in plan.variants]
        self._prefix = f"{plan.salt}:variant:".encode()
        self._uppers = [span.high for span in spans][:-1]
        self._owners = [span.variant for span in spans]
        self._by_request = plan.unit is Unit.REQUEST

    def follows(self, assignment: Assignment) -> bool:
        """Whether bucket and variant follow: by hand, from the logged propensities of a policy, or from the plan's spans or weights."""
        subject = assignment.request_id if self._by_request else assignment.unit_id
        place = bucket(self._prefix + subject.encode())
        return place == assignment.bucket and self._variant(assignment, place) == assignment.variant

    def _variant(self, assignment: Assignment, place: float) -> str | None:
        if not self._owners:
            return None
        if assignment.override:
            return self._plan.overrides.get(assignment.unit_id)
        if not assignment.policy_version:
            return self._owners[bisect_right(self._uppers, place)]
        chances = [assignment.propensities.get(name, 0.0) for name in self._names]
        if not all(chance >= 0 for chance in chances) or not 0 < sum(chances) < math.inf:
            return None
        return self._names[at_bucket(chances, place)]


def derive(plan: Plan, assignment: Assignment) -> bool:
    """Whether an assignment's bucket and variant follow from the version of the plan that it names (and its own propensities)."""
    return Derivation(plan).follows(assignment)


def _model_of(variants: Sequence[Variant], name: str) -> str | None:
    return next(variant.model for variant in variants if variant.name == name)
