"""Publishing from a command, as any outside producer would: idempotent, acknowledged by all, nothing left unsaid."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from millrace.infra.kafka.clients import address, full_name, producer
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable
from millrace.schemas.record import Headers

PATIENCE_SECONDS = 20.0
POLL_EVERY = 500


class Outgoing(Struct, frozen=True):
    """One record to publish: to a topic by its unprefixed name, in the partition that its key gives."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = []


class Placed(Struct, frozen=True):
    """Where a published record stands."""

    topic: str
    partition: int
    offset: int


def publish(settings: Settings, records: Iterable[Outgoing]) -> list[Placed]:
    """Publish records and say where each stands, in their order. Raises Unavailable unless every one was acknowledged."""
    client = producer(settings)
    places: list[Placed | None] = []
    failures: list[str] = []
    for index, record in enumerate(records):
        places.append(None)
        _send(client, settings, record, _Acknowledge(index, record.topic, places, failures))
        if index % POLL_EVERY == 0:
            client.poll(0)
    left = client.flush(PATIENCE_SECONDS)
    if failures or left:
        raise Unavailable(_what_failed(settings, failures, len(places), left))
    return [place for place in places if place is not None]


class _Acknowledge:
    """Takes the broker's word for one record."""

    def __init__(self, index: int, topic: str, places: list[Placed | None], failures: list[str]) -> None:
        self._index, self._topic, self._places, self._failures = index, topic, places, failures

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(f"{self._topic}: {error.str()}")
        else:
            self._places[self._index] = Placed(self._topic, message.partition() or 0, message.offset() or 0)


def _send(client: Producer, settings: Settings, record: Outgoing, acknowledge: _Acknowledge) -> None:
    headers: list[tuple[str, str | bytes | None]] = [*record.headers]
    while True:
        try:
            client.produce(full_name(settings, record.topic), record.value, record.key, headers=headers, on_delivery=acknowledge)
            return
        except BufferError:
            client.poll(0.1)
        except KafkaException as error:
            raise Unavailable(f"Kafka does not take this record of {len(record.value)} bytes: {error.args[0].str()}") from None


def _what_failed(settings: Settings, failures: list[str], total: int, left: int) -> str:
    first = failures[0] if failures else f"no answer within {PATIENCE_SECONDS:g} s"
    return f"Kafka at {address(settings)} did not take {len(failures) + left} of {total} records: {first}"
