"""What an administrative call answered, with Kafka's errors told as ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from millrace.infra.kafka.triage import passing
from millrace.schemas.errors import Unavailable

T = TypeVar("T")

ANSWER_SECONDS = 15.0
AGAIN_SECONDS = 0.2
LIVE_GROUP = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)
"""How a broker says that offsets cannot be set from outside because the group has members."""


class Passing(Unavailable):
    """Kafka could not answer yet: the same call may succeed a moment later."""


def repeated(call: Callable[[], T]) -> T:
    """Call until it no longer raises Passing, for 15 s at most."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return call()
        except Passing:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_SECONDS)


def result(future: Future[T], what: str) -> T:
    """A future's answer; raise Unavailable saying what could not be done and why."""
    try:
        return future.result(ANSWER_SECONDS + 5)
    except KafkaException as error:
        raise failed(error.args[0], what) from None
    except TimeoutError:
        raise Unavailable(f"Kafka did not answer within {ANSWER_SECONDS:g} s: {what}") from None


def failed(error: KafkaError, what: str) -> Unavailable:
    """The error to raise for one of Kafka's."""
    kind = Passing if passing(error) else Unavailable
    return kind(f"Kafka refused: {what}: {error.str()} ({error.name()})")


def first_error(partitions: Iterable[TopicPartition]) -> KafkaError | None:
    """The first error that stands beside a partition in an answer."""
    return next((place.error for place in partitions if place.error is not None), None)
