"""Publishing at a steady rate, as a client that knows nothing of millrace would: no header, no setting but the address.

Open loop: every record has its due time, whether or not the ones before were slow, and that is what latency counts from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, Message, Producer
from msgspec import Struct

from millrace.infra.kafka.clients import address, full_name
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable

PATIENCE_SECONDS = 20.0
POLL_EVERY = 100


class Bare(Struct, frozen=True):
    """A key and a value, and nothing else."""

    key: bytes
    value: bytes


def due_times(start_seconds: float, records: int, per_second: float) -> list[float]:
    """When each record is due, in seconds of the clock that ``start_seconds`` is from.

    >>> due_times(10.0, 3, 2.0)
    [10.0, 10.5, 11.0]
    """
    return [start_seconds + number / per_second for number in range(records)]


def publish_paced(settings: Settings, topic: str, records: Sequence[Bare], per_second: float) -> list[float]:
    """Publish at this rate; the due time of each record on the monotonic clock. Raises Unavailable unless all were acknowledged."""
    client = Producer({**settings.kafka.client, "bootstrap.servers": address(settings), "log_level": 3})
    name = full_name(settings, topic)
    client.list_topics(name, PATIENCE_SECONDS)
    failures: list[str] = []
    due = due_times(time.monotonic(), len(records), per_second)

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    for number, (at, record) in enumerate(zip(due, records, strict=True)):
        time.sleep(max(0.0, at - time.monotonic()))
        _hand_over(client, name, record, delivered)
        if number % POLL_EVERY == 0:
            client.poll(0)
    left = client.flush(PATIENCE_SECONDS)
    if failures or left:
        reason = failures[0] if failures else f"no answer within {PATIENCE_SECONDS:g} s"
        raise Unavailable(f"Kafka at {address(settings)} did not take {len(failures) + left} of {len(records)} records: {reason}")
    return due


def _hand_over(client: Producer, name: str, record: Bare, delivered: Callable[[KafkaError | None, Message], None]) -> None:
    """Give the client a record; a full queue means that Kafka stalls, and then the record waits: its due time does not."""
    while True:
        try:
            client.produce(name, record.value, record.key, on_delivery=delivered)
            return
        except BufferError:
            client.poll(0.1)
