"""A small join of two topics, for tests of the runner's stateful half: it answers each assignment with its prediction, or a timeout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from millrace.schemas.event import from_ms
from millrace.schemas.outcome import Outcome
from millrace.schemas.record import Emit, Record, Refused
from millrace.schemas.topics import ASSIGNMENTS, OUTCOMES, PREDICTIONS
from millrace.schemas.wire import derived_id
from millrace.streams.step import Batch, Store

ROLE = "counter"
MATCH, TIMEOUT = "match", "timeout"
REFUSE, RAISE = "refuse", "raise"
"""A prediction whose ``error`` is one of these words is dead-lettered, or stops the process."""

COUNT, WAITING, TIMER = b"c", b"w", b"t"


def _timer(deadline_ms: int, side: bytes, request_id: bytes) -> bytes:
    return TIMER + deadline_ms.to_bytes(8, "big") + side + request_id


class CountingJoin:
    """Join assignments and predictions by request id, whichever comes first, and count the matches of each unit.

    A match is an ``Outcome`` with the running count; an assignment not matched within ``timeout_ms`` of its append time is one with
    metric ``timeout``. What has expired is decided by append times alone: timers due before a record fire before it, in the order of
    their deadlines, and ``tick`` brings out those that no record came to bring out.

    State: ``c<unit>`` the count; ``w<side><request id>`` append time and unit of the side that waits; ``t<deadline><side><request id>``.
    """

    def __init__(self, timeout_ms: int = 2_000) -> None:
        self._timeout_ms = timeout_ms

    def observe(self, record: Record) -> bool:
        """There is nothing to know."""
        return False

    def settle(self) -> dict[str, str]:
        """Nothing is lacking."""
        return {}

    def process(self, batch: Batch, store: Store) -> Iterator[Emit | Refused]:
        """Match each record with the other side, after the timers that were due before it."""
        for record in batch.records:
            yield from self._expire(record.appended_ms, store)
            if (word := getattr(record.event, "error", "")) == REFUSE:
                yield Refused(record, "$.error: it says so")
            elif word == RAISE:
                raise ValueError(f"{record.place} says so")
            else:
                yield from self._join(record, store)

    def tick(self, watermark_ms: int, now: object, store: Store) -> Iterable[Emit | Refused]:
        """Bring out the timers below the watermark."""
        return self._expire(watermark_ms, store)

    def _join(self, record: Record, store: Store) -> Iterator[Emit]:
        own, other = (b"a", b"p") if record.topic == ASSIGNMENTS.name else (b"p", b"a")
        request_id, unit_id = record.event.request_id, record.event.unit_id
        waiting = WAITING + other + request_id.encode()
        since = store.get(waiting)
        if since is None:
            value = record.appended_ms.to_bytes(8, "big") + unit_id.encode()
            store.put(WAITING + own + request_id.encode(), value)
            store.put(_timer(record.appended_ms + self._timeout_ms, own, request_id.encode()), b"")
            return
        store.delete(waiting)
        store.delete(_timer(int.from_bytes(since[:8], "big") + self._timeout_ms, other, request_id.encode()))
        count = int(store.get(COUNT + unit_id.encode()) or b"0") + 1
        store.put(COUNT + unit_id.encode(), str(count).encode())
        yield outcome(MATCH, request_id, unit_id, float(count), record.appended_ms, record)

    def _expire(self, before_ms: int, store: Store) -> Iterator[Emit]:
        for timer, _ in store.scan(TIMER, TIMER + before_ms.to_bytes(8, "big")):
            deadline_ms, side, request_id = int.from_bytes(timer[1:9], "big"), timer[9:10], timer[10:]
            unit = (store.get(WAITING + side + request_id) or b"")[8:]
            store.delete(timer)
            store.delete(WAITING + side + request_id)
            if side == b"a":
                yield outcome(TIMEOUT, request_id.decode(), unit.decode(), 0.0, deadline_ms, None)


def outcome(metric: str, request_id: str, unit_id: str, value: float, at_ms: int, cause: Record | None) -> Emit:
    """The event of a match or a timeout."""
    event = Outcome(
        id=derived_id(metric, request_id), unit_id=unit_id, metric=metric, value=value, request_id=request_id, time=from_ms(at_ms)
    )
    return Emit(OUTCOMES.name, unit_id, event, cause)


INPUTS = (ASSIGNMENTS, PREDICTIONS)
