"""The loop that millrace does not use: consume, produce, flush, commit later. At least once, to prove that the checker bites."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, Message

from millrace.infra.kafka.clients import full_name, group_name, producer
from millrace.infra.settings import Settings, load
from millrace.schemas.event import from_ms
from millrace.schemas.record import Emit, Record
from millrace.streams.step import Batch
from tests.driver import CODECS, MemoryStore, decoded
from tests.integration.harness.rig import BENCHES, Bench
from tests.integration.harness.worker import failpoint


def run(bench: Bench, settings: Settings, at: Callable[[str], None]) -> None:
    """Answer for ever, committing offsets after the answers were delivered."""
    (topic,) = bench.inputs
    out, step = producer(settings), bench.make()
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.address,
            "group.id": group_name(settings, bench.role),
            "group.instance.id": f"{settings.topic_prefix}naive",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([full_name(settings, topic)])
    while True:
        records = [_record(topic.name, message) for message in consumer.consume(100, 0.05) if message.error() is None]
        for fact in step.process(Batch(-1, records, from_ms(0)), MemoryStore()):
            if isinstance(fact, Emit):
                out.produce(full_name(settings, fact.topic), CODECS[fact.topic].encode(fact.event), fact.key)
        out.flush()
        if records:
            at("before commit")
            consumer.commit(asynchronous=False)


def _record(topic: str, message: Message) -> Record:
    headers = message.headers()
    return decoded(
        Record(
            topic,
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1],
            as_bytes(message.key()),
            as_bytes(message.value()),
            list(headers) if headers else None,  # type: ignore[arg-type]
        )
    )


def as_bytes(value: bytes | str | None) -> bytes | None:
    """What a client hands over, as bytes."""
    return value.encode() if isinstance(value, str) else value


def main(arguments: Sequence[str]) -> None:
    """Run a bench's step in this loop, with a failpoint as ``worker`` has it."""
    name, *rest = arguments
    run(BENCHES[name], load(), failpoint(rest[0], int(rest[1]), rest[2]) if rest else lambda point: None)


if __name__ == "__main__":
    main(sys.argv[1:])
