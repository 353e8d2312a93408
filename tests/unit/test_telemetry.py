"""Telemetry: an event's line and its metrics, health, and what is served."""

from __future__ import annotations

import dataclasses
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import millrace.infra.telemetry as catalogue
from millrace.infra.settings import Secret, TelemetrySettings
from millrace.infra.telemetry import (
    Assigned,
    BlockRefused,
    ClientError,
    Committed,
    DeadLettered,
    Failed,
    Held,
    InternalEvent,
    Lacking,
    Lagging,
    PlaceUnavailable,
    Polled,
    Released,
    Revoked,
    Stage,
    Telemetry,
    Timed,
    TransactionAborted,
    observed,
)
from millrace.infra.telemetry.server import Server
from millrace.schemas.errors import PortTaken, SettingsError

EVENTS = [found for found in vars(catalogue).values() if isinstance(found, type) and issubclass(found, InternalEvent)]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def telemetry(out: io.StringIO) -> Telemetry:
    return Telemetry("inference", "inference-0", TelemetrySettings(log_level="DEBUG"), out)


@pytest.fixture
def url(telemetry: Telemetry) -> Iterator[str]:
    server = Server("127.0.0.1", 0, telemetry.pages())
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.metrics.registry.get_sample_value(name, {"worker": "inference", "slot": "inference-0", **labels})


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_line_is_a_fixed_sentence_with_fields(telemetry: Telemetry, out: io.StringIO) -> None:
    telemetry.emit(TransactionAborted(reason="fenced", code="PRODUCER_FENCED"))
    (line,) = lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "worker": "inference",
        "slot": "inference-0",
        "message": "A transaction was aborted; its records come again.",
        "event": "TransactionAborted",
        "reason": "fenced",
        "code": "PRODUCER_FENCED",
    }
    assert value(telemetry, "millrace_transactions_total", outcome="aborted") == 1


def test_a_poll_is_counted_once_with_its_sums_and_not_logged(telemetry: Telemetry, out: io.StringIO) -> None:
    telemetry.emit(Polled(records={"requests": 90, "outcomes": 10}, seconds=0.006))
    telemetry.emit(Timed(Stage.PROCESS, 0.02))
    telemetry.emit(Committed(events={"predictions": 90}, seconds=0.004))
    assert value(telemetry, "millrace_records_in_total", topic="requests") == 90
    assert value(telemetry, "millrace_poll_records_sum") == 100
    assert value(telemetry, "millrace_stage_seconds_sum", stage="gather") == 0.006
    assert value(telemetry, "millrace_stage_seconds_sum", stage="process") == 0.02
    assert value(telemetry, "millrace_events_out_total", topic="predictions") == 90
    assert value(telemetry, "millrace_commit_seconds_count") == 1
    assert lines(out) == []


def test_lag_of_a_revoked_partition_is_no_longer_shown(telemetry: Telemetry) -> None:
    telemetry.emit(Assigned(partitions={"requests": [0, 1]}))
    assert telemetry.status()["lag"] is None, "none is known"
    telemetry.emit(Lagging(lag={("requests", 0): (7, 0.5), ("requests", 1): (3, 0.1)}))
    assert telemetry.status()["lag"] == 10
    telemetry.emit(Revoked(partitions={"requests": [0]}, lost=False))
    assert value(telemetry, "millrace_lag_records", topic="requests", partition="0") is None
    assert value(telemetry, "millrace_lag_seconds", topic="requests", partition="1") == 0.1
    assert value(telemetry, "millrace_assigned_partitions") == 1


def test_held_groups_go_up_and_down(telemetry: Telemetry) -> None:
    telemetry.emit(Held(group=1, why="not-now", reason="no model yet"))
    telemetry.emit(Held(group=2, why="not-now", reason="no model yet"))
    telemetry.emit(Released(group=1, why="not-now"))
    assert value(telemetry, "millrace_held_groups", why="not-now") == 1


