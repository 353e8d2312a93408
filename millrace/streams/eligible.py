"""Who takes part in an experiment: its gates, in one order, each of which is asked of those that the ones before let through.

Layer and holdout hash the unit by keys that no experiment has to itself, so that they mean the same units in all. The sample has a salt of
its own, or a ramp would correlate with the variant; a larger share only adds to who is below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from millrace.schemas.experiment import Condition, Plan, RampStep, Unit
from millrace.schemas.request import Request
from millrace.streams.buckets import UNIT, digest
from millrace.streams.target import predicate

Places = Sequence[int]


class GateName(StrEnum):
    """What a gate looks at."""

    STATE = "state"
    MODELS = "models"
    TARGET_UNITS = "target_units"
    TARGETING = "targeting"
    HOLDOUT = "holdout"
    LAYER = "layer"
    SAMPLE = "sample"


class Asked(Struct, frozen=True):
    """Requests in columns: their units, and the subjects that are randomised (the units, or the requests themselves), in UTF-8."""

    requests: Sequence[Request]
    units: Sequence[bytes]
    subjects: Sequence[bytes]
    now: datetime


class Gate(Protocol):
    """One reason for which a request may not take part."""

    name: GateName
    about: str

    def pick(self, asked: Asked, places: Places) -> Places: ...


class Models:
    """Requests of the plan's routes alone."""

    name = GateName.MODELS

    def __init__(self, models: AbstractSet[str]) -> None:
        self._models = models
        self.about = f"the request's model is one of {', '.join(sorted(models))}"

    def pick(self, asked: Asked, places: Places) -> Places:
        """Those whose model is one of them."""
        return [i for i in places if asked.requests[i].model in self._models]


class TargetUnits:
    """Units that alone may take part."""

    name = GateName.TARGET_UNITS

    def __init__(self, units: AbstractSet[str]) -> None:
        self._units = units
        self.about = f"the unit is one of the {len(units)} that are named"

    def pick(self, asked: Asked, places: Places) -> Places:
        """Those whose unit is named."""
        return [i for i in places if asked.requests[i].unit_id in self._units]


class Targeting:
    """One condition on the context."""

    name = GateName.TARGETING

    def __init__(self, condition: Condition) -> None:
        self._holds = predicate(condition)
        self.about = f"{condition.field} {'not ' if condition.negate else ''}{condition.test} {condition.value}"

    def pick(self, asked: Asked, places: Places) -> Places:
        """Those for whose context it holds."""
        return [i for i in places if self._holds(asked.requests[i].context)]


class Hashed:
    """Keys whose bucket lies in [low, high)."""

    def __init__(self, name: GateName, prefix: str, limits: tuple[float, float], about: str) -> None:
        self.name = name
        self.about = about
        self._prefix = prefix.encode()
        self._limits = limits

    def pick(self, asked: Asked, places: Places) -> Places:
        """Those whose bucket lies there."""
        (low, high), prefix, keys = self.limits(asked.now), self._prefix, self._keys(asked)
        if low <= 0 and high >= 1:
            return places
        return [i for i in places if low <= (digest(prefix + keys[i]) >> 11) * UNIT < high]

    def limits(self, now: datetime) -> tuple[float, float]:
        """The range at a time."""
        return self._limits

    def bucket(self, asked: Asked, place: int) -> float:
        """Where one key falls."""
        return (digest(self._prefix + self._keys(asked)[place]) >> 11) * UNIT

    def _keys(self, asked: Asked) -> Sequence[bytes]:
        return asked.units


class Sample(Hashed):
    """Subjects below the sample's share of the ramp's share."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(GateName.SAMPLE, f"{plan.salt}:sample:", (0.0, plan.sample), "it is in the sample, as far as the ramp goes")
        self._sample = plan.sample
        self._ramp = plan.ramp

    def limits(self, now: datetime) -> tuple[float, float]:
        """From 0 to the share that takes part now."""
        return 0.0, self._sample * ramp_share(self._ramp, now)

    def _keys(self, asked: Asked) -> Sequence[bytes]:
        return asked.subjects


def ramp_share(ramp: Sequence[RampStep], now: datetime) -> float:
    """What share of the sample takes part: all without a ramp, nobody before its first step.

    >>> from millrace.schemas.event import from_ms
    >>> steps = [RampStep(at=from_ms(1_000), share=0.1), RampStep(at=from_ms(2_000), share=0.5)]
    >>> [ramp_share(steps, from_ms(ms)) for ms in (999, 1_000, 2_500)], ramp_share([], from_ms(0))
    ([0.0, 0.1, 0.5], 1.0)
    """
    if not ramp:
        return 1.0
    return next((step.share for step in reversed(ramp) if step.at <= now), 0.0)


class Gates:
    """A plan's gates, made ready. Raises Never for a condition that means nothing.

    Units that the plan's overrides name pass all of them but the models: whoever names a unit wants it to meet the variant.
    """

    def __init__(self, plan: Plan) -> None:
        self.first = [Models(frozenset(plan.models))] if plan.models else []
        self.others = _others(plan)
        self._overrides: Mapping[str, str] = plan.overrides
        self._by_request = plan.unit is Unit.REQUEST

    def asked(self, requests: Sequence[Request], units: Sequence[bytes], now: datetime) -> Asked:
        """Requests in columns, as this plan randomises them."""
        return Asked(requests, units, [request.id.encode() for request in requests] if self._by_request else units, now)

    def admitted(self, asked: Asked) -> Places | None:
        """The places of the requests that take part, in order; None where all do."""
        if not self.first and not self.others:
            return None
        places: Places = range(len(asked.requests))
        for gate in self.first:
            places = gate.pick(asked, places)
        named = [i for i in places if asked.requests[i].unit_id in self._overrides] if self._overrides and self.others else []
        for other in self.others:
            places = other.pick(asked, places)
        return sorted({*places, *named}) if named else places


def _others(plan: Plan) -> list[Gate]:
    gates: list[Gate] = [TargetUnits(frozenset(plan.target_units))] if plan.target_units else []
    gates += [Targeting(condition) for condition in plan.targeting]
    if plan.holdout > 0:
        gates.append(Hashed(GateName.HOLDOUT, "holdout:", (plan.holdout, 1.0), f"the unit is outside the holdout of {plan.holdout:g}"))
    if plan.layer is not None:
        layer = plan.layer
        gates.append(
            Hashed(
                GateName.LAYER,
                f"layer:{layer.name}:",
                (layer.low, layer.high),
                f"the unit is in the plan's range of the layer {layer.name}",
            )
        )
    if plan.sample < 1 or plan.ramp:
        gates.append(Sample(plan))
    return gates
