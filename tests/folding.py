"""Assignments and outcomes as the experiment fold reads them, for its tests."""

from __future__ import annotations

from typing import Any

from millrace.schemas.assignment import Assignment
from millrace.schemas.event import from_ms
from millrace.schemas.outcome import UnitOutcome


def assigned(experiment: str, unit: str, time_ms: int, variant: str = "a", **fields: Any) -> Assignment:
    """A unit's assignment, exposed unless it says otherwise."""
    request = fields.pop("request_id", f"r-{unit}")
    given: dict[str, Any] = {"plan_version": 1, "bucket": 0.5, "propensity": 0.5} | fields
    return Assignment(
        id=f"a-{request}-{experiment}",
        request_id=request,
        unit_id=unit,
        time=from_ms(time_ms),
        experiment=experiment,
        variant=variant,
        **given,
    )


def outcome(own_id: str, unit: str, value: float, time_ms: int, metric: str = "paid", request_id: str | None = None) -> UnitOutcome:
    """Something that happened to a unit."""
    return UnitOutcome(id=own_id, unit_id=unit, metric=metric, value=value, time=from_ms(time_ms), request_id=request_id)
