"""Control topics, read whole at the start and followed from then on; a topic that is kept for a time only, as far back as it goes."""

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
from millrace.schemas.topics import Kind, Topic

UNKNOWN_SECONDS = 30.0


class Follower:
    """Reads partition 0 of some control and followed topics, each in the order of its offsets, without a group."""

    def __init__(self, settings: Settings, topics: Iterable[Topic]) -> None:
        topics = list(topics)
        self._names = {full_name(settings, topic): topic.name for topic in topics}
        self._expiring = {full_name(settings, topic) for topic in topics if topic.kind is Kind.FOLLOWED}
        self._consumer = reader(settings)
        self._next = dict.fromkeys(self._names, 0)
        self._ends: dict[str, int] = {}
        self._overtaken: set[str] = set()

    @property
    def versions(self) -> dict[str, int]:
        """The next offset of each topic, by its name: what has been read is everything below."""
        return {short: self._next[name] for name, short in self._names.items()}

    def start(self) -> list[Record]:
        """Everything that stands on the topics now; waits for the broker as long as it takes."""
        extents = {name: self._extent(name) for name in self._names}
        self._ends = {name: end for name, (_, end) in extents.items()}
        self._next.update({name: extents[name][0] for name in self._expiring})
        self._assign()
        records: list[Record] = []
        while any(self._next[name] < end for name, end in self._ends.items()):
            records.extend(self.read(0.1))
        return records

    def read(self, seconds: float = 0.0) -> list[Record]:
        """What has come since."""
        messages = self._consumer.consume(1_000, seconds)
        pairs = zip(messages, headers_of(messages), strict=True)
        records = [record for message, headers in pairs if (record := self._record(message, headers)) is not None]
        if self._overtaken:
            self._skip_expired()
        return records

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()

    def _extent(self, name: str) -> tuple[int, int]:
        """Where a topic starts and ends now. A broker that has just come back may not know its topics for a moment."""
        deadline = time.monotonic() + UNKNOWN_SECONDS
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=5.0, cached=False)
                return int(low), int(high)
            except KafkaException as error:
                unknown = error.args[0].code() == KafkaError._UNKNOWN_PARTITION
                if unknown and time.monotonic() > deadline:
                    raise Stop(f"control topic {name} does not exist. Run `millrace provision`.") from None
                if not unknown and not passing(error.args[0]):
                    raise Unavailable(f"Kafka did not tell the ends of {name}: {error.args[0].str()}") from None
                time.sleep(0.2)

    def _record(self, message: Message, headers: Headers | None) -> Record | None:
        name, offset, error = str(message.topic()), message.offset() or 0, message.error()
        if error is None:
            self._next[name] = offset + 1
            return Record(self._names[name], 0, offset, message.timestamp()[1], message.key(), message.value(), headers)
        if error.code() == KafkaError._PARTITION_EOF:
            self._next[name] = max(self._next[name], offset)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            if name in self._expiring:
                self._overtaken.add(name)
                return None
            raise Stop(f"control topic {name} no longer begins at offset 0: it was deleted or expired. Its retention must be unlimited.")
        elif not passing(error):
            raise Stop(f"reading control topic {name}: {error.name()}: {error.str()}")
        return None

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(name, 0, at) for name, at in self._next.items()])

    def _skip_expired(self) -> None:
        """Go on where the logs start now: what retention dropped was too old to count. Raises Stop where a log is another one.

        Called when all that was fetched is taken in, because what is assigned anew is fetched anew.
        """
        for name in self._overtaken:
            low, high = self._extent(name)
            if high < self._next[name]:
                raise Stop(f"topic {name} ends before offset {self._next[name]}, which was read already: it was made anew. Start again.")
            self._next[name] = max(low, self._next[name])
        self._overtaken.clear()
        self._assign()
