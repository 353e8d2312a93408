"""From what a step states to records in the open transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Protocol

from millrace.infra.kafka.clients import TopicInfo, full_name
from millrace.infra.kafka.partition import partition_of
from millrace.infra.kafka.transaction import Delivery
from millrace.infra.settings import Settings
from millrace.infra.state import Writes
from millrace.schemas import wire
from millrace.schemas.errors import Stop
from millrace.schemas.record import Emit, Format
from millrace.schemas.topics import TOPICS

_topic = attrgetter("topic")


class Sink(Protocol):
    """Where records go: an open transaction."""

    def produce(
        self, topic: str, value: bytes | None, key: Any, headers: Any, partition: int = -1, delivered: Delivery | None = None
    ) -> None: ...


class Output:
    """Encodes events in the format of their cause and hands them to the transaction, in the order in which they are given."""

    def __init__(self, settings: Settings, transactions: Sink, infos: Mapping[str, TopicInfo]) -> None:
        self._transactions = transactions
        self._infos = infos
        self._out = {topic.name: (full_name(settings, topic), wire.codec(topic)) for topic in TOPICS}

    def emit(self, emits: list[Emit]) -> Counter[str]:
        """Produce these events; how many went to each topic. Raises Aborted, or Stop for an event that no topic takes.

        This is the hottest loop of a worker: what one event costs here, every decision costs twice or more.
        """
        out, produce, plain = self._out, self._transactions.produce, Format.JSON
        for fact in emits:
            try:
                name, codec = out[fact.topic]
            except KeyError:
                raise Stop(f"a step emitted to topic {fact.topic!r}, which schemas/topics.py does not list") from None
            event, cause = fact.event, fact.cause
            coding = codec.json if cause is None or cause.form is plain else codec.msgpack
            headers = [*coding.static, ("ce_id", event.id)]
            if cause is not None and cause.headers:
                headers += wire.carried(cause.headers)
            partition = -1 if fact.partition_by is None else self._partition(name, fact.partition_by)
            produce(name, coding.encode(event), fact.key, headers, partition)
        return Counter(map(_topic, emits))

    def changelog(self, topic: str, group: int, writes: Writes, delivered: Delivery) -> None:
        """Produce a group's state changes to its partition of the changelog; ``delivered`` is told of the last alone.

        That one has the highest offset, because a transaction's records stand in a partition as they were produced; and one that is not
        delivered fails the commit, whichever it is.
        """
        produce, last = self._transactions.produce, len(writes) - 1
        for at, (key, value) in enumerate(writes.items()):
            produce(topic, value, key, None, group, delivered if at == last else None)

    def _partition(self, name: str, key: str) -> int:
        return partition_of(key, self._infos[name].partitions)
