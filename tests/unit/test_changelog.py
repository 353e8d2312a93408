"""Where a changelog ends, asked of a Kafka whose leaders move."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from millrace.infra.kafka import changelog
from millrace.schemas.errors import Unavailable


class Asked:
    """A consumer that answers with these errors first, and then with the ends."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)
        self.times = 0

    def get_watermark_offsets(self, place: Any, timeout: float, cached: bool) -> tuple[int, int]:
        self.times += 1
        if self._codes:
            raise KafkaException(KafkaError(self._codes.pop(0)))
        return (3, 7)


def bounds(asked: Asked) -> tuple[int, int]:
    return changelog.bounds(cast(Consumer, asked), ("counter-changelog", 0))


def test_a_leader_that_moves_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "ASK_AGAIN_SECONDS", 0.0)
    asked = Asked(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert bounds(asked) == (3, 7)
    assert asked.times == 3


def test_what_no_asking_mends_is_told_at_once() -> None:
    asked = Asked(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(Unavailable, match="did not tell the ends of changelog counter-changelog"):
        bounds(asked)
    assert asked.times == 1


def test_asking_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "ANSWER_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="did not tell the ends"):
        bounds(Asked(*[KafkaError.NOT_LEADER_FOR_PARTITION] * 100))
