"""Run again what stands on ``commits``: each transaction over the records that it took in, with the control versions and the ``now`` that
it had, and compare what comes of it with what is on the log, byte by byte.

Beside a live stack: what is compared ends where the logs end at the start. It joins no group and writes nothing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.kafka.clients import TopicInfo, describe, full_name
from millrace.infra.kafka.cursors import Cursors, Gone
from millrace.infra.kafka.positions import Place
from millrace.infra.kafka.scan import Scan
from millrace.infra.settings import Settings
from millrace.infra.telemetry import Telemetry
from millrace.schemas.commit import Commit
from millrace.schemas.errors import Stop, Unavailable, UsageError
from millrace.schemas.record import Record
from millrace.schemas.topics import COMMITS, TOPICS
from millrace.streams.compare import Difference, Lane, Reader, Stated
from millrace.workers.replay.again import Again, Produced
from millrace.workers.replay.known import Stand, Stands
from millrace.workers.replay.roles import ROLES, Role
from millrace.workers.replay.schedule import Planned, Schedule, Window

__all__ = ["ROLES", "Report", "Role", "Window", "replay"]

SHOWN = 20
REMEMBERED = 200_000


class Report(Struct, frozen=True):
    """How many transactions and events were run again and are the same, and the first of those that are not.

    ``gone`` transactions could not be run: what they took in is not on the log any more. ``dropped`` events came out, but the log has
    let go of those that they are to be compared with.
    """

    role: str
    transactions: int
    transactions_equal: int
    events: int
    events_equal: int
    differences: int
    gone: int
    dropped: int
    first: list[Difference]
    why_gone: str
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def replay(settings: Settings, role: Role, window: Window = Window()) -> Report:
    """Replay a role. Raises UsageError where topics are missing or a role with state has lost its beginning, Unavailable without Kafka."""
    infos = describe(settings, [full_name(settings, topic) for topic in TOPICS])
    if absent := sorted({full_name(settings, topic) for topic in TOPICS} - set(infos)):
        raise UsageError(f"topics do not exist: {', '.join(absent)}. Run `millrace provision`.")
    with tempfile.TemporaryDirectory(prefix="millrace-replay-") as folder, Path(os.devnull).open("w") as nowhere:
        telemetry = Telemetry(role.name, "replay", replace(settings.telemetry, port=0), nowhere)

        def stand() -> Stand:
            return Stand(settings, telemetry, *role.make(settings, telemetry))

        again = Again(settings, infos, Stands(stand), Path(folder))
        run = Run(settings, role, infos, again)
        try:
            return run.over(window)
        finally:
            run.close()


class Run:
    """One replay, from its fixed ends to its report."""

    def __init__(self, settings: Settings, role: Role, infos: dict[str, TopicInfo], again: Again) -> None:
        names = {full_name(settings, topic): topic.name for topic in TOPICS}
        self._settings, self._role, self._infos, self._again = settings, role, infos, again
        self._cursors, self._outputs = Cursors(settings, names), Cursors(settings, names)
        self._names = names
        places = [(full_name(settings, topic), number) for topic in role.outputs for number in self._numbers(full_name(settings, topic))]
        # What stands below these ends was committed by transactions below the schedule's end, which is taken afterwards; and all that those
        # have written stands below the ends that are taken last.
        self._judged = _committed_ends(settings, places)
        self._schedule = Schedule(settings, role.name, infos[full_name(settings, COMMITS)], self._cursors, self._outputs)
        self._extents = {place: self._outputs.extent(place) for place in places}
        self._lanes: dict[Place, Lane] = {}
        self._reader = Reader()
        self._not_run = Recent(REMEMBERED)
        self._found: list[Difference] = []
        self._count = Counts()

    def over(self, window: Window) -> Report:
        """Replay the transactions of a window."""
        began = time.monotonic()
        if self._role.stateful and (self._schedule.start > 0 or not window.whole):
            raise UsageError(
                f"{self._role.name} keeps state, which is built from its first transaction on: replay all, while commits has all"
            )
        for planned in self._schedule.planned(window):
            self._one(planned)
        for lane in self._lanes.values():
            lane.finish()
        return self._report(time.monotonic() - began)

    def close(self) -> None:
        """Close what is open."""
        self._again.close()
        self._cursors.close()
        self._outputs.close()

    def _one(self, planned: Planned) -> None:
        try:
            records = self._taken_in(planned.commit)
        except Gone as error:
            self._skip(planned, str(error))
            return
        if not self._lanes:
            self._open(planned)
        produced, waits = self._again.run(planned.commit, records)
        for reason in waits:
            self._tell(self._about(planned, f"the replay would wait: {reason}"))
        self._compare(planned, produced)

    def _taken_in(self, commit: Commit) -> list[Record]:
        """The records that a transaction took in. Raises Gone."""
        records: list[Record] = []
        for taken in commit.inputs:
            name = full_name(self._settings, taken.topic)
            if name not in self._infos or self._infos[name].topic_id != taken.topic_id:
                raise Gone(f"{name} was made anew since")
            records += self._cursors.read((name, taken.partition), taken.start, taken.end)
        return records

    def _skip(self, planned: Planned, reason: str) -> None:
        if self._role.stateful:
            raise UsageError(f"{self._role.name} keeps state, which is built from all that it took in, and that is gone: {reason}")
        self._count.gone += 1
        self._count.why_gone = self._count.why_gone or reason
        self._not_run.add(planned.commit.time)

    def _open(self, first: Planned) -> None:
        """Begin to read the outputs: from the start of the logs with the first transaction of all, else where its records may begin."""
        starts = {place: extent[0] for place, extent in self._extents.items()}
        if not self._schedule.is_first(first):
            for now in self._schedule.before(first):
                self._not_run.add(now)
            found = self._outputs.at_times(dict.fromkeys(starts, self._schedule.appended_since(first)))
            starts = {place: max(start, found[place]) for place, start in starts.items()}
        for place, start in starts.items():
            low, end = self._extents[place]
            lane = Lane(
                (self._names[place[0]], place[1]),
                self._standing(place, start, end),
                self._judged[place],
                self._reader,
                self._elsewhere,
                self._tell,
            )
            lane.cut = start == low > 0
            self._lanes[place] = lane

    def _standing(self, place: Place, start: int, end: int) -> Iterator[Record]:
        try:
            yield from self._outputs.read(place, start, end)
        except Gone as error:
            raise Unavailable(f"{error}: retention dropped it while it was compared; run this again") from None

    def _compare(self, planned: Planned, produced: list[Produced]) -> None:
        *events, own = produced
        self._count.transactions += 1
        self._count.events += len(produced)
        stated: dict[Place, list[Stated]] = {}
        for event in events:
            stated.setdefault((event.topic, event.partition), []).append(_stated(event, planned))
        for place, some in stated.items():
            if place not in self._lanes:
                raise Stop(f"{self._role.name} writes to {place[0]}/{place[1]}, which is not among the outputs that are compared")
            self._lanes[place].expect(planned.commit.slot, some)
        if what := self._reader.differing(_stated(own, planned), planned.record):
            self._tell(self._about(planned, what))
        else:
            self._count.commits_equal += 1

    def _about(self, planned: Planned, what: str) -> Difference:
        record = planned.record
        return Difference(record.topic, record.partition, record.offset, record.place, what)

    def _tell(self, difference: Difference) -> None:
        self._count.differences += 1
        if difference.commit is not None:
            self._count.differing.add(difference.commit)
        if len(self._found) < SHOWN:
            self._found.append(difference)

    def _elsewhere(self, event: Any) -> bool:
        """Whether an event is another role's, or comes from a transaction that is not run again: each has its own ``now``."""
        if event is None:
            return False
        return getattr(event, "worker", self._role.name) != self._role.name or event.time in self._not_run or self._role.others(event)

    def _numbers(self, name: str) -> range:
        return range(self._infos[name].partitions)

    def _report(self, seconds: float) -> Report:
        count, lanes = self._count, self._lanes.values()
        return Report(
            role=self._role.name,
            transactions=count.transactions,
            transactions_equal=count.transactions - len(count.differing),
            events=count.events,
            events_equal=count.commits_equal + sum(lane.equal for lane in lanes),
            differences=count.differences,
            gone=count.gone,
            dropped=sum(lane.dropped for lane in lanes),
            first=self._found,
            why_gone=count.why_gone,
            seconds=seconds,
        )


class Counts:
    """What was counted so far."""

    def __init__(self) -> None:
        self.transactions = 0
        self.events = 0
        self.commits_equal = 0
        self.differences = 0
        self.differing: set[str] = set()
        self.gone = 0
        self.why_gone = ""


class Recent:
    """The last so many times that were added."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: OrderedDict[datetime, None] = OrderedDict()

    def __contains__(self, time: datetime) -> bool:
        return time in self._times

    def add(self, time: datetime) -> None:
        """Remember one, and forget the first where there are too many."""
        self._times[time] = None
        if len(self._times) > self._limit:
            self._times.popitem(last=False)


def _stated(produced: Produced, planned: Planned) -> Stated:
    return Stated(planned.record.place, produced.key, produced.value, produced.headers, produced.event)


def _committed_ends(settings: Settings, places: list[Place]) -> dict[Place, int]:
    scan = Scan(settings)
    try:
        return scan.ends(places)
    finally:
        scan.close()
