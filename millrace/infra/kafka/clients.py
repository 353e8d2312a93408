"""The few kinds of Kafka client that millrace uses, and the settings that correctness rests on.

What a user passes through in ``[kafka.client]`` (SASL, TLS, timeouts) comes first; the settings below win over it, because
an exactly-once guarantee cannot hold under another value. So that none is dropped in silence, ``infra/settings.py`` refuses them there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from millrace.infra.settings import Settings
from millrace.schemas.errors import SettingsError, Unavailable
from millrace.schemas.topics import Topic

Client = TypeVar("Client", AdminClient, Consumer, Producer)

ANSWER_SECONDS = 15.0
FETCH_WAIT_MS = 100


class Slot(Struct, frozen=True):
    """One worker's place among its kind: role and ordinal. A successor in the same slot takes over at once and fences the one before."""

    role: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.role}-{self.ordinal}"


class TopicInfo(Struct, frozen=True):
    """What Kafka says of a topic: its id and how many partitions it has."""

    topic_id: str
    partitions: int


def full_name(settings: Settings, topic: Topic | str) -> str:
    """A topic's name on the broker: the prefix, then its name."""
    return settings.topic_prefix + (topic if isinstance(topic, str) else topic.name)


def group_name(settings: Settings, role: str) -> str:
    """The consumer group of a role."""
    return settings.topic_prefix + role


def identity(settings: Settings, slot: Slot) -> str:
    """A slot's ``transactional.id`` and ``group.instance.id``."""
    return f"{settings.topic_prefix}{slot}"


def admin(settings: Settings) -> AdminClient:
    """A client for provisioning. Keep a reference to it until its futures are done."""
    return _client(AdminClient, _common(settings))


def producer(settings: Settings, linger_ms: int = 5) -> Producer:
    """An idempotent producer for commands: as any outside client, but with the partition computed as Kafka's own clients do."""
    return _client(
        Producer,
        _common(settings)
        | {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": linger_ms,
            "message.max.bytes": 8 << 20,
        },
    )


def transactional_producer(settings: Settings, slot: Slot) -> Producer:
    """The producer of a slot's transactions.

    ``retry.backoff.ms`` 1 and ``linger.ms`` 0: transactions back to back otherwise wait 100 ms on the one before.
    """
    return _client(
        Producer,
        _common(settings)
        | {
            "transactional.id": identity(settings, slot),
            "transaction.timeout.ms": int(settings.runner.transaction_timeout_seconds * 1_000),
            "partitioner": "murmur2_random",
            "retry.backoff.ms": 1,
            "linger.ms": 0,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 512 << 10,
            "batch.num.messages": 10_000,
            "message.max.bytes": 8 << 20,
        },
    )


def group_consumer(settings: Settings, slot: Slot, **overrides: Any) -> Consumer:
    """A static member of its role's group: reads what is committed, commits nothing by itself, never guesses an offset."""
    return _client(
        Consumer,
        _reading(settings)
        | {
            "group.id": group_name(settings, slot.role),
            "group.instance.id": identity(settings, slot),
            "partition.assignment.strategy": "range",
            "auto.offset.reset": "error",
            "session.timeout.ms": int(settings.runner.session_timeout_seconds * 1_000),
            "heartbeat.interval.ms": max(500, int(settings.runner.session_timeout_seconds * 1_000 / 10)),
            "max.poll.interval.ms": int(settings.runner.max_poll_interval_seconds * 1_000),
            "enable.partition.eof": True,
        }
        | overrides,
    )


def reader(settings: Settings, *, committed: bool = True, fetch_wait_ms: int = FETCH_WAIT_MS) -> Consumer:
    """A consumer without a group, assigned by hand. Not ``committed``: it also sees what is pending or was aborted.

    ``fetch_wait_ms`` is how long a fetch that finds nothing waits for something to come.
    """
    return _client(
        Consumer,
        _reading(settings)
        | {
            "group.id": f"{settings.topic_prefix}reader",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": fetch_wait_ms,
        },
    )


def describe(settings: Settings, names: list[str]) -> dict[str, TopicInfo]:
    """Id and partition count of topics, by their full names; those that do not exist are left out. Raises Unavailable."""
    heard = _Heard()
    client = _client(AdminClient, _common(settings) | {"error_cb": heard})
    found: dict[str, TopicInfo] = {}
    futures = client.describe_topics(TopicCollection(names), request_timeout=ANSWER_SECONDS)
    for name, future in futures.items():
        try:
            answer = future.result()
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                continue
            client.poll(0)  # tells ``heard`` what happened meanwhile
            reason = heard.reason or error.args[0].str()
            raise Unavailable(f"Kafka at {address(settings)} did not describe topic {name}: {reason}") from None
        found[name] = TopicInfo(str(answer.topic_id), len(answer.partitions))
    return found


def address(settings: Settings) -> str:
    """Where Kafka is; raises SettingsError where no address is set."""
    if not settings.kafka.address:
        raise SettingsError("no Kafka address: start the one-machine stack with `millrace up`, or set MILLRACE_KAFKA=host:port")
    return settings.kafka.address


class _Heard:
    """Why a client cannot talk to its broker, as librdkafka tells it by the way: a wrong password, a TLS handshake that failed.

    A call itself says no more than that it timed out, because the client goes on trying.
    """

    def __init__(self) -> None:
        self.reason = ""

    def __call__(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.reason = error.str()


def _client(kind: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """Make a client; raises SettingsError with librdkafka's own words where it refuses what it was given."""
    try:
        return kind(config)
    except (KafkaException, TypeError, ValueError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise SettingsError(
            f"settings: the Kafka client refuses what it was given: {reason}. Look at [kafka.client] and [runner]."
        ) from None


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "topic.metadata.refresh.interval.ms": 30_000,
        "socket.nagle.disable": True,
        "log_level": 2,
        "client.id": "millrace",
        **settings.kafka.client,
        "bootstrap.servers": address(settings),
    }


def _reading(settings: Settings) -> dict[str, Any]:
    return _common(settings) | {
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "check.crcs": True,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": max(1, settings.runner.fetch_queue_bytes >> 10),
    }
