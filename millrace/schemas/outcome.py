"""Something happened to a unit."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from millrace.schemas.event import Event, Name, Time


class Outcome(Event, frozen=True):
    """Something happened to a unit: one value of one metric, perhaps because of one request."""

    unit_id: Annotated[str, Meta(description="The unit that it happened to.")]
    metric: Annotated[Name, Meta(description="What was measured, e.g. `label` or `revenue`.")]
    value: Annotated[float, Meta(description="The measured value, finite.")]
    id: Annotated[str | None, Meta(description="The producer's id of this outcome, for counting a repeated one once.")] = None
    request_id: Annotated[str | None, Meta(description="The request that it answers, where known.")] = None
    time: Annotated[Time | None, Meta(description="When it happened; the record's timestamp where absent.")] = None


class UnitOutcome(Event, frozen=True):
    """A validated outcome on its unit's partition."""

    id: Annotated[
        str, Meta(description="Hash of unit, metric and the producer's id; of the place in `outcomes` where there is no such id.")
    ]
    unit_id: Annotated[str, Meta(description="The unit that it happened to.")]
    metric: Annotated[Name, Meta(description="What was measured.")]
    value: Annotated[float, Meta(description="The measured value, finite, at most 1e15 in size.")]
    time: Annotated[Time, Meta(description="When it happened.")]
    request_id: Annotated[str | None, Meta(description="The request that it answers, where known.")] = None
    outcome_id: Annotated[str | None, Meta(description="The producer's id of it, where it has one.")] = None
