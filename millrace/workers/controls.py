"""What a worker knows from control topics: read whole before its first record, and followed between two polls."""

from __future__ import annotations

import time
from collections.abc import Iterable

from millrace.infra.kafka.follow import Follower
from millrace.infra.settings import Settings
from millrace.infra.telemetry import AllowanceTaken, ControlIgnored, ControlRead, Telemetry
from millrace.schemas import wire
from millrace.schemas.dead_letter import Allowance
from millrace.schemas.errors import DecodeError, NotNow
from millrace.schemas.record import Record
from millrace.schemas.topics import ALLOWANCES, BY_NAME, Topic
from millrace.streams.step import Step


class Controls:
    """Gives each control record to the step, and keeps the allowances of this role for the runner."""

    def __init__(self, settings: Settings, topics: Iterable[Topic], role: str, step: Step, telemetry: Telemetry) -> None:
        names = {topic.name for topic in topics} | {ALLOWANCES.name}
        self._topics = [BY_NAME[name] for name in sorted(names)]
        self._follower = Follower(settings, self._topics)
        self._codecs = {topic.name: wire.codec(topic) for topic in self._topics}
        self._role = role
        self._step = step
        self._telemetry = telemetry
        self._allowed: dict[tuple[str, int], int] = {}
        self._waiting: list[Record] = []

    @property
    def versions(self) -> dict[str, int]:
        """How far each control topic was taken in: the next offset. A record that waits is not taken in."""
        versions = self._follower.versions
        for record in self._waiting:
            versions[record.topic] = min(versions[record.topic], record.offset)
        return versions

    def allowed(self, topic: str, partition: int) -> int:
        """The last offset of a partition that an operator lets be dead-lettered uncounted; -1 where none was."""
        return self._allowed.get((topic, partition), -1)

    def start(self) -> None:
        """Read all of it."""
        began = time.monotonic()
        records = self._follower.start()
        self._observe(records)
        seconds = time.monotonic() - began
        for topic in self._topics:
            number = sum(record.topic == topic.name for record in records)
            self._telemetry.emit(ControlRead(topic=topic.name, records=number, seconds=seconds))

    def follow(self) -> bool:
        """Take in what is new; True where there was something."""
        records = self._follower.read()
        self._observe(records)
        return bool(records)

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _observe(self, records: list[Record]) -> None:
        """Take records in. Behind one that the step cannot take yet (NotNow) the later ones of its topic wait too."""
        pending, self._waiting = [*self._waiting, *records], []
        blocked: set[str] = set()
        for record in pending:
            if record.topic in blocked or not self._settled(record):
                blocked.add(record.topic)
                self._waiting.append(record)

    def _settled(self, record: Record) -> bool:
        """Whether the record was taken in or ignored; False where it comes again before a later poll."""
        try:
            self._codecs[record.topic].read(record)
            taken = self._take(record)
        except DecodeError as error:
            self._ignore(record, str(error))
        except NotNow:
            return False
        else:
            if not taken:
                self._ignore(record, "it is not the next version: another edit came first, or one before it is missing")
        return True

    def _take(self, record: Record) -> bool:
        if isinstance(record.event, Allowance):
            return self._allow(record.event)
        return self._step.observe(record)

    def _allow(self, allowance: Allowance) -> bool:
        if allowance.worker == self._role:
            place = (allowance.topic, allowance.partition)
            self._telemetry.emit(AllowanceTaken(topic=place[0], partition=place[1], through=allowance.through))
            self._allowed[place] = max(self._allowed.get(place, -1), allowance.through)
        return True

    def _ignore(self, record: Record, reason: str) -> None:
        self._telemetry.emit(ControlIgnored(topic=record.topic, offset=record.offset, reason=reason))
