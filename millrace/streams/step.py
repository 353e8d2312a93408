"""The contract between a verb and the runner that drives it.

A step is pure in (state, batch, now, control, lacking): the same calls give the same events, on any machine.

- ``observe(record)`` is called for each record of a control topic, in the order of its offsets, first for all that stood there at
  start and later only between two polls. An invalid or racing version is ignored, and told by ``False``. It raises nothing.
- ``settle()`` is called after that, once before each ``process``: what the records name may be on its way still, or not to be had. It takes
  up what has become usable and gives the rest, name to reason. ``commits`` records that beside the control offsets, so that what a
  transaction knew is told by the two: between two calls nothing else becomes known.
- ``process(batch, store)`` is called at most once a poll for each partition group, or, by a stateless step, once for the whole poll. It
  may not block on a network. It returns what to emit, in the order in which it shall stand, and names in ``Refused`` each record that
  can never be used. It may raise NotNow (the group is held and the same records come again), or anything else, which stops
  the process: nothing of this call is then produced, stored or committed.
- ``tick(watermark_ms, now, store)`` is called after the records of a poll, and while nothing arrives, for timers of one partition group.
  No later record of the group will have an append time below ``watermark_ms``. What has expired must be decided from a record's own
  append time in ``process``; ``tick`` only brings it out, so that a backlog gives the same events as live traffic.
- The store is the group's own. What is written in a call is committed with what the call emitted, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from millrace.schemas.record import Emit, Record, Refused

Facts = Iterable[Emit | Refused]


class Store(Protocol):
    """Keyed state of one partition group: bytes to bytes, in the order of the keys."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, with all that was written in this transaction."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove a key, if it is there."""
        ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with start <= key < end, in order, as they stood when the scan began."""
        ...


class Batch(Struct, gc=False):
    """What one call of ``process`` is given: decoded records in the order in which they count, and the poll's time."""

    group: int
    """The partition group; -1 stands for no group, in a stateless step that takes the whole poll."""
    records: Sequence[Record]
    now: datetime


class Step(Protocol):
    """A verb: what happens to the records of one partition group."""

    def observe(self, record: Record) -> bool:
        """Take in one record of a control topic; False where it was ignored."""
        ...

    def settle(self) -> Mapping[str, str]:
        """Take up what has become usable; what of the control records is not, and why."""
        ...

    def process(self, batch: Batch, store: Store) -> Facts:
        """What follows from these records."""
        ...

    def tick(self, watermark_ms: int, now: datetime, store: Store) -> Facts:
        """What follows from time alone."""
        ...
