"""The stack's ports, and the error when somebody else has one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from millrace.infra.embedded.ports import WIDTH, Ports, is_free, require
from millrace.infra.settings import Settings, StackSettings, load
from millrace.schemas.errors import PortTaken, SettingsError, UsageError
from millrace.workers.stack import plan
from millrace.workers.stack.roles import WORKERS
from tests.stack import claim_base


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
    base = claim_base()  # a free base of which the last port was taken, so that no other test run comes between
    assert all(is_free(port) for port in range(base, base + WIDTH - 1))


def test_the_plan_checks_the_ports_of_what_it_starts_and_no_other(tmp_path: Path) -> None:
    base = claim_base()
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
    assert [child.name for child in children] == ["inference-0", "inference-1", *(f"{role}-0" for role in WORKERS if role != "inference")]
    assert children[1].command[1:] == ("-m", "millrace.workers.inference")
    assert children[1].environment == {
        "MILLRACE_KAFKA": "127.0.0.1:12000",
        "MILLRACE_CLICKHOUSE": "http://127.0.0.1:12002",
        "MILLRACE_DATA": str(tmp_path),
        "MILLRACE_ORDINAL": "1",
        "MILLRACE_TELEMETRY__PORT": "12011",
    }


TOLD = {
    "MILLRACE_KAFKA": "broker:9092",
    "MILLRACE_CLICKHOUSE": "http://db:8123",
    "MILLRACE_DATA": "/elsewhere",
    "MILLRACE_ORDINAL": "3",
    "MILLRACE_TELEMETRY__PORT": "9999",
}
REFUSED = {
    "MILLRACE_ORDINAL": "ordinal is for a worker that is run by itself; `millrace up` numbers its workers",
    "MILLRACE_TELEMETRY__PORT": "telemetry.port is for a worker that is run by itself; .* from 9464 on, or with --port-base N from N\\+10",
    "MILLRACE_TELEMETRY__HOST": "telemetry.host is '10.0.0.1', .* use one of 127.0.0.1, localhost, 0.0.0.0",
}


@pytest.mark.parametrize("name", TOLD)
def test_what_up_tells_a_child_is_taken_from_the_settings_or_refused_there(name: str) -> None:
    """A variable that ``up`` sets for a worker would hide the same variable of whoever calls ``up``."""
    wanted = load(environ={name: TOLD[name]})
    if name in REFUSED:
        with pytest.raises(SettingsError, match=REFUSED[name]):
            plan.make(wanted, inference=None, with_workers=True)
    else:
        child = plan.workers(plan.make(wanted, inference=None, with_workers=True))[0]
        assert child.environment[name] == TOLD[name]
        assert set(child.environment) == set(TOLD), "another variable is set: is it taken from the settings?"


def test_workers_are_asked_on_loopback_so_they_must_serve_there() -> None:
    with pytest.raises(SettingsError, match=REFUSED["MILLRACE_TELEMETRY__HOST"]):
        plan.make(load(environ={"MILLRACE_TELEMETRY__HOST": "10.0.0.1"}), inference=None, with_workers=True)
    for host in ("127.0.0.1", "0.0.0.0"):
        assert plan.make(load(environ={"MILLRACE_TELEMETRY__HOST": host}), inference=None, with_workers=True).workers


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "http://127.0.0.1"), ("localhost", "http://localhost"), ("::1", "http://[::1]")]
)
def test_the_endpoint_listens_where_the_settings_say(host: str, address: str, tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    environment = {
        "MILLRACE_ENDPOINT__PORT": str(port),
        "MILLRACE_ENDPOINT__HOST": host,
        "MILLRACE_KAFKA": "k:1",
        "MILLRACE_DATA": str(tmp_path),
    }
    wanted = plan.make(load(environ=environment | {"MILLRACE_STACK__PORT_BASE": "12000"}), inference=None, with_workers=False)
    assert wanted.addresses.clickhouse == f"{address}:{port}"
    assert plan.places(wanted)[0].command[-2:] == ("--port", str(port))
    with pytest.raises(PortTaken, match=r"ClickHouse, by endpoint\.port"):
        plan.check_ports(wanted)


def test_a_plan_for_nothing_is_wrong_usage(tmp_path: Path) -> None:
    outside = replace(
        settings(tmp_path),
        kafka=replace(Settings().kafka, address="broker:9092"),
        clickhouse=replace(Settings().clickhouse, address="http://db:8123"),
    )
    with pytest.raises(UsageError, match="nothing to start"):
        plan.make(outside, inference=None, with_workers=False)
