"""The transactions of one role, as ``commits`` has them, and which of them are to be run again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from millrace.infra.kafka.clients import TopicInfo, full_name
from millrace.infra.kafka.cursors import SILENCE_SECONDS, Cursors
from millrace.infra.kafka.partition import partition_of
from millrace.infra.kafka.scan import Scan
from millrace.infra.settings import Settings
from millrace.schemas.commit import Commit
from millrace.schemas.errors import Unavailable
from millrace.schemas.event import to_ms
from millrace.schemas.record import Record
from millrace.schemas.topics import COMMITS
from millrace.schemas.wire import codec

FIRST_STEP_OFFSETS = 256
WIDER = 8
MARGIN_MS = 1_000


class Window(Struct, frozen=True):
    """Which transactions: the last so many, those since a time, or, where neither is said, all that ``commits`` holds."""

    since: datetime | None = None
    last: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all are meant."""
        return self.since is None and self.last is None


class Planned(Struct):
    """A transaction and its record."""

    record: Record
    commit: Commit


class Schedule:
    """The role's partition of ``commits`` over [start, end); ``end`` is fixed when it is made, with what was pending then decided.

    What lies before the transactions that are asked for is looked up ``aside``, with other cursors than those that go through them.
    """

    def __init__(self, settings: Settings, role: str, info: TopicInfo, cursors: Cursors, aside: Cursors) -> None:
        self._role, self._cursors, self._aside = role, cursors, aside
        self._decode = codec(COMMITS).decode
        self._before_ms = int(settings.runner.transaction_timeout_seconds * 1_000) + MARGIN_MS
        self.place = (full_name(settings, COMMITS), partition_of(role, info.partitions))
        self.start, self.end = cursors.extent(self.place)
        self._wait_until_decided(settings)

    def planned(self, window: Window) -> Iterator[Planned]:
        """The transactions that are asked for, in order."""
        return self._between(self._cursors, self._begin(window), self.end)

    def is_first(self, planned: Planned) -> bool:
        """Whether this is the first transaction of all: nothing of the role was before it."""
        return self.start == 0 and next(self._between(self._aside, 0, planned.record.offset), None) is None

    def appended_since(self, first: Planned) -> int:
        """A time before which nothing was appended by a transaction from this one on: none of them can have lived for longer."""
        return first.record.appended_ms - self._before_ms

    def before(self, first: Planned) -> list[datetime]:
        """The ``now`` of the earlier transactions whose records may stand among those of this one."""
        began = self._aside.at_times({self.place: self.appended_since(first)})[self.place]
        return [planned.commit.time for planned in self._between(self._aside, max(began, self.start), first.record.offset)]

    def _begin(self, window: Window) -> int:
        if window.last is not None:
            return self._of_last(window.last)
        if window.since is not None:
            return max(self.start, self._cursors.at_times({self.place: to_ms(window.since)})[self.place])
        return self.start

    def _of_last(self, wanted: int) -> int:
        """Where the last so many begin: offsets do not count records, nor does the partition hold this role's alone."""
        step = 2 * wanted + FIRST_STEP_OFFSETS
        while True:
            begin = max(self.start, self.end - step)
            offsets = deque((planned.record.offset for planned in self._between(self._cursors, begin, self.end)), maxlen=wanted)
            if len(offsets) == wanted or begin == self.start:
                return offsets[0] if offsets else self.end
            step *= WIDER

    def _between(self, cursors: Cursors, start: int, end: int) -> Iterator[Planned]:
        for record in cursors.read(self.place, start, end):
            if record.key == self._role.encode():
                yield Planned(record, self._decode(record.value, record.headers))

    def _wait_until_decided(self, settings: Settings) -> None:
        """Every transaction below the end is committed or aborted; one that nobody ends is, when its time is over."""
        scan, deadline = Scan(settings), time.monotonic() + SILENCE_SECONDS
        try:
            while scan.ends([self.place])[self.place] < self.end:
                if time.monotonic() > deadline:
                    raise Unavailable(f"a transaction on {self.place[0]} stayed open for {SILENCE_SECONDS:g} s")
                time.sleep(0.1)
        finally:
            scan.close()
