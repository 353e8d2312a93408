"""Drives steps without a broker, with two clocks moved by hand: the append time of records, and the ``now`` of polls.

A ``Log`` stands for Kafka; each ``Driver`` runs one step on it as the runner would: polls of a chosen size, one merge and one store a
partition group, all or nothing. Drivers on the same log are a topology.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace.infra.kafka.partition import partition_of
from millrace.schemas.errors import NotNow
from millrace.schemas.event import from_ms
from millrace.schemas.record import Emit, Format, Record, Refused
from millrace.schemas.topics import BY_NAME, Topic
from millrace.schemas.wire import codec
from millrace.streams.merge import Merge
from millrace.streams.step import Batch, Step, Store

CODECS = {name: codec(topic) for name, topic in BY_NAME.items()}
WHOLE = -1
START_MS = 1_700_000_000_000


class MemoryStore:
    """The in-memory twin of a group's store: what was committed, and over it what this transaction wrote."""

    def __init__(self, committed: dict[bytes, bytes] | None = None) -> None:
        self._committed = dict(committed or {})
        self._pending: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._pending[key] if key in self._pending else self._committed.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._pending[key] = value

    def delete(self, key: bytes) -> None:
        self._pending[key] = None

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, value) for key, value in sorted(self._seen().items()) if start <= key < end])

    @property
    def pending(self) -> dict[bytes, bytes | None]:
        """What this transaction wrote so far."""
        return self._pending

    def commit(self) -> None:
        """Keep what this transaction wrote."""
        self._committed, self._pending = self._seen(), {}

    def discard(self) -> None:
        """Forget what this transaction wrote."""
        self._pending = {}

    def image(self) -> dict[bytes, bytes]:
        """What was committed."""
        return dict(self._committed)

    def _seen(self) -> dict[bytes, bytes]:
        merged: dict[bytes, bytes | None] = {**self._committed, **self._pending}
        return {key: value for key, value in merged.items() if value is not None}


class Log:
    """Topics in memory, and the clock of their append times."""

    def __init__(self, partitions: int = 2) -> None:
        self.partitions = partitions
        self.now_ms = START_MS
        self._records: dict[tuple[str, int], list[Record]] = defaultdict(list)

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds

    def append(self, topic: str, key: str, event: Any, form: Format = Format.JSON) -> Record:
        """Append an event as a producer would."""
        value = CODECS[topic].encode(event, form)
        return self.append_raw(topic, partition_of(key, self.partitions), key.encode(), value, CODECS[topic].headers("", form))

    def append_raw(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any = None) -> Record:
        """Append bytes to a partition."""
        records = self._records[(topic, partition)]
        records.append(Record(topic, partition, len(records), self.now_ms, key, value, headers))
        return records[-1]

    def load(self, records: Iterable[Record]) -> None:
        """Take over what stands on real topics, with its own offsets and append times."""
        for record in records:
            self._records[(record.topic, record.partition)].append(record)

    @property
    def last_ms(self) -> int:
        """The newest append time there is."""
        return max((records[-1].appended_ms for records in self._records.values() if records), default=START_MS)

    def end(self, topic: str, partition: int) -> int:
        """How many records a partition holds."""
        return len(self._records[(topic, partition)])

    def read(self, topic: str, partition: int, start: int = 0, records: int = 1 << 30) -> list[Record]:
        """The decoded records from an index on, at most so many, each a fresh object."""
        return [decoded(record) for record in self._records[(topic, partition)][start : start + records]]

    def events(self, topic: str) -> list[Any]:
        """All events of a topic, partition by partition."""
        return [record.event for number in range(self.partitions) for record in self.read(topic, number)]


def decoded(record: Record) -> Record:
    """A fresh copy of a record, decoded."""
    fresh = Record(record.topic, record.partition, record.offset, record.appended_ms, record.key, record.value, record.headers)
    CODECS[record.topic].read(fresh)
    return fresh


def as_bytes(fact: Emit | Refused) -> tuple[str, str, bytes]:
    """A fact as something to compare: topic or ``refused``, key or place, and its bytes."""
    if isinstance(fact, Refused):
        return ("refused", fact.record.place, fact.reason.encode())
    form = fact.cause.form if fact.cause is not None else Format.JSON
    return (fact.topic, fact.key, CODECS[fact.topic].encode(fact.event, form))


