"""A stateless step for tests of the runner: it answers each request with one prediction, and misbehaves where a request says so."""

from __future__ import annotations

import time
from collections.abc import Iterator

from millrace.schemas.errors import NotNow
from millrace.schemas.event import from_ms
from millrace.schemas.experiment import Plan
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.record import Emit, Record, Refused
from millrace.schemas.topics import PREDICTIONS
from millrace.schemas.versions import Versions
from millrace.schemas.wire import derived_id
from millrace.streams.step import Batch, Facts, Store

ROLE = "inference"
"""The owner of ``requests``: it alone may dead-letter what cannot be decoded."""
REFUSE, RAISE, OVERSIZED, SLOW = "refuse", "raise", "oversized", "slow"
WAIT_SECONDS = 0.1
SLOW_SECONDS = 5.0


class Echo:
    """Answer each request; its context may say ``{"do": "refuse" | "raise" | "oversized" | "slow"}``, or ``{"needs": EXPERIMENT}``.

    A poll that needs an experiment of which no version is known yet is not answered now.
    """

    def __init__(self) -> None:
        self._plans: Versions[Plan] = Versions(key="name")

    def observe(self, record: Record) -> bool:
        """Take the next version of an experiment."""
        return self._plans.offer(record.event)

    def settle(self) -> dict[str, str]:
        """Nothing is lacking."""
        return {}

    def process(self, batch: Batch, store: Store) -> Iterator[Emit | Refused]:
        """Answer in the order of the requests."""
        for record in batch.records:
            request = record.event
            needed, word = request.context.get("needs"), request.context.get("do")
            if needed is not None and self._plans.newest(needed) is None:
                raise NotNow(f"experiment {needed} is not known yet", WAIT_SECONDS)
            if word == RAISE:
                raise ValueError(f"{record.place} says so")
            if word == SLOW:
                time.sleep(SLOW_SECONDS)
            if word == REFUSE:
                yield Refused(record, "$.context.do: it says so")
            else:
                yield Emit(PREDICTIONS.name, request.unit_id, _answer(record, "x" * (4 << 20) if word == OVERSIZED else ""), record)

    def tick(self, watermark_ms: int, now: object, store: Store) -> Facts:
        """Nothing waits for time."""
        return ()


def _answer(record: Record, error: str) -> Prediction:
    request = record.event
    return Prediction(
        id=derived_id(request.id, "echo"),
        request_id=request.id,
        unit_id=request.unit_id,
        time=from_ms(record.appended_ms),
        model=request.model or "",
        version=1,
        digest="",
        status=Status.OK,
        outputs={"echo": 1.0},
        error=error,
    )
