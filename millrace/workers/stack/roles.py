"""The children of the one-machine stack: which there are, how each is run, and how it says that it is ready.

A new worker is one more line in ``WORKERS``; a new place (Redis) one more function beside ``kafka_child`` and one more
line in ``plan.places``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from millrace.infra.embedded import kafka
from millrace.workers.stack.child import Child
from millrace.workers.stack.probe import http_ok

WORKERS = ("inference", "intake", "experimenter", "judge", "archiver")
PLACE_STOP_SECONDS = 25.0
WORKER_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """One worker process: its role, its ordinal and the port of its metrics."""

    role: str
    ordinal: int
    telemetry_port: int

    @property
    def name(self) -> str:
        return f"{self.role}-{self.ordinal}"


def kafka_child(broker: kafka.Broker, command: tuple[str, ...]) -> Child:
    """The broker, whose ``command`` is what ``kafka.prepare`` gave."""
    return Child("kafka", "kafka", command, lambda: kafka.answers(broker.port), stop_seconds=PLACE_STOP_SECONDS)


def clickhouse_child(data: Path, host: str, port: int) -> Child:
    """The ClickHouse endpoint on this data folder; it reads ``host`` from the settings itself, and is asked there."""
    command = (sys.executable, "-m", "millrace.infra.embedded.clickhouse", "--data", str(data / "clickhouse"), "--port", str(port))
    return Child("clickhouse", "clickhouse", command, http_ok(port, "/ping", host), stop_seconds=PLACE_STOP_SECONDS)


def worker_child(slot: WorkerSlot, environment: dict[str, str]) -> Child:
    """One worker; ``environment`` names the places it uses."""
    own = {"MILLRACE_ORDINAL": str(slot.ordinal), "MILLRACE_TELEMETRY__PORT": str(slot.telemetry_port)}
    return Child(
        slot.name,
        slot.role,
        (sys.executable, "-m", f"millrace.workers.{slot.role}"),
        http_ok(slot.telemetry_port, "/health/ready"),
        environment | own,
        WORKER_STOP_SECONDS,
        slot.telemetry_port,
    )


def slots(counts: dict[str, int], first_port: int) -> list[WorkerSlot]:
    """A slot for every worker asked for, each with a port of its own.

    >>> [(slot.name, slot.telemetry_port) for slot in slots({"inference": 2, "archiver": 1}, 9464)]
    [('inference-0', 9464), ('inference-1', 9465), ('archiver-0', 9466)]
    """
    named = [(role, ordinal) for role, count in counts.items() for ordinal in range(count)]
    return [WorkerSlot(role, ordinal, first_port + index) for index, (role, ordinal) in enumerate(named)]