@dataclass
class Driver:
    """Runs one step over a log. ``clock_ms`` is the poll's now, apart from the log's clock; ``emitted`` is all that it stated, by group.

    What it emits is appended to ``sink``: the same log makes a topology, none leaves the log as it is.
    """

    log: Log
    step: Step
    inputs: Sequence[Topic]
    stateless: bool = False
    sink: Log | None = None
    clock_ms: int = START_MS
    emitted: dict[int, list[Emit | Refused]] = field(default_factory=lambda: defaultdict(list))
    stores: dict[int, MemoryStore] = field(default_factory=lambda: defaultdict(MemoryStore))

    def __post_init__(self) -> None:
        self._next: dict[tuple[str, int], int] = defaultdict(int)
        self._merges = {number: self._merge() for number in range(self.log.partitions)}

    def poll(self, records: int = 1 << 30, *, tick: bool = True) -> int:
        """Poll once, at most so many records of each partition, and process them; how many there were."""
        taken = {number: self._take(number, records) for number in range(self.log.partitions)}
        self.step.settle()
        if self.stateless:
            self._call(WHOLE, [record for group in taken.values() for record in group], None)
        for number, group in taken.items():
            if not self.stateless:
                self._group(number, group, tick=tick)
        return sum(map(len, taken.values()))

    def drain(self, records: int = 1 << 30) -> None:
        """Poll until nothing is left."""
        while self.poll(records):
            pass

    def restart(self, step: Step) -> None:
        """Go on with a new step object on what was committed, as another process would."""
        self.step = step
        self.stores = defaultdict(MemoryStore, {number: MemoryStore(store.image()) for number, store in self.stores.items()})

    def facts(self) -> list[tuple[str, str, bytes]]:
        """All that was stated, group by group, as comparable bytes."""
        return [as_bytes(fact) for _, group in sorted(self.emitted.items()) for fact in group]

    def _merge(self) -> Merge:
        return Merge(topic.name for topic in self.inputs)

    def _take(self, number: int, records: int) -> list[Record]:
        taken = []
        for topic in self.inputs:
            place = (topic.name, number)
            fresh = self.log.read(*place, self._next[place], records)
            self._next[place] += len(fresh)
            taken += fresh
        return taken

    def _group(self, number: int, records: list[Record], *, tick: bool) -> None:
        merge = self._merges[number]
        merge.push(records)
        ended = {topic.name for topic in self.inputs if self._next[(topic.name, number)] >= self.log.end(topic.name, number)}
        self._call(number, merge.ready(ended), merge.watermark_ms(ended, self.log.now_ms) if tick else None)

    def _call(self, number: int, records: list[Record], watermark_ms: int | None) -> None:
        store, now = self.stores[number], from_ms(self.clock_ms)
        facts: list[Emit | Refused] = []
        try:
            if records:
                facts += self.step.process(Batch(number, records, now), store)
            if watermark_ms is not None:
                facts += self.step.tick(watermark_ms, now, store)
        except BaseException:
            store.discard()
            raise
        store.commit()
        self.emitted[number] += facts
        for fact in facts:
            if isinstance(fact, Emit) and self.sink is not None:
                self.sink.append(fact.topic, fact.partition_by or fact.key, fact.event, fact.cause.form if fact.cause else Format.JSON)


class Failing:
    """A store whose nth write raises: what a call that fails half-way leaves behind is then seen."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store, self._left = store, writes
        self.get, self.scan = store.get, store.scan

    def put(self, key: bytes, value: bytes) -> None:
        self._spend()
        self._store.put(key, value)

    def delete(self, key: bytes) -> None:
        self._spend()
        self._store.delete(key)

    def _spend(self) -> None:
        if not self._left:
            raise NotNow("the store fails here")
        self._left -= 1


def replayed(make: Callable[[], Step], log: Log, inputs: Sequence[Topic], *, stateless: bool, records: int = 1 << 30) -> Driver:
    """A fresh driver that has read the whole log."""
    driver = Driver(log, make(), inputs, stateless)
    driver.drain(records)
    return driver
