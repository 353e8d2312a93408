"""The stack's ports, and the error when somebody else has one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from millrace.infra.embedded.ports import WIDTH, Ports, free_base, is_free, require
from millrace.infra.settings import Settings, StackSettings
from millrace.schemas.errors import PortTaken, UsageError
from millrace.workers.stack import plan


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def settings(tmp_path: Path, base: int = 0) -> Settings:
    return Settings(stack=StackSettings(data=str(tmp_path), port_base=base))


def test_ports_follow_the_base() -> None:
    assert Ports.at(0) == Ports(kafka=9092, controller=9093, clickhouse=8123, supervisor=9463, metrics=9464)
    assert Ports.at(12_000) == Ports(kafka=12_000, controller=12_001, clickhouse=12_002, supervisor=12_003, metrics=12_010)


def test_a_taken_port_names_port_owner_and_what_to_do(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken, match=rf"port {port} \(Kafka\) is in use by pid {os.getpid()} \(.+\).*--port-base"):
        require(port, "Kafka")


def test_a_port_that_was_closed_is_free_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert not is_free(port)
    assert is_free(port)


def test_a_free_base_has_all_its_ports_free() -> None:
    base = free_base()
    assert all(is_free(port) for port in range(base, base + WIDTH))


def test_the_plan_checks_the_ports_of_what_it_starts_and_no_other(tmp_path: Path) -> None:
    base = free_base()
    wanted = plan.make(settings(tmp_path, base), inference=None, with_workers=False)
    with socket.create_server(("127.0.0.1", base + 2)):
        with pytest.raises(PortTaken, match="ClickHouse"):
            plan.check_ports(wanted)
        elsewhere = replace(wanted.settings, clickhouse=replace(wanted.settings.clickhouse, address="http://db:8123"))
        plan.check_ports(plan.make(elsewhere, inference=None, with_workers=False))


def test_an_address_in_the_settings_replaces_the_embedded_place(tmp_path: Path) -> None:
    outside = replace(settings(tmp_path, 12_000), kafka=replace(Settings().kafka, address="broker:9092"))
    wanted = plan.make(outside, inference=2, with_workers=True)
    assert (wanted.embeds_kafka, wanted.embeds_clickhouse) == (False, True)
    assert (wanted.addresses.kafka, wanted.addresses.clickhouse) == ("broker:9092", "http://127.0.0.1:12002")
    assert [child.name for child in plan.places(wanted)] == ["clickhouse"]


def test_workers_are_told_where_the_places_are_and_which_one_they_are(tmp_path: Path) -> None:
    children = plan.workers(plan.make(settings(tmp_path, 12_000), inference=2, with_workers=True))
    assert [child.name for child in children] == ["inference-0", "inference-1", "archiver-0"]
    assert children[1].command[1:] == ("-m", "millrace.workers.inference")
    assert children[1].environment == {
        "MILLRACE_KAFKA": "127.0.0.1:12000",
        "MILLRACE_CLICKHOUSE": "http://127.0.0.1:12002",
        "MILLRACE_DATA": str(tmp_path),
        "MILLRACE_ORDINAL": "1",
        "MILLRACE_TELEMETRY__PORT": "12011",
    }


def test_a_plan_for_nothing_is_wrong_usage(tmp_path: Path) -> None:
    outside = replace(
        settings(tmp_path),
        kafka=replace(Settings().kafka, address="broker:9092"),
        clickhouse=replace(Settings().clickhouse, address="http://db:8123"),
    )
    with pytest.raises(UsageError, match="nothing to start"):
        plan.make(outside, inference=None, with_workers=False)
