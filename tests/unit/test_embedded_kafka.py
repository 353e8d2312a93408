"""What can go wrong before a broker runs is said with what to do about it."""

from __future__ import annotations

import shutil
import socket
import threading
from collections import namedtuple
from pathlib import Path

import jgo
import pytest

from millrace.infra.embedded import kafka
from millrace.schemas.errors import Unavailable


@pytest.fixture
def broker(tmp_path: Path) -> kafka.Broker:
    return kafka.Broker(tmp_path / "kafka", 12_000, 12_001)


def test_jars_that_cannot_be_fetched(broker: kafka.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(endpoint: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(jgo, "build", refuse)
    with pytest.raises(Unavailable, match=r"cannot fetch Kafka 4\.2\.1 \(ConnectionError: no route to host\).*MILLRACE_KAFKA"):
        kafka.prepare(broker)


def test_a_full_disk(broker: kafka.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100 << 20, 99 << 20, 1 << 20))
    with pytest.raises(Unavailable, match=r"disk full: 1 MiB free under .*--data"):
        kafka.prepare(broker)


@pytest.mark.parametrize(("mark", "said"), [("4.10.0", r"4\.10\.0"), ("5.0.0", r"5\.0\.0"), (None, "an unknown version")])
def test_a_folder_of_another_version(broker: kafka.Broker, mark: str | None, said: str) -> None:
    broker.log.mkdir(parents=True)
    if mark:
        (broker.folder / "version").write_text(mark)
    with pytest.raises(Unavailable, match=rf"was formatted by Kafka {said}, this is {kafka.VERSION}"):
        kafka.prepare(broker)


@pytest.mark.parametrize("mark", ["4.2.1\n", "4.1.0\n"])
def test_a_folder_of_this_or_an_older_version_is_used_as_it_is(broker: kafka.Broker, mark: str) -> None:
    broker.log.mkdir(parents=True)
    (broker.folder / "version").write_text(mark)
    command = kafka.prepare(broker)
    assert command[-2:] == ("kafka.Kafka", str(broker.properties))
    assert not list(broker.log.iterdir())


def test_it_listens_on_loopback_only(broker: kafka.Broker) -> None:
    properties = dict(line.split("=", 1) for line in kafka.server_properties(broker, broker.log).splitlines())
    assert properties["listeners"] == "BROKER://127.0.0.1:12000,CONTROLLER://127.0.0.1:12001"
    assert properties["auto.create.topics.enable"] == "false"


def test_something_else_on_the_port_is_not_a_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not kafka.answers(server.getsockname()[1])
        thread.join()


def test_nothing_on_the_port_is_not_a_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not kafka.answers(port)
