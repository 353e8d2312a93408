"""``[kafka.client]`` on a broker that lets nobody in without a name and a password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from millrace.infra.embedded import kafka
from millrace.infra.kafka import clients
from millrace.infra.settings import load
from millrace.schemas.errors import MillraceError, SettingsError, Unavailable
from millrace.workers.cli import app, exit_code
from tests.stack import Broker

USER, PASSWORD = "millrace", "open sesame"
JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required"
    f' username="broker" password="itself" user_broker="itself" user_{USER}="{PASSWORD}";'
)
LOCKED = {
    "listener.security.protocol.map": "BROKER:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.broker.plain.sasl.jaas.config": JAAS,
}


class LockedBroker(Broker):
    """A broker that asks for SASL/PLAIN."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        properties = kafka.Broker(folder, 0, 0).properties
        properties.write_text(properties.read_text() + "".join(f"{key}={value}\n" for key, value in LOCKED.items()))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedBroker]:
    """A broker of this file's own."""
    server = LockedBroker(tmp_path_factory.mktemp("locked"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client goes on trying until its caller gives up: 15 s in earnest."""
    monkeypatch.setattr(clients, "ANSWER_SECONDS", 4.0)


class Person:
    """Somebody with a settings file."""

    def __init__(self, folder: Path, broker: Broker, **client: str) -> None:
        lines = [f"{json.dumps(key.replace('__', '.'))} = {json.dumps(value)}" for key, value in client.items()]
        self.file = folder / "settings.toml"
        self.file.write_text("\n".join([f'[kafka]\naddress = "{broker.address}"\npartitions = 1', "[kafka.client]", *lines]) + "\n")
        self._environment = {"MILLRACE_SETTINGS": str(self.file), "MILLRACE_DATA": str(folder / "data")}

    def run(self, *arguments: str) -> str:
        """What a command prints; raises what it ends with."""
        result = CliRunner().invoke(app, arguments, env=self._environment)
        if isinstance(result.exception, MillraceError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout


def member(folder: Path, broker: Broker, password: str = PASSWORD, mechanism: str = "PLAIN") -> Person:
    keys = {"security__protocol": "SASL_PLAINTEXT", "sasl__mechanism": mechanism, "sasl__username": USER, "sasl__password": password}
    return Person(folder, broker, **keys)


def test_with_name_and_password_everybody_comes_in(locked: LockedBroker, tmp_path: Path) -> None:
    """The clients of commands through commands, those of a worker as it makes them."""
    person = member(tmp_path, locked)
    person.run("provision")
    person.run("topics", "produce", "requests", '{"id": "r-1", "unit_id": "u", "features": {"a": 1.0}}')
    assert '"r-1"' in person.run("topics", "tail", "requests", "--from", "earliest", "--json")

    settings, slot = load(person.file, {}), clients.Slot("inference", 0)
    producer = clients.transactional_producer(settings, slot)
    producer.init_transactions(30)
    consumer = clients.group_consumer(settings, slot)
    consumer.subscribe(["requests"])
    try:
        polled = (consumer.poll(1.0) for _ in range(30))
        message = next(message for message in polled if message is not None)
        assert message.error() is None, message.error()
        assert json.loads(message.value() or b"")["id"] == "r-1"
    finally:
        consumer.close()


def test_a_wrong_password_is_told_as_the_broker_says_it(locked: LockedBroker, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Authentication failed: Invalid username or password") as refused:
        member(tmp_path, locked, password="guessed").run("topics", "list")
    assert exit_code(refused.value) == 3
    assert "guessed" not in str(refused.value)


def test_without_a_password_nobody_comes_in(locked: LockedBroker, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"Kafka at .* did not describe"):
        Person(tmp_path, locked).run("topics", "list")


def test_a_mechanism_that_the_client_does_not_have_is_wrong_usage(locked: LockedBroker, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="NOPE"):
        member(tmp_path, locked, mechanism="NOPE").run("topics", "list")


def test_a_mechanism_that_the_broker_does_not_have_is_told(locked: LockedBroker, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Unsupported SASL mechanism: broker's supported mechanisms: PLAIN"):
        member(tmp_path, locked, mechanism="SCRAM-SHA-256").run("topics", "list")
