"""Where a group stands: committed offsets, and what travels in their metadata."""

from __future__ import annotations

import msgspec
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition
from msgspec import Struct

from millrace.infra.kafka.triage import passing
from millrace.schemas.errors import OffsetsLost, Stop, TopicRecreated

Place = tuple[str, int]
"""A topic's full name and a partition."""


class Metadata(Struct, frozen=True, omit_defaults=True):
    """What a committed offset's metadata says: the topic's id, how close to its cap dead-lettering is, and the archiver's open intent."""

    topic_id: str
    run: int = 0
    """How many records in a row were dead-lettered up to here."""
    seen: int = 0
    """How many records of the current window there were."""
    dead: int = 0
    """How many of them were dead-lettered."""
    to: int = 0
    """The archiver's: where the block ends that is being inserted from this offset on; 0 where none is."""
    lease: int = 0
    """Until when that block may be inserted: whole seconds since the epoch, by ClickHouse's clock."""
    look: bool = False
    """Whether rows of that block may be in the table, so that nobody may insert it without looking."""


class Position(Struct, frozen=True):
    """A committed offset and its metadata."""

    offset: int
    metadata: Metadata


class Remedies(Struct, frozen=True):
    """What a person runs about a role's offsets, as the errors about them say it."""

    lost: str
    """Where there is no offset to go on from."""
    recreated: str
    """Where the offsets are those of another topic."""

    @classmethod
    def of(cls, role: str) -> Remedies:
        """Those of a role whose transactions are on the commits log."""
        reset = f"millrace offsets reset {role}"
        return cls(
            lost=f"Run `{reset} --to commits` to go on exactly where its last transaction ended, or with the oldest record that is left, "
            f"or for a topic that was made anew `{reset} --to earliest`.",
            recreated=f"Run `{reset} --to earliest` once you know that nothing of the old topic is missing.",
        )


_decode = msgspec.json.Decoder(Metadata).decode
_encode = msgspec.json.Encoder().encode


def committed(
    consumer: Consumer, places: list[Place], topic_ids: dict[str, str], remedies: Remedies, seconds: float
) -> dict[Place, Position] | None:
    """The committed position of each place, after pending transactions were decided; None where Kafka did not answer in time.

    Raises OffsetsLost where there is none, TopicRecreated where it belongs to a topic of another id.
    """
    answers = _fetch(consumer, places, seconds)
    if answers is None:
        return None
    return {(answer.topic, answer.partition): _checked(answer, topic_ids[answer.topic], remedies) for answer in answers}


def with_metadata(place: Place, position: Position) -> TopicPartition:
    """A position as it is committed."""
    return TopicPartition(place[0], place[1], position.offset, _encode(position.metadata).decode())


def _fetch(consumer: Consumer, places: list[Place], seconds: float) -> list[TopicPartition] | None:
    try:
        return list(consumer.committed([TopicPartition(*place) for place in places], seconds))
    except KafkaException as error:
        if not passing(error.args[0]):
            raise Stop(f"Kafka did not tell the committed offsets of the group: {error.args[0].str()}") from None
        return None


def _checked(answer: TopicPartition, topic_id: str, remedies: Remedies) -> Position:
    name = f"{answer.topic}/{answer.partition}"
    if answer.offset == OFFSET_INVALID:
        raise OffsetsLost(
            f"no committed offset for {name}: it expired, or the group was never provisioned. "
            f"Run `millrace provision` for a new group. {remedies.lost}"
        )
    try:
        metadata = _decode(answer.metadata or "")
    except msgspec.MsgspecError:
        raise OffsetsLost(
            f"the committed offset of {name} was not written by millrace (metadata {answer.metadata!r}). {remedies.lost}"
        ) from None
    if metadata.topic_id != topic_id:
        raise TopicRecreated(
            f"topic {answer.topic} was deleted and created again (id {metadata.topic_id} is now {topic_id}): "
            f"the committed offsets mean nothing on it. {remedies.recreated}"
        )
    return Position(answer.offset, metadata)
