"""Compare what stands on an output partition with what transactions come to when they are run again.

Two slots' transactions may stand between each other on a partition in any order, which is on no record; those of one slot stand in its own
order, each event behind the one before. So each slot has a queue of what it states, and what is found must be the head of one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from millrace.schemas.errors import DecodeError
from millrace.schemas.record import Headers, Record
from millrace.schemas.topics import BY_NAME
from millrace.schemas.wire import codec

LOOKAHEAD = 2_000
"""So many records are held aside, or stated and not found, before the first of them is given up."""
Key = tuple[str, datetime | None]
"""An event's id and time: copies of one request have the same id, and one transaction's events its own ``now``."""


class Stated(Struct, gc=False):
    """What a transaction comes to on one partition: the record's bytes, and the event's key. ``cause`` is where its commit stands."""

    cause: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    event: Key


class Difference(Struct, frozen=True):
    """Where a log and a replay differ: the place, the transaction on ``commits`` where one is known, and what differs."""

    topic: str
    partition: int
    offset: int | None
    commit: str | None
    what: str

    @property
    def place(self) -> str:
        """As text, e.g. ``predictions/3@120``; without an offset where the log has nothing."""
        return f"{self.topic}/{self.partition}" + ("" if self.offset is None else f"@{self.offset}")


def key_of(event: Any) -> Key:
    """What tells an event from every other."""
    return event.id, getattr(event, "time", None)


def headers_of(headers: Iterable[tuple[str, Any]] | None) -> Headers:
    """Headers as bytes, as they stand on a log."""
    return [(name, value.encode() if isinstance(value, str) else value or b"") for name, value in headers or ()]


class Reader:
    """Decodes what was found, where it must be known whose it is."""

    def __init__(self) -> None:
        self._codecs = {name: codec(topic) for name, topic in BY_NAME.items()}

    def event(self, record: Record) -> Any:
        """The record's event, or None where it cannot be decoded."""
        if record.event is None:
            try:
                self._codecs[record.topic].read(record)
            except DecodeError:
                return None
        return record.event

    def key(self, record: Record) -> Key | None:
        """The key of the record's event, where it can be decoded."""
        event = self.event(record)
        return None if event is None else key_of(event)

    def differing(self, stated: Stated, record: Record) -> str:
        """What differs between a record and what a transaction states in its place, by field; empty where it is the same bytes."""
        parts = []
        if record.key != stated.key:
            parts.append(f"the key is {record.key!r}, the replay says {stated.key!r}")
        if headers_of(record.headers) != stated.headers:
            names = sorted({name for name, _ in set(headers_of(record.headers)) ^ set(stated.headers)})
            parts.append(f"headers: {', '.join(names) or 'their order'}")
        if record.value != stated.value:
            parts.append(_fields(record.value, stated.value))
        return "; ".join(parts)


def same(stated: Stated, record: Record) -> bool:
    """Whether the record is, byte by byte, what is stated."""
    if record.value != stated.value or record.key != stated.key:
        return False
    return record.headers == stated.headers or headers_of(record.headers) == stated.headers


class Queue:
    """What one slot states for one partition and was not found yet, in order."""

    def __init__(self) -> None:
        self.stated: deque[Stated] = deque()
        self.met = False
        """Whether anything of this slot was found on the partition."""
        self._events: set[Key] = set()

    def push(self, stated: Iterable[Stated]) -> None:
        """Expect these behind what is expected already."""
        for one in stated:
            self.stated.append(one)
            self._events.add(one.event)

    def pop(self) -> Stated:
        """Expect the first no longer."""
        one = self.stated.popleft()
        if not self.stated:
            self._events.clear()
        return one

    def expects(self, event: Key) -> bool:
        """Whether an event is among what is expected."""
        return event in self._events and any(one.event == event for one in self.stated)