def test_a_line_that_asks_for_something_else_is_not_left_out(telemetry: Telemetry, out: io.StringIO) -> None:
    telemetry.emit(Held(group=1, why="not-now", reason="a model is being loaded"))
    telemetry.emit(Held(group=1, why="dead-letters", reason="run `millrace dead-letters allow inference`"))
    telemetry.emit(BlockRefused(table="requests", partition=0, code=252, reason="too many parts"))
    telemetry.emit(BlockRefused(table="outcomes", partition=0, code=395, reason="a view throws"))
    assert [line["reason"] for line in lines(out)][1::2] == ["run `millrace dead-letters allow inference`", "a view throws"]
    assert "a view throws" in telemetry.last_error


def test_many_lines_of_a_kind_become_one_that_says_how_many_were_left_out(
    telemetry: Telemetry, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(5):
        telemetry.emit(DeadLettered(topic="requests", records=2, place="requests/0@1", reason="no unit_id"))
    assert len(lines(out)) == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * DeadLettered.QUIET_SECONDS)
    telemetry.emit(DeadLettered(topic="requests", records=2, place="requests/0@9", reason="no unit_id"))
    assert lines(out)[1]["left_out"] == 4
    assert value(telemetry, "millrace_dead_letters_total", topic="requests") == 12


def test_a_level_below_the_settings_is_not_logged_but_counted(out: io.StringIO) -> None:
    telemetry = Telemetry("inference", "inference-0", TelemetrySettings(log_level="error"), out)
    telemetry.emit(ClientError(place="kafka", code="_TRANSPORT", reason="refused"))
    assert lines(out) == []
    assert value(telemetry, "millrace_place_errors_total", place="kafka") == 1


def test_an_unknown_level_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match="DEBUG, INFO, WARNING, ERROR"):
        Telemetry("inference", "inference-0", TelemetrySettings(log_level="loud"))


def test_secrets_and_credentials_never_reach_a_line(telemetry: Telemetry, out: io.StringIO, expected_failures: list[InternalEvent]) -> None:
    telemetry.emit(PlaceUnavailable(place="clickhouse", reason="no answer from http://me:hidden@host:8123/", retry_seconds=1))
    telemetry.emit(Failed(error="Stop", reason=Secret("hidden"), traceback=""))  # type: ignore[arg-type]
    assert "hidden" not in out.getvalue()
    assert len(lines(out)) == 2
    assert len(expected_failures) == 1


def test_health_says_why_not_and_logs_only_changes(telemetry: Telemetry, out: io.StringIO, url: str) -> None:
    assert get(f"{url}/health/ready") == (503, "starting")
    telemetry.health.ready()
    telemetry.health.ready()
    assert get(f"{url}/health/ready") == (200, "ready")
    assert value(telemetry, "millrace_ready") == 1
    telemetry.health.not_ready("group 3 is held")
    assert get(f"{url}/health/ready") == (503, "group 3 is held")
    assert value(telemetry, "millrace_ready") == 0
    assert [line["reason"] for line in lines(out)] == ["", "group 3 is held"]


