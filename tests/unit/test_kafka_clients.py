"""What reaches librdkafka: a user's ``[kafka.client]`` whole, and over it what exactly-once rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer

from millrace.infra.kafka import clients, keys
from millrace.infra.kafka.clients import Slot
from millrace.infra.settings import Settings, convert
from millrace.schemas.errors import SettingsError

SLOT = Slot("inference", 3)
Make = Callable[[Settings], object]
MADE: dict[str, Make] = {
    "admin": clients.admin,
    "producer": clients.producer,
    "transactional": lambda settings: clients.transactional_producer(settings, SLOT),
    "group": lambda settings: clients.group_consumer(settings, SLOT),
    "reader": clients.reader,
}
EVERY = pytest.mark.parametrize("kind", MADE)
DEFAULTS = {"topic.metadata.refresh.interval.ms", "socket.nagle.disable", "log_level", "client.id"}
"""What we set only where the user does not."""


def given(**client: str | int | float | bool) -> Settings:
    return convert({"kafka": {"address": "127.0.0.1:1", "client": {key.replace("__", "."): value for key, value in client.items()}}})


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What each kind of client is made with, by kind, where nothing is given."""
    return {kind: config(monkeypatch, make, given()) for kind, make in MADE.items()}


def config(monkeypatch: pytest.MonkeyPatch, make: Make, settings: Settings) -> dict[str, Any]:
    """What librdkafka would be handed."""
    seen: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        for name in ("AdminClient", "Consumer", "Producer"):
            patch.setattr(clients, name, seen.append)
        make(settings)
    return seen[0]


@EVERY
def test_what_the_user_gives_is_handed_on(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    settings = given(security__protocol="SASL_SSL", sasl__mechanism="PLAIN", client__id="mine", socket__timeout__ms=7_000)
    found = config(monkeypatch, MADE[kind], settings)
    assert found["security.protocol"] == "SASL_SSL"
    assert (found["sasl.mechanism"], found["client.id"], found["socket.timeout.ms"]) == ("PLAIN", "mine", 7_000)
    assert found["bootstrap.servers"] == "127.0.0.1:1"


def test_whatever_we_set_is_refused_of_the_user(handed: dict[str, dict[str, Any]]) -> None:
    """No key is taken and then overridden in silence, and nothing is refused that nobody sets."""
    ours = {key for config in handed.values() for key in config} - DEFAULTS
    known = keys.ELSEWHERE.keys() | keys.GUARANTEES | keys.SPEED
    assert ours - known == set()
    aliases = {"metadata.broker.list", "request.required.acks", "auto.commit.enable", "queue.buffering.max.ms", "group.protocol"}
    assert known - ours == aliases


@pytest.mark.parametrize("key", sorted(keys.ELSEWHERE.keys() | keys.GUARANTEES | keys.SPEED))
def test_each_of_them_is_one_that_librdkafka_knows(key: str) -> None:
    """A key that is spelled wrongly here would let the right one through."""
    with pytest.raises(ValueError, match=key):
        keys.check([key])
    said = ""
    try:
        Producer({key: "nonsense"})
    except KafkaException as refused:
        said = refused.args[0].str()
    assert "No such configuration property" not in said


def test_what_exactly_once_rests_on(handed: dict[str, dict[str, Any]]) -> None:
    group, producer = handed["group"], handed["transactional"]
    assert (group["isolation.level"], group["enable.auto.commit"], group["enable.auto.offset.store"]) == ("read_committed", False, False)
    assert (group["group.id"], group["group.instance.id"], group["auto.offset.reset"]) == ("inference", "inference-3", "error")
    assert producer["transactional.id"] == "inference-3"
    assert (producer["linger.ms"], producer["retry.backoff.ms"]) == (0, 1)
    assert (handed["producer"]["enable.idempotence"], handed["producer"]["acks"]) == (True, "all")


@EVERY
@pytest.mark.parametrize(
    ("client", "said"),
    [
        ({"sasl__mechanism": "NOPE", "security__protocol": "SASL_PLAINTEXT"}, "NOPE"),
        ({"security__protocol": "MAGIC"}, "security.protocol"),
        ({"security__protocol": "SSL", "ssl__ca__location": "/nowhere/ca.pem"}, "ssl.ca.location"),
        ({"no__such__key": 1}, "no.such.key"),
        ({"error_cb": "text"}, "error_cb"),
    ],
)
def test_what_librdkafka_refuses_is_wrong_usage_with_its_own_words(kind: str, client: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=rf"the Kafka client refuses what it was given: .*{said}.*\[kafka.client\]"):
        MADE[kind](given(**client))


@EVERY
def test_truth_values_and_numbers_are_taken(kind: str) -> None:
    assert MADE[kind](given(enable__ssl__certificate__verification=True, socket__timeout__ms=7_000, log__queue=False)) is not None