class Lane:
    """One output partition. ``found`` are its records in order; those from ``judged_end`` on may belong to later transactions.

    ``elsewhere`` says of an event whether it is known to come from another transaction or worker. Of a log that is ``cut`` off at its
    start, what is missing before the first find of a slot was dropped by retention. ``tell`` is given each difference.
    """

    def __init__(
        self,
        place: tuple[str, int],
        found: Iterator[Record],
        judged_end: int,
        reader: Reader,
        elsewhere: Callable[[Any], bool],
        tell: Callable[[Difference], None],
    ) -> None:
        self.equal = 0
        self.dropped = 0
        self.elsewhere = 0
        self.cut = False
        self._place, self._found, self._judged_end, self._is_elsewhere, self._tell = place, found, judged_end, elsewhere, tell
        self._reader = reader
        self._queues: dict[str, Queue] = {}
        self._aside: deque[Record] = deque()

    def expect(self, slot: str, stated: list[Stated]) -> None:
        """A slot's next events, and everything up to them looked at; what does not fit yet is held aside, and little of it."""
        queue = self._queues.setdefault(slot, Queue())
        queue.push(stated)
        self._aside = deque(record for record in self._aside if not self._fits(record))
        while len(self._aside) >= LOOKAHEAD:
            self._judge(self._aside.popleft())
        while queue.stated and len(self._aside) < LOOKAHEAD and (record := next(self._found, None)) is not None:
            self._look_at(record)
        while len(queue.stated) > LOOKAHEAD:
            self._miss(queue, queue.pop())

    def finish(self) -> None:
        """Nothing more is expected: look at the rest of the log."""
        while self._aside:
            self._judge(self._aside.popleft())
        for record in self._found:
            if not self._fits(record):
                self._judge(record)
            if record.offset + 1 >= self._judged_end and not any(queue.stated for queue in self._queues.values()):
                break
        for queue in self._queues.values():
            while queue.stated:
                self._miss(queue, queue.pop())

    def _look_at(self, record: Record) -> None:
        if self._fits(record):
            return
        if self._is_elsewhere(self._reader.event(record)):
            self.elsewhere += 1
        else:
            self._aside.append(record)

    def _fits(self, record: Record) -> bool:
        """Whether the record is what some slot states next, or a later one of it; what stood before that is missing."""
        for queue in self._queues.values():
            if queue.stated and same(queue.stated[0], record):
                queue.pop()
                queue.met, self.equal = True, self.equal + 1
                return True
        key = self._reader.key(record)
        for queue in self._queues.values():
            if key is not None and queue.expects(key):
                while (stated := queue.pop()).event != key:
                    self._miss(queue, stated)
                queue.met = True
                self._pair(stated, record)
                return True
        return False

    def _pair(self, stated: Stated, record: Record) -> None:
        if what := self._reader.differing(stated, record):
            self._tell(Difference(record.topic, record.partition, record.offset, stated.cause, what))
        else:
            self.equal += 1

    def _miss(self, queue: Queue, stated: Stated) -> None:
        if self.cut and not queue.met:
            self.dropped += 1
            return
        self._tell(Difference(*self._place, None, stated.cause, f"the event {stated.event[0]} is not there"))

    def _judge(self, record: Record) -> None:
        """A record that fits nowhere."""
        if record.offset >= self._judged_end:
            return
        if self._is_elsewhere(self._reader.event(record)):
            self.elsewhere += 1
            return
        self._tell(Difference(record.topic, record.partition, record.offset, None, "no transaction comes to this record"))


def _fields(found: bytes | None, stated: bytes | None) -> str:
    """The fields in which two values differ, with what they say."""
    one, other = _plain(found), _plain(stated)
    if not isinstance(one, dict) or not isinstance(other, dict):
        return "the value cannot be read"
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    told = [f"{name} is {_short(one.get(name))}, the replay says {_short(other.get(name))}" for name in names]
    return "; ".join(told) or "the same fields, written differently"


def _plain(value: bytes | None) -> Any:
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            return msgspec.to_builtins(decode(value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
