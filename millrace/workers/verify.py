"""Compare every record that a committed reader sees with the rows of its table, over [log start, as-of).

As-of is the end of each log when it begins; it waits for the archiver to pass it. Rows below the log's start are not judged: the log
no longer has what they came from; neither are unknown rows of a compacted topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.store import Span, Store
from millrace.infra.kafka.clients import TopicInfo, describe, full_name
from millrace.infra.kafka.offsets import committed
from millrace.infra.kafka.positions import Place
from millrace.infra.kafka.scan import Dropped, Scan
from millrace.infra.settings import Settings
from millrace.schemas.errors import UsageError
from millrace.schemas.topics import TOPICS, Kind, Topic
from millrace.streams.reconcile import Difference, Run, above, total

ROLE = "archiver"
CHUNK_OFFSETS = 50_000
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2


class Checked(Struct, frozen=True):
    """One partition: its records and rows in [start, end), and the offsets at which they differ."""

    topic: str
    partition: int
    start: int
    end: int
    records: int
    rows: int
    missing: int
    duplicated: int
    unknown: int
    where: dict[str, list[Run]]
    """The first few places of each kind of difference."""

    @property
    def clean(self) -> bool:
        return not (self.missing or self.duplicated or self.unknown)


class Report(Struct, frozen=True):
    """All partitions, their sums, and how many of them the archiver had not caught up with in time."""

    partitions: list[Checked]
    records: int
    rows: int
    missing: int
    duplicated: int
    unknown: int
    behind: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether every record is one row and every row is a record."""
        return not (self.missing or self.duplicated or self.unknown)


def verify(settings: Settings, wait_seconds: float = WAIT_SECONDS, say: Callable[[str], None] = lambda text: None) -> Report:
    """Compare all topics. Raises UsageError where a topic does not exist, Unavailable without Kafka or ClickHouse."""
    began = time.monotonic()
    names = {full_name(settings, topic): topic for topic in TOPICS}
    infos = describe(settings, list(names))
    if absent := sorted(set(names) - set(infos)):
        raise UsageError(f"topics do not exist: {', '.join(absent)}. Run `millrace provision`.")
    store = Store(Client(settings.clickhouse), settings.archiver.insert_timeout_seconds)
    scan = Scan(settings)
    try:
        ends = scan.ends((name, number) for name, info in infos.items() for number in range(info.partitions))
        behind = _wait(settings, infos, ends, time.monotonic() + wait_seconds)
        say(f"comparing {len(ends)} partitions of {len(infos)} topics")
        checked = Comparison(scan, store, {place: (names[place[0]], infos[place[0]].topic_id) for place in ends}).check(ends)
    finally:
        scan.close()
    return _sum(checked, len(behind), time.monotonic() - began)


def _wait(settings: Settings, infos: dict[str, TopicInfo], ends: dict[Place, int], deadline: float) -> list[Place]:
    """Wait until the archiver has passed these ends; the places where it had not, at the deadline."""
    while True:
        known = committed(settings, ROLE, infos)
        behind = [place for place, end in ends.items() if known[place] < end]
        if not behind or time.monotonic() > deadline:
            return behind
        time.sleep(POLL_SECONDS)


class Comparison:
    """Compares partitions, many at a time; each place comes with its topic and the topic's id."""

    def __init__(self, scan: Scan, store: Store, topics: Mapping[Place, tuple[Topic, str]]) -> None:
        self._scan = scan
        self._store = store
        self._topics = topics

    def check(self, ends: Mapping[Place, int]) -> list[Checked]:
        """All partitions up to these ends; one begins again where its log drops what is being read."""
        checked: dict[Place, Checked] = {}
        todo = set(ends)
        while todo:
            starts = self._scan.starts(todo)
            spans = {place: (min(starts[place], ends[place]), ends[place]) for place in todo}
            found = self._compared(spans)
            still = self._scan.starts(found)
            checked |= {place: self._judged(place, spans[place], one, still[place]) for place, one in found.items()}
            todo -= found.keys()
        return [checked[place] for place in sorted(checked)]

    def _compared(self, spans: Mapping[Place, tuple[int, int]]) -> dict[Place, Difference]:
        """What differs on each partition that could be read to its end."""
        found = {place: Difference() for place in spans}
        for read in self._scan.offsets(spans, CHUNK_OFFSETS):
            if isinstance(read, Dropped):
                del found[read.place]
                continue
            topic, topic_id = self._topics[read.place]
            found[read.place].add(read.offsets, self._store.present(Span(topic.name, topic_id, read.place[1], read.low, read.high)))
        return found

    def _judged(self, place: Place, span: tuple[int, int], found: Difference, log_start: int) -> Checked:
        return _judged(self._topics[place][0], place[1], span, found, log_start)


def _judged(topic: Topic, partition: int, span: tuple[int, int], found: Difference, log_start: int) -> Checked:
    unknown = [] if topic.kind is Kind.COMPACTED else above(found.unknown, log_start)
    missing = above(found.missing, log_start)
    where = {"missing": missing, "duplicated": found.duplicated, "unknown": unknown}
    return Checked(
        topic.name,
        partition,
        *span,
        found.records,
        found.rows,
        total(missing),
        total(found.duplicated),
        total(unknown),
        {kind: runs[:5] for kind, runs in where.items() if runs},
    )


def _sum(checked: list[Checked], behind: int, seconds: float) -> Report:
    return Report(
        checked,
        sum(one.records for one in checked),
        sum(one.rows for one in checked),
        sum(one.missing for one in checked),
        sum(one.duplicated for one in checked),
        sum(one.unknown for one in checked),
        behind,
        seconds,
    )
