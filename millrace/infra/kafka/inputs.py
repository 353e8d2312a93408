"""The topics that a worker reads as a member of its group: assignment, polls, pauses and rewinds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from msgspec import Struct

from millrace.infra.kafka.clients import ANSWER_SECONDS, Slot, TopicInfo, admin, describe, full_name, group_consumer
from millrace.infra.kafka.ends import LogEnds
from millrace.infra.kafka.headers import headers_of
from millrace.infra.kafka.identity import Identity
from millrace.infra.kafka.positions import Place, Position, Remedies, committed, with_metadata
from millrace.infra.kafka.triage import FORBIDDEN, fenced, passing
from millrace.infra.settings import Settings
from millrace.schemas.errors import Fenced, MillraceError, NotCoPartitioned, OffsetsLost, Stop, Unavailable
from millrace.schemas.record import Record
from millrace.schemas.topics import Topic

LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""What a reader is told of a topic that was deleted; and of one that the broker which it asked has not heard of yet."""
SEEK_TRIES = 40
POSITIONS_SECONDS = 60.0
DROP_RECORDS = 10_000


class Listener(Protocol):
    """Who is told of a change in the assignment, from inside a poll."""

    def assigned(self, positions: dict[Place, Position]) -> None:
        """These partitions are ours now, from these positions."""
        ...

    def revoked(self, places: list[Place], *, lost: bool) -> None:
        """These partitions are about to be somebody else's, or (``lost``) already are."""
        ...


class Poll(Struct):
    """What one poll brought: records in arrival order, and places read up to an end, with the offset of that end."""

    records: list[Record]
    ends: dict[Place, int]


class Told(Struct):
    """What Kafka told of some logs: an offset of each place, and why the others have none."""

    offsets: dict[Place, int]
    silent: dict[Place, str]


def at_positions(positions: Mapping[Place, Position]) -> dict[Place, int]:
    """Read on from the committed offsets."""
    return {place: position.offset for place, position in positions.items()}


class Reading(Struct, frozen=True, kw_only=True):
    """How a group reads its topics.

    ``co_partitioned``: they are joined and must be so. ``begin`` says from which offsets to read, given the committed positions.
    ``remedies`` are what the errors name, where they are not those of every role.
    """

    co_partitioned: bool = True
    begin: Callable[[Mapping[Place, Position]], dict[Place, int]] = at_positions
    remedies: Remedies | None = None


