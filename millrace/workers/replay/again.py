"""One recorded transaction, run again: the live worker's own processor and output, with the ``now`` and the knowledge that it had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from millrace.infra.kafka.clients import Slot, TopicInfo, full_name
from millrace.infra.kafka.partition import partition_of
from millrace.infra.kafka.positions import Metadata, Position
from millrace.infra.kafka.transaction import Delivery
from millrace.infra.settings import Settings
from millrace.infra.state import GroupStore, Mark
from millrace.schemas.commit import Commit
from millrace.schemas.record import Emit, Headers, Record
from millrace.schemas.topics import Topic
from millrace.streams.compare import Key, headers_of, key_of
from millrace.streams.merge import Merge
from millrace.workers.controls import Controls
from millrace.workers.groups import Group, Spot
from millrace.workers.output import Output
from millrace.workers.replay.known import Stand, Stands
from millrace.workers.turn import Processor, Turn

NO_MARK = Mark("", 0, 0.0)
UNLIMITED = 1 << 62


class Produced(Struct, gc=False):
    """A record as a transaction would have produced it, on the full name of its topic, and the key of its event."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    event: Key


class Again:
    """Runs transactions again, in the order of ``commits``. ``folder`` is for the state of a role that has some: it begins empty."""

    def __init__(self, settings: Settings, infos: Mapping[str, TopicInfo], stands: Stands, folder: Path) -> None:
        self._settings, self._infos, self._stands, self._folder = settings, infos, stands, folder
        self._taken = Taken(infos)
        self._output = Output(settings, self._taken, infos)
        self._stores: dict[int, GroupStore] = {}

    def run(self, commit: Commit, records: list[Record]) -> tuple[list[Produced], list[str]]:
        """What the transaction produces, its own record on ``commits`` last, and why it would wait instead, where it would."""
        stand = self._stands.of(commit)
        processor = self._processor(stand, commit)
        undecodable = processor.decode(records)
        if stand.work.stateless:
            turn = processor.whole(records, undecodable, self._groups(commit), commit.time)
        else:
            turn = self._grouped(processor, stand.work.inputs, commit, records, undecodable)
        stand.check()
        return self._produced([*turn.emits, processor.commit_record(turn)]), [hold.reason for _, hold in turn.holds]

    def close(self) -> None:
        """Close what is open."""
        self._stands.close()
        for store in self._stores.values():
            store.close()

    def _processor(self, stand: Stand, commit: Commit) -> Processor:
        slot = Slot(commit.worker, int(commit.slot.rpartition("-")[2]))
        return Processor(commit.worker, slot, stand.work.step, stand.work.inputs, self._settings, Uncapped(stand.controls, commit.control))

    def _groups(self, commit: Commit) -> dict[int, Group]:
        """The partition groups, standing where the transaction found them."""
        groups: dict[int, Group] = {}
        for number in sorted({taken.partition for taken in commit.inputs} | set(commit.watermarks)):
            groups[number] = Remembered(number, commit.watermarks.get(number))
        for taken in commit.inputs:
            place = (full_name(self._settings, taken.topic), taken.partition)
            groups[taken.partition].positions[place] = Position(taken.start, Metadata(taken.topic_id))
        return groups

    def _grouped(
        self, processor: Processor, inputs: Iterable[Topic], commit: Commit, records: list[Record], undecodable: dict[Spot, str]
    ) -> Turn:
        """As the runner: one call for each group, joined topics in the order of their merge; then the state is what was committed."""
        turn, topics = Turn(commit.time), [topic.name for topic in inputs]
        for number, group in self._groups(commit).items():
            group.store = self._store(number)
            own = [record for record in records if record.partition == number]
            processor.group(group, _merged(topics, own), undecodable, turn)
        for group in turn.touched:
            if group.store is not None:
                group.store.apply(group.store.take(), NO_MARK)
        return turn

    def _store(self, number: int) -> GroupStore:
        if number not in self._stores:
            self._stores[number] = GroupStore(self._folder / str(number))
        return self._stores[number]

    def _produced(self, emits: list[Emit]) -> list[Produced]:
        self._output.emit(emits)
        return [
            Produced(topic, number, key, value, headers, key_of(emit.event))
            for (topic, number, key, value, headers), emit in zip(self._taken.take(), emits, strict=True)
        ]


class Remembered(Group):
    """A partition group whose timers are given the watermark that they were given then, or none."""

    def __init__(self, number: int, watermark_ms: int | None) -> None:
        super().__init__(number)
        self._given_ms = watermark_ms

    def watermark(self, quiet: Iterable[str], quiet_ms: int) -> int:
        """The recorded one."""
        return self._given_ms or 0

    def ticks(self, watermark_ms: int, *, records: bool) -> bool:
        """Whether one is recorded."""
        return self._given_ms is not None


class Uncapped:
    """What was known, without a cap on dead letters: it only ever decides how far a transaction goes, which is on record.

    Of topics that the worker did not follow yet when ``known`` was recorded, nothing was known, and nothing was said.
    """

    def __init__(self, controls: Controls, known: Mapping[str, int]) -> None:
        self.versions = {name: end for name, end in controls.versions.items() if name in known}
        self.lacking = controls.lacking

    def allowed(self, topic: str, partition: int) -> int:
        """Everything."""
        return UNLIMITED


class Taken:
    """Takes records as an open transaction does, with the partition that the producer would compute."""

    def __init__(self, infos: Mapping[str, TopicInfo]) -> None:
        self._infos = infos
        self._records: list[tuple[str, int, bytes | None, bytes | None, Headers]] = []

    def produce(
        self, topic: str, value: bytes | None, key: Any, headers: Any, partition: int = -1, delivered: Delivery | None = None
    ) -> None:
        """Take one record."""
        number = partition_of(key, self._infos[topic].partitions) if partition < 0 else partition
        self._records.append((topic, number, key.encode(), value, headers_of(headers)))

    def take(self) -> list[tuple[str, int, bytes | None, bytes | None, Headers]]:
        """What was taken since the last call, in order."""
        records, self._records = self._records, []
        return records


def _merged(topics: Sequence[str], records: list[Record]) -> list[Record]:
    """The records of one group in the order in which they counted."""
    merge = Merge(topics)
    merge.push(records)
    return merge.ready(topics)
