"""``<data>/stack.json``: what the one-machine stack on a data folder is, for ``status``, ``down`` and the next ``up``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from millrace.infra.embedded.processes import Identity
from millrace.schemas.errors import PathInUse


class ProcessEntry(Struct, frozen=True):
    """One supervised child as its supervisor last saw it; ``identity`` None while it does not run."""

    name: str
    role: str
    state: str
    restarts: int
    identity: Identity | None
    telemetry_port: int
    log: str


class Addresses(Struct, frozen=True):
    """Where clients find Kafka and ClickHouse."""

    kafka: str
    clickhouse: str


class Stack(Struct, frozen=True):
    """The whole stack; ``settled`` once ``up`` has started everything that it was asked for."""

    supervisor: Identity
    settled: bool
    addresses: Addresses
    processes: tuple[ProcessEntry, ...]


def path(data: Path) -> Path:
    """The stack file of a data folder."""
    return data / "stack.json"


def read(data: Path) -> Stack | None:
    """The stack last recorded on this folder; None if there is none or it was torn by a full disk."""
    try:
        return msgspec.json.decode(path(data).read_bytes(), type=Stack)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def write(data: Path, stack: Stack) -> None:
    """Record the stack, whole or not at all."""
    new = path(data).with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(stack)))
    new.replace(path(data))


def remove(data: Path) -> None:
    """Forget the stack: it was stopped in order."""
    path(data).unlink(missing_ok=True)


@contextmanager
def owned(data: Path) -> Iterator[None]:
    """Own the data folder while inside; raise PathInUse if another ``millrace up`` does. The system frees it after a crash."""
    data.mkdir(parents=True, exist_ok=True)
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PathInUse(_in_use(data)) from None
        yield
    finally:
        os.close(lock)


def _in_use(data: Path) -> str:
    stack = read(data)
    by = f" (pid {stack.supervisor.pid})" if stack else ""
    return (
        f"a stack already runs on {data}{by}. See it with: millrace status; stop it with: millrace down;"
        " or start a second one with another --data and --port-base."
    )