def test_a_loop_that_stops_beating_is_not_live(telemetry: Telemetry, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(f"{url}/health/live") == (200, "live")
    telemetry.health.beat()
    assert get(f"{url}/health/live") == (200, "live")
    telemetry.health.ready()
    monkeypatch.setattr("millrace.infra.telemetry.telemetry.STILL_SECONDS", 0.0)
    assert get(f"{url}/health/ready") == (503, "its loop has stood still for 0 s")
    monkeypatch.setattr("millrace.infra.telemetry.telemetry.STUCK_SECONDS", 0.0)
    assert get(f"{url}/health/live")[0] == 503


def test_metrics_and_status_are_served(telemetry: Telemetry, url: str) -> None:
    telemetry.emit(Polled(records={"requests": 4}, seconds=0.001))
    telemetry.emit(Lagging(lag={("requests", 0): (7, 0.5)}))
    with observed(lambda slot, event: None):
        telemetry.emit(catalogue.ModelFailed(model="m", version=1, records=3, reason="NaN"))
    status, body = get(f"{url}/metrics")
    assert status == 200
    assert 'millrace_records_in_total{slot="inference-0",topic="requests",worker="inference"} 4.0' in body
    page = json.loads(get(f"{url}/status")[1])
    assert (page["lag"], page["ready"], page["reason"]) == (7, False, "starting")
    assert page["last_error"] == "A model failed; these requests are answered with an error. NaN"
    assert get(f"{url}/elsewhere")[0] == 404


def test_a_taken_port_is_said_plainly_and_port_0_serves_nothing(telemetry: Telemetry, url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(PortTaken, match=r"telemetry\.port"):
        Server("127.0.0.1", port, telemetry.pages())
    telemetry.serve()
    assert telemetry._server is None


def test_every_event_has_a_line_or_a_metric() -> None:
    assert len(EVENTS) > 30
    silent = [
        event.__name__ for event in EVENTS if event.LEVEL is None and event.count is InternalEvent.count and event is not InternalEvent
    ]
    assert silent == []
    assert [event.__name__ for event in EVENTS if event.LEVEL is not None and not event.MESSAGE.endswith(".")] == []
    assert all(dataclasses.is_dataclass(event) for event in EVENTS)


def test_every_event_can_be_emitted(telemetry: Telemetry, out: io.StringIO, expected_failures: list[InternalEvent]) -> None:
    for event in EVENTS:
        if event is not InternalEvent:
            telemetry.emit(event(**{field.name: _example(str(field.type)) for field in dataclasses.fields(event)}))
    assert {type(event) for event in expected_failures} == {event for event in EVENTS if event.FAILURE}
    assert {line["event"] for line in lines(out)} == {event.__name__ for event in EVENTS if event.LEVEL is not None}


def test_an_internal_failure_is_seen_by_whoever_watches(telemetry: Telemetry, expected_failures: list[InternalEvent]) -> None:
    telemetry.emit(Failed(error="OffsetsLost", reason="gone"))
    assert [type(event) for event in expected_failures] == [Failed]
    assert value(telemetry, "millrace_errors_total", event="Failed") == 1


def _example(kind: str) -> Any:
    examples: dict[str, Any] = {
        "str": "text",
        "int": 1,
        "float": 0.5,
        "bool": True,
        "Stage": Stage.PROCESS,
        "Mapping[str, int]": {"requests": 1},
        "Mapping[str, list[int]]": {"requests": [0]},
        "list[str]": ["m/2"],
        "Mapping[tuple[str, int], tuple[int, float]]": {("requests", 0): (1, 0.5)},
        "Mapping[tuple[str, str], int]": {("m", "ok"): 1},
    }
    return examples[kind]


def test_what_is_lacking_is_shown_while_it_lasts_beside_readiness(telemetry: Telemetry, url: str) -> None:
    telemetry.health.ready()
    telemetry.emit(Lacking(names=["m/2", "n/1"], gone=[]))
    telemetry.health.note("model 'm' version 2 cannot be fetched")
    assert value(telemetry, "millrace_control_lacking", what="m/2") == 1
    assert get(f"{url}/health/ready") == (200, "ready, but model 'm' version 2 cannot be fetched")
    assert (telemetry.status()["ready"], telemetry.status()["detail"]) == (True, "model 'm' version 2 cannot be fetched")
    telemetry.emit(Lacking(names=["n/1"], gone=["m/2"]))
    telemetry.health.note("")
    assert value(telemetry, "millrace_control_lacking", what="m/2") is None
    assert value(telemetry, "millrace_control_lacking", what="n/1") == 1
    assert get(f"{url}/health/ready") == (200, "ready")
