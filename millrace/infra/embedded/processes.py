"""Processes of an earlier stack: proven ours before anything is done to them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import psutil
from msgspec import Struct

CLOCK_SLACK_SECONDS = 2.0


class Identity(Struct, frozen=True):
    """A process that cannot be mistaken: pid, when it was created (Unix seconds) and its arguments."""

    pid: int
    created: float
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, pid: int, command: Iterable[str]) -> Identity | None:
        """The identity of a process of ours that runs ``command`` or is about to; None if it has ended."""
        try:
            return cls(pid, psutil.Process(pid).create_time(), tuple(command)[1:])
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def own(cls) -> Identity:
        """The identity of this process."""
        me = psutil.Process()
        return cls(me.pid, me.create_time(), tuple(me.cmdline()[1:]))


def find(identity: Identity | None) -> Any | None:
    """The live process (a ``psutil.Process``) that has this identity, or None.

    A pid alone is used again, and the creation time moves with the system's clock; with the arguments there is no doubt.
    The program's own name is left out: an interpreter may replace it.
    """
    if identity is None:
        return None
    try:
        process = psutil.Process(identity.pid)
        same_time = abs(process.create_time() - identity.created) < CLOCK_SLACK_SECONDS
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and same_time and tuple(process.cmdline()[1:]) == identity.arguments else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def end(identities: Iterable[Identity | None], patience_seconds: float) -> list[int]:
    """Ask every one that still runs to end, kill what has not after the patience; the pids that were found running."""
    processes = [process for process in map(find, identities) if process is not None]
    for process in processes:
        _quietly(process.resume)  # first: a frozen process hands the signal to any thread, and Python's main one misses it
        _quietly(process.terminate)
    _, left = psutil.wait_procs(processes, patience_seconds)
    for process in left:
        _quietly(process.kill)
    psutil.wait_procs(left, patience_seconds)
    return [process.pid for process in processes]


def gone(identity: Identity, patience_seconds: float) -> bool:
    """Whether the process ends within the patience."""
    deadline = time.monotonic() + patience_seconds
    while find(identity) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _quietly(act: Any) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        return
