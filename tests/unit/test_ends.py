"""What is known of the ends of logs while Kafka answers late, in part, or not at all."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from msgspec import Struct

from millrace.infra.kafka.ends import LogEnds

A, B = ("t", 0), ("t", 1)
SILENT = KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))


class Answer(Struct):
    """What Kafka tells of one log."""

    offset: int


class Asked:
    """A client whose answers a test gives."""

    def __init__(self) -> None:
        self.questions: list[dict[tuple[str, int], Future[Any]]] = []

    def list_offsets(self, wanted: dict[TopicPartition, Any], **options: Any) -> dict[TopicPartition, Future[Any]]:
        futures: dict[TopicPartition, Future[Any]] = {part: Future() for part in wanted}
        self.questions.append({(part.topic, part.partition): future for part, future in futures.items()})
        return futures


def ends() -> tuple[LogEnds, Asked]:
    client = Asked()
    return LogEnds(client), client  # type: ignore[arg-type]  # scripted


def test_nothing_is_known_before_an_answer_and_nothing_waits_for_one() -> None:
    made, client = ends()
    made.ask([A, B])
    assert (made.look(), made.known(A)) == ({}, None)
    made.ask([A, B])
    assert len(client.questions) == 1
    client.questions[0][A].set_result(Answer(7))
    assert (made.look(), made.known(A)) == ({}, None)
    client.questions[0][B].set_result(Answer(9))
    assert made.look() == {}
    assert (made.known(A), made.known(B)) == (7, 9)
    assert made.look() == {}


def test_where_kafka_is_silent_the_last_known_end_stays_and_that_is_told_once() -> None:
    made, client = ends()
    made.ask([A, B])
    for future, end in zip(client.questions[0].values(), (7, 9), strict=True):
        future.set_result(Answer(end))
    made.look()
    made.ask([A, B])
    client.questions[1][A].set_result(Answer(8))
    client.questions[1][B].set_exception(SILENT)
    assert made.look() == {B: "no answer"}
    assert (made.known(A), made.known(B)) == (8, 9)
    assert made.look() == {}


def test_what_was_given_up_is_forgotten() -> None:
    made, client = ends()
    made.ask([A, B])
    for future in client.questions[0].values():
        future.set_result(Answer(7))
    made.look()
    made.ask([A])
    client.questions[1][A].set_result(Answer(8))
    made.look()
    assert (made.known(A), made.known(B)) == (8, None)


def test_who_owns_nothing_asks_nothing() -> None:
    made, client = ends()
    made.ask([])
    assert client.questions == []
