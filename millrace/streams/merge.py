"""Joined topics in one order: by append time, so that a backlog is read as live traffic was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from millrace.schemas.record import Record

Order = tuple[int, int, str]
_topic = attrgetter("topic")


class Merge:
    """The held-aside records of one partition group's inputs, given out in the order (append time, input, offset).

    A record may go when every other input either holds a record to compare with, or is known to be quiet: it was read up to an end that was
    asked for after the record had come, so whatever is appended to it later has a later append time.

    >>> merge = Merge(["a", "b"])
    >>> merge.push([Record("a", 0, 0, 5, None, None), Record("b", 0, 0, 3, None, None)])
    >>> [record.topic for record in merge.ready()]
    ['b']
    >>> [record.topic for record in merge.ready({"b"})]
    ['a']
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._held: dict[str, deque[Record]] = {topic: deque() for topic in topics}
        self._rank = {topic: rank for rank, topic in enumerate(self._held)}
        self._last_ms = dict.fromkeys(self._held, 0)

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def push(self, records: Iterable[Record]) -> None:
        """Take in records, each input's in the order of its offsets."""
        for topic, same in groupby(records, _topic):
            self._held[topic].extend(same)

    def waiting_for(self) -> set[str]:
        """The empty inputs that keep held records back: whose end must be asked for."""
        return {topic for topic, held in self._held.items() if not held} if len(self) else set()

    def ready(self, quiet: Iterable[str] = ()) -> list[Record]:
        """Take out all records whose turn is certain. ``quiet`` inputs are known to hold nothing earlier than what was pushed."""
        silent, out = set(quiet), list[Record]()
        while (topic := self._next(silent)) is not None:
            self._take(topic, out)
        return out

    def watermark_ms(self, quiet: Iterable[str] = (), quiet_ms: int = 0) -> int:
        """No record given out later has an append time below this. A quiet, empty input's own mark is ``quiet_ms``."""
        silent = set(quiet)
        return min(self._mark(topic, silent, quiet_ms) for topic in self._held)

    def _mark(self, topic: str, silent: set[str], quiet_ms: int) -> int:
        if self._held[topic]:
            return self._held[topic][0].appended_ms
        return max(quiet_ms, self._last_ms[topic]) if topic in silent else self._last_ms[topic]

    def _take(self, topic: str, out: list[Record]) -> None:
        """Take out the first record of a topic, and those behind it that come before every other topic's first."""
        held, rank = self._held[topic], self._rank[topic]
        others = [(other[0].appended_ms, self._rank[name]) for name, other in self._held.items() if other and name != topic]
        upper = min(others, default=None)
        record = held.popleft()
        out.append(record)
        while held and (upper is None or (held[0].appended_ms, rank) < upper):
            record = held.popleft()
            out.append(record)
        self._last_ms[topic] = record.appended_ms

    def _next(self, silent: set[str]) -> str | None:
        """The topic whose record's turn it is; None where nothing is held, or an input that is not quiet has nothing to compare with."""
        heads: list[Order] = []
        for topic, held in self._held.items():
            if held:
                heads.append((held[0].appended_ms, self._rank[topic], topic))
            elif topic not in silent:
                return None
        return min(heads)[2] if heads else None
