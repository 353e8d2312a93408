"""What ``millrace status`` says of the stack on a data folder: as its supervisor recorded it, checked against what really runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import Struct

from millrace.infra.embedded import stack_file
from millrace.infra.embedded.processes import find
from millrace.infra.embedded.stack_file import ProcessEntry, Stack
from millrace.infra.settings import Settings
from millrace.workers.stack import logs
from millrace.workers.stack.child import State
from millrace.workers.stack.probe import telemetry


class Row(Struct, frozen=True):
    """One process; ``lag`` in records over all partitions that it reads, None for what reads none or does not answer."""

    name: str
    role: str
    pid: int | None
    state: str
    uptime_seconds: float | None
    restarts: int
    lag: int | None
    last_error: str


class Places(Struct, frozen=True):
    """Where clients find the places; None where there is no stack and the settings name none."""

    kafka: str | None
    clickhouse: str | None


class Status(Struct, frozen=True):
    """The whole answer, in the shape of ``millrace status --json``."""

    processes: tuple[Row, ...]
    addresses: Places


class Verdict(Enum):
    """What to make of it."""

    GOOD = "all processes are ready"
    PROBLEMS = "not every process is ready"
    CRASHED = "millrace up was killed; the next one clears up what it left"
    NOTHING = "no stack runs here; start one with: millrace up --detach"


def status(settings: Settings) -> tuple[Status, Verdict]:
    """The stack on the settings' data folder, and what to make of it."""
    stack = stack_file.read(settings.stack.folder)
    if stack is None:
        return Status((), Places(settings.kafka.address or None, settings.clickhouse.address or None)), Verdict.NOTHING
    supervised = find(stack.supervisor) is not None
    rows = tuple(_row(entry, supervised) for entry in stack.processes)
    return Status(rows, Places(stack.addresses.kafka, stack.addresses.clickhouse)), _verdict(stack, rows, supervised)


def _verdict(stack: Stack, rows: tuple[Row, ...], supervised: bool) -> Verdict:
    if not supervised:
        return Verdict.CRASHED
    ready = stack.settled and all(row.state == State.READY.value for row in rows)
    return Verdict.GOOD if ready else Verdict.PROBLEMS


def _row(entry: ProcessEntry, supervised: bool) -> Row:
    process = find(entry.identity)
    page = telemetry(entry.telemetry_port) if process is not None else {}
    return Row(
        name=entry.name,
        role=entry.role,
        pid=process.pid if process is not None else None,
        state=_state(entry, page, process is not None, supervised),
        uptime_seconds=round(time.time() - process.create_time(), 1) if process is not None else None,
        restarts=entry.restarts,
        lag=page.get("lag"),
        # Why it is not ready now says more to whoever looks than an error that has passed.
        last_error=page.get("reason") or page.get("detail") or page.get("last_error") or logs.last_error(Path(entry.log)),
    )


def _state(entry: ProcessEntry, page: Mapping[str, Any], runs: bool, supervised: bool) -> str:
    """As recorded, unless it ended since (its supervisor is about to start it again, or nobody is) or says itself what it waits for."""
    if entry.state in (State.FAILED.value, State.STOPPED.value):
        return entry.state
    if not runs:
        return State.BACKING_OFF.value if supervised else State.STOPPED.value
    waits = page.get("reason", "") not in ("", State.STARTING.value)
    return State.NOT_READY.value if waits else entry.state