class Inputs:
    """A static member of the role's group over one or more topics."""

    def __init__(self, settings: Settings, slot: Slot, topics: Iterable[Topic], listener: Listener, reading: Reading | None = None) -> None:
        self._settings = settings
        self._listener = listener
        self._reading = reading or Reading()
        self.remedies = self._reading.remedies or Remedies.of(slot.role)
        self._names = {full_name(settings, topic): topic.name for topic in topics}
        self._infos: dict[str, TopicInfo] = {}
        self._consumer: Consumer = group_consumer(settings, slot)
        self._admin = admin(settings)
        self.log_ends = LogEnds(self._admin)
        self._gathered: list[Message] = []
        self._owned: set[Place] = set()
        self.joined = False
        """Whether the group ever gave this member an assignment, be it an empty one."""
        self.uncommitted = ""
        """Why the last commit without a transaction was not taken; empty where it was."""
        self._error: MillraceError | None = None

    @property
    def owned(self) -> frozenset[Place]:
        """The places assigned to this member."""
        return frozenset(self._owned)

    @property
    def group_metadata(self) -> Any:
        """The group's generation as it is now: what fences a commit."""
        return self._consumer.consumer_group_metadata()

    def short(self, name: str) -> str:
        """A topic's name without the prefix."""
        return self._names[name]

    def topic_id(self, name: str) -> str:
        """The id of a topic, by its full name."""
        return self._infos[name].topic_id

    def start(self) -> None:
        """Look the topics up and join the group. Raises Stop where one does not exist or joined ones differ in partitions."""
        self._infos = describe(self._settings, list(self._names))
        missing = sorted(set(self._names) - set(self._infos))
        if missing:
            raise Stop(f"topics do not exist: {', '.join(missing)}. Run `millrace provision`.")
        counts = {name: info.partitions for name, info in self._infos.items()}
        if self._reading.co_partitioned and len(set(counts.values())) > 1:
            raise NotCoPartitioned(f"joined topics must have the same number of partitions, these have {counts}")
        self.identity = Identity(self._admin, self._infos, self.remedies)
        self._consumer.subscribe(list(self._names), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, records: int, idle_seconds: float, gather_seconds: float) -> Poll:
        """Block up to ``idle_seconds`` for a first record, then take what arrives within ``gather_seconds`` of it, at most ``records``."""
        self._gathered = []
        self._take(1, idle_seconds)
        if self._gathered:
            self._take(records - 1, 0)
            if len(self._gathered) < records and gather_seconds:
                time.sleep(gather_seconds)
                self._take(records - len(self._gathered), 0)
        messages, self._gathered = self._gathered, []
        return self._poll_of(messages)

    def pause(self, places: Iterable[Place]) -> None:
        """Fetch no more of these for now."""
        self._consumer.pause(_partitions(set(places) & self._owned))

    def resume(self, places: Iterable[Place]) -> None:
        """Fetch these again."""
        self._consumer.resume(_partitions(set(places) & self._owned))

    def rewind(self, offsets: dict[Place, int]) -> None:
        """Read these places again from their offsets."""
        for place, offset in offsets.items():
            if place in self._owned:
                self._seek(TopicPartition(*place, offset))

    def committed(self) -> dict[Place, Position]:
        """The committed positions of all that is owned, after pending transactions were decided; waits for Kafka as long as it takes.

        Polls meanwhile and drops what comes, which is read again from these positions: a client that does not poll can lose its only
        broker for good, because fetched records hold on to one that left the metadata for a moment and its successor waits for them.
        """
        while (positions := self._committed(sorted(self._owned), 2.0)) is None:
            self._gathered = []
            self._take(DROP_RECORDS, 0.1)
        return positions

    def ends(self, places: Iterable[Place]) -> Told:
        """The end offsets as they are now, pending transactions included."""
        latest: Any = OffsetSpec.latest
        return self._offsets(places, latest())

    def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset that each log still holds. A place that does not answer is left out."""
        earliest: Any = OffsetSpec.earliest
        return self._offsets(places, earliest()).offsets

    def commit(self, positions: Mapping[Place, Position]) -> frozenset[Place]:
        """Commit without a transaction; the places for which it certainly happened. The group's generation fences it: raises Fenced.

        A commit that is refused for its generation did not happen: the rebalance that follows tells what is still ours. Raises Stop for
        what no repeat can mend.
        """
        offsets = [with_metadata(place, position) for place, position in positions.items()]
        try:
            answers = self._consumer.commit(offsets=offsets, asynchronous=False) or []
        except KafkaException as error:
            self._uncommitted(error.args[0])
            return frozenset()
        self.uncommitted = ""
        for answer in answers:
            if answer.error is not None:
                self._uncommitted(answer.error)
        return frozenset((answer.topic, answer.partition) for answer in answers if answer.error is None)

    def _uncommitted(self, error: KafkaError) -> None:
        _raise_fenced(error)
        if error.code() in FORBIDDEN:
            raise Stop(f"Kafka takes no commit of this group: {error.str()}")
        self.uncommitted = error.str()

    def close(self) -> None:
        """Leave the poll loop; as a static member the partitions stay this slot's until the session ends."""
        self._consumer.close()

    def _offsets(self, places: Iterable[Place], which: Any) -> Told:
        told = Told({}, {})
        wanted = {TopicPartition(*place): which for place in places}
        if not wanted:
            return told
        futures = self._admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ANSWER_SECONDS)
        for part, future in futures.items():
            try:
                told.offsets[(part.topic, part.partition)] = int(future.result().offset)
            except KafkaException as error:
                told.silent[(part.topic, part.partition)] = error.args[0].str()
        return told

    def _seek(self, target: TopicPartition) -> None:
        """Seek; a partition that was assigned a moment ago refuses until its fetcher runs."""
        for attempt in range(SEEK_TRIES):
            try:
                self._consumer.seek(target)
                return
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE or attempt == SEEK_TRIES - 1:
                    self._look_for_fence()
                    raise Stop(f"cannot go back to offset {target.offset} of {target.topic}/{target.partition}: {error}") from None
                time.sleep(0.05)

    def _look_for_fence(self) -> None:
        """A client that was fenced refuses everything, and tells why in a poll alone. What comes beside that is dropped: we stop."""
        self._take(DROP_RECORDS, 0.1)
        for message in self._gathered:
            _raise_fenced(message.error())

    def _take(self, number: int, seconds: float) -> None:
        try:
            messages = self._consumer.consume(number, seconds) if number else []
        except KafkaException as error:
            self._raise(error.args[0], "the group")
            messages = []
        if self._error is not None:
            raise self._error
        self._gathered.extend(messages)

    def _poll_of(self, messages: list[Message]) -> Poll:
        names, records, ends = self._names, [], {}
        for message, headers in zip(messages, headers_of(messages), strict=True):
            if (error := message.error()) is None:
                records.append(
                    Record(
                        names[message.topic()],  # type: ignore[index]
                        message.partition(),  # type: ignore[arg-type]
                        message.offset(),  # type: ignore[arg-type]
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                        headers,
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[(str(message.topic()), int(message.partition() or 0))] = int(message.offset() or 0)
            else:
                self._raise(error, f"{message.topic()}/{message.partition()}")
        return Poll(records, ends)

    def _raise(self, error: KafkaError, where: str) -> None:
        """Raise what a person must act on. Whether a topic is gone is asked of Kafka: before anything was read, that can wait."""
        if error.code() in LOST:
            raise OffsetsLost(
                f"the offset to go on from in {where} is not in the log any more, or was never committed ({error.str()}). "
                f"{self.remedies.lost}"
            )
        _raise_fenced(error)
        if error.code() in GONE and (not self.joined or self.identity.unchanged()):
            return
        if not passing(error):
            raise Stop(f"reading {where}: {error.name()}: {error.str()}")

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(part.topic, part.partition) for part in partitions]
        try:
            self._check_joined(places)
            positions = self._assigned_positions(places)
            consumer.assign([TopicPartition(*place, offset) for place, offset in self._reading.begin(positions).items()])
            self._owned, self.joined = set(places), True
            self._listener.assigned(positions)
        except MillraceError as error:
            self._error = error

    def _assigned_positions(self, places: list[Place]) -> dict[Place, Position]:
        """Where to begin. A callback may not poll, so it may not wait for ever either."""
        deadline = time.monotonic() + POSITIONS_SECONDS
        while (positions := self._committed(places, 10.0)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Kafka did not tell the group's committed offsets within {POSITIONS_SECONDS:g} s; start the worker again"
                )
            time.sleep(0.1)
        return positions

    def _committed(self, places: list[Place], seconds: float) -> dict[Place, Position] | None:
        if not places:
            return {}
        topic_ids = {name: info.topic_id for name, info in self._infos.items()}
        return committed(self._consumer, places, topic_ids, self.remedies, seconds)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, lost=True)

    def _give_up(self, partitions: list[TopicPartition], *, lost: bool) -> None:
        places = [(part.topic, part.partition) for part in partitions]
        self._gathered = [
            message for message in self._gathered if _gone(message) or (message.topic(), message.partition()) not in set(places)
        ]
        try:
            self._listener.revoked(places, lost=lost)
        except MillraceError as error:
            self._error = error
        # The client remembers a pause beyond the assignment: given back later, the partition would stay silent for ever.
        self.resume(places)
        self._owned -= set(places)

    def _check_joined(self, places: list[Place]) -> None:
        by_topic = {name: sorted(number for topic, number in places if topic == name) for name in self._names}
        if self._reading.co_partitioned and len({tuple(numbers) for numbers in by_topic.values()}) > 1:
            raise NotCoPartitioned(f"joined topics were assigned apart: {by_topic}. All members of a group must be of the same version.")


def _partitions(places: Iterable[Place]) -> list[TopicPartition]:
    return [TopicPartition(*place) for place in places]


def _gone(message: Message) -> bool:
    """Whether it tells that a topic is gone: what the revoke that comes of it must not hide, though it is told of a partition."""
    error = message.error()
    return error is not None and error.code() in GONE


def _raise_fenced(error: KafkaError | None) -> None:
    if error is not None and fenced(error):
        raise Fenced(f"another process joined the group in this slot ({error.str()}). Give each worker its own ordinal.")
