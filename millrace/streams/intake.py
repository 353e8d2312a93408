"""Outcomes as anybody publishes them, judged and moved to their unit's partition. What comes out is what experiments and views count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from millrace.schemas import wire
from millrace.schemas.event import from_ms
from millrace.schemas.limits import Limits
from millrace.schemas.outcome import Outcome, UnitOutcome
from millrace.schemas.record import Emit, Record, Refused
from millrace.schemas.topics import OUTCOMES_BY_UNIT
from millrace.streams.door import Window, too_long, too_many_bytes
from millrace.streams.step import Batch, Store

LARGEST = 1e15
"""The largest value: in steps of a resolution of 1e-9, the square of a sum of a billion of them still fits the integers of ClickHouse."""

_TOPIC = OUTCOMES_BY_UNIT.name


class Intake:
    """Give each outcome an id and a time, or name what is wrong with it.

    An outcome with a producer's id has the same id however often it is published: whoever counts, counts its first. One without has the
    id of its place, and is counted as often as it was published.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def observe(self, record: Record) -> bool:
        """No control topic says anything to it."""
        return False

    def settle(self) -> Mapping[str, str]:
        """Nothing is ever lacking."""
        return {}

    def process(self, batch: Batch, store: Store | None = None) -> list[Emit | Refused]:
        """A fact for each record, in their order."""
        if not batch.records:
            return []
        window = Window(self._limits, batch.records)
        return [self._judged(record, window) for record in batch.records]

    def tick(self, watermark_ms: int, now: datetime, store: Store) -> list[Emit | Refused]:
        """Nothing follows from time alone."""
        return []

    def _judged(self, record: Record, window: Window) -> Emit | Refused:
        outcome: Outcome = record.event
        if not self._clear(record, outcome, window) and (reason := self._refusal(record, outcome, window)):
            return Refused(record, reason)
        unit_id, metric, own = outcome.unit_id, outcome.metric, outcome.id
        event = UnitOutcome(
            id=wire.derived_id(record.place) if own is None else wire.derived_id(unit_id, metric, own),
            unit_id=unit_id,
            metric=metric,
            value=outcome.value,
            time=outcome.time or from_ms(record.appended_ms),
            request_id=outcome.request_id,
            outcome_id=own,
        )
        return Emit(_TOPIC, unit_id, event, record)

    def _clear(self, record: Record, outcome: Outcome, window: Window) -> bool:
        """Whether lengths alone prove that nothing is wrong: a string is never longer than the bytes that hold it."""
        time = outcome.time
        return bool(
            len(record.value or b"") <= min(self._limits.string_characters, self._limits.record_bytes)
            and outcome.unit_id
            and outcome.metric
            and outcome.id != ""
            and outcome.request_id != ""
            and -LARGEST <= outcome.value <= LARGEST
            and (time is None or window.common_start <= time <= window.common_end)
        )

    def _refusal(self, record: Record, outcome: Outcome, window: Window) -> str | None:
        return (
            too_many_bytes(record, self._limits)
            or self._wrong_string(outcome)
            or _wrong_value(outcome.value)
            or (window.refusal(outcome.time, record.appended_ms) if outcome.time is not None else None)
        )

    def _wrong_string(self, outcome: Outcome) -> str | None:
        for name in ("unit_id", "metric", "id", "request_id"):
            text: str | None = getattr(outcome, name)
            if text == "":
                return f"$.{name}: it is empty" + ("" if name in ("unit_id", "metric") else "; leave it out where there is none")
            if text and (reason := too_long(text, f"$.{name}", self._limits)):
                return reason
        return None


def _wrong_value(value: float) -> str | None:
    if not math.isfinite(value):
        return f"$.value: {value} is not a finite number"
    return f"$.value: {value} is larger than {LARGEST:g} in size, the limit" if abs(value) > LARGEST else None
