"""Control topics, read whole at the start and followed from then on."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from millrace.infra.kafka.clients import full_name, reader
from millrace.infra.kafka.headers import headers_of
from millrace.infra.kafka.triage import passing
from millrace.infra.settings import Settings
from millrace.schemas.errors import Stop, Unavailable
from millrace.schemas.record import Headers, Record
from millrace.schemas.topics import Topic

UNKNOWN_SECONDS = 30.0


class Follower:
    """Reads partition 0 of some control topics, each in the order of its offsets, without a group."""

    def __init__(self, settings: Settings, topics: Iterable[Topic]) -> None:
        self._names = {full_name(settings, topic): topic.name for topic in topics}
        self._consumer = reader(settings)
        self._next = dict.fromkeys(self._names, 0)
        self._ends: dict[str, int] = {}

    @property
    def versions(self) -> dict[str, int]:
        """The next offset of each topic, by its name: what has been read is everything below."""
        return {short: self._next[name] for name, short in self._names.items()}

    def start(self) -> list[Record]:
        """Everything that stands on the topics now; waits for the broker as long as it takes."""
        self._ends = {name: self._end(name) for name in self._names}
        self._consumer.assign([TopicPartition(name, 0, 0) for name in self._names])
        records: list[Record] = []
        while any(self._next[name] < end for name, end in self._ends.items()):
            records.extend(self.read(0.1))
        return records

    def read(self, seconds: float = 0.0) -> list[Record]:
        """What has come since."""
        messages = self._consumer.consume(1_000, seconds)
        pairs = zip(messages, headers_of(messages), strict=True)
        return [record for message, headers in pairs if (record := self._record(message, headers)) is not None]

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()

    def _end(self, name: str) -> int:
        """Where a topic ends now. A broker that has just come back may not know its topics for a moment."""
        deadline = time.monotonic() + UNKNOWN_SECONDS
        while True:
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=5.0, cached=False)
                return int(high)
            except KafkaException as error:
                unknown = error.args[0].code() == KafkaError._UNKNOWN_PARTITION
                if unknown and time.monotonic() > deadline:
                    raise Stop(f"control topic {name} does not exist. Run `millrace provision`.") from None
                if not unknown and not passing(error.args[0]):
                    raise Unavailable(f"Kafka did not tell the end of {name}: {error.args[0].str()}") from None
                time.sleep(0.2)

    def _record(self, message: Message, headers: Headers | None) -> Record | None:
        name, offset, error = str(message.topic()), message.offset() or 0, message.error()
        if error is None:
            self._next[name] = offset + 1
            return Record(self._names[name], 0, offset, message.timestamp()[1], message.key(), message.value(), headers)
        if error.code() == KafkaError._PARTITION_EOF:
            self._next[name] = max(self._next[name], offset)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise Stop(f"control topic {name} no longer begins at offset 0: it was deleted or expired. Its retention must be unlimited.")
        elif not passing(error):
            raise Stop(f"reading control topic {name}: {error.name()}: {error.str()}")
        return None
