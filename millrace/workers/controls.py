"""What a worker knows from control topics: read whole before its first record, and followed between two polls."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from millrace.infra.kafka.follow import Follower
from millrace.infra.settings import Settings
from millrace.infra.telemetry import AllowanceTaken, ControlIgnored, ControlRead, Lacking, Telemetry
from millrace.schemas import wire
from millrace.schemas.dead_letter import Allowance
from millrace.schemas.errors import DecodeError
from millrace.schemas.record import Record
from millrace.schemas.topics import ALLOWANCES, BY_NAME, Kind, Topic
from millrace.streams.step import Step

REASONS = {
    Kind.CONTROL: "it is not the next version (another edit came first, or one before it is missing), or none that a worker can go by",
    Kind.FOLLOWED: "it is not newer than what is known",
}
"""Why a step takes no notice of a record that it could read."""


class Source(Protocol):
    """Where control records come from, in order: the topics as they grow, or, in a replay, as far as they had grown."""

    @property
    def versions(self) -> dict[str, int]: ...

    def start(self) -> list[Record]: ...

    def read(self) -> list[Record]: ...

    def close(self) -> None: ...


class Controls:
    """Gives each control record to the step, and keeps the allowances of this role for the runner."""

    def __init__(
        self, settings: Settings, topics: Iterable[Topic], role: str, step: Step, telemetry: Telemetry, source: Source | None = None
    ) -> None:
        self._topics = followed(topics)
        self._follower = source or Follower(settings, self._topics)
        self._codecs = {topic.name: wire.codec(topic) for topic in self._topics}
        self._role = role
        self._step = step
        self._telemetry = telemetry
        self._allowed: dict[tuple[str, int], int] = {}
        self.lacking: Mapping[str, str] = {}
        """What was taken in and cannot be used yet, name to reason: as the step said last."""

    @property
    def versions(self) -> dict[str, int]:
        """How far each control topic was taken in: the next offset."""
        return self._follower.versions

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
        """Take in what is new, and what became usable; True where something new was there."""
        records = self._follower.read()
        self._observe(records)
        return bool(records)

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _observe(self, records: list[Record]) -> None:
        for record in records:
            try:
                self._codecs[record.topic].read(record)
                taken = self._take(record)
            except DecodeError as error:
                self._ignore(record, str(error))
            else:
                if not taken:
                    self._ignore(record, REASONS[BY_NAME[record.topic].kind])
        self._settle()

    def _settle(self) -> None:
        """Tell of what is lacking now and was not, and the other way round."""
        before, self.lacking = self.lacking, self._step.settle()
        if before.keys() != self.lacking.keys():
            self._telemetry.emit(Lacking(names=sorted(self.lacking), gone=sorted(before.keys() - self.lacking.keys())))
        if before != self.lacking:
            self._telemetry.health.note("; ".join(self.lacking.values()))

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


def followed(topics: Iterable[Topic]) -> list[Topic]:
    """The control topics that a worker follows: its own, and the allowances."""
    return [BY_NAME[name] for name in sorted({topic.name for topic in topics} | {ALLOWANCES.name})]
