"""One supervised child and its life: started, ready, ended, started again.

    stopped -> starting -> ready -> (ends) -> backing-off -> starting ...
                             ^v  says that it is ready, or no longer
                          not-ready -> (ends) -> backing-off ...
    any -> failed     it ended with the exit code for wrong usage: starting it again cannot help
    any -> stopped    we asked it to end

``tick(now)`` moves it on; the clock is an argument (seconds, monotonic) and the process is made by a function that is
handed in, so that a whole life can be driven without either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from millrace.workers.stack.probe import Readiness

FIRST_BACKOFF_SECONDS = 0.25
HEALTHY_SECONDS = 30.0
PROBE_SECONDS = 0.2
PROBE_READY_SECONDS = 5.0
MISSES = 3
"""So many answers in a row that do not come, or say no, make a child that was ready not ready: one may only have been late."""
EXIT_USAGE = 2


class State(Enum):
    """Where a child stands, in the words of ``millrace status``."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not-ready"
    BACKING_OFF = "backing-off"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Child:
    """What to run, how to know that it is ready, and how long it may take to stop. ``environment`` is added to ours."""

    name: str
    role: str
    command: tuple[str, ...]
    readiness: Readiness
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 15.0
    telemetry_port: int = 0


class Process(Protocol):
    """A running child; ``subprocess.Popen`` fits."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


Spawn = Callable[[Child], Process]


@dataclass(frozen=True, slots=True)
class Ended:
    """A child ended by itself: with this code, to be started again after so many seconds (None: not again)."""

    name: str
    exit_code: int
    backoff_seconds: float | None


def backoff_seconds(failures: int, limit_seconds: float) -> float:
    """How long to wait before starting a child that failed so many times in a row.

    >>> [backoff_seconds(n, 30.0) for n in (1, 2, 3, 9)]
    [0.25, 0.5, 1.0, 30.0]
    """
    return float(min(FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 20), limit_seconds))


class Watch:
    """The life of one child. ``on_end`` is told when it ends by itself."""

    def __init__(self, child: Child, spawn: Spawn, backoff_limit_seconds: float, on_end: Callable[[Ended], None]) -> None:
        self.child = child
        self.state = State.STOPPED
        self.restarts = 0
        self.process: Process | None = None
        self._spawn = spawn
        self._limit = backoff_limit_seconds
        self._on_end = on_end
        self._failures = 0
        self._due = 0.0
        self._ready_since = 0.0
        self._missed = 0

    def start(self, now: float) -> None:
        """Run the child; where the system cannot (no memory, no file handles) it counts as ended at once."""
        self.state, self._due = State.STARTING, now
        try:
            self.process = self._spawn(self.child)
        except OSError:
            self._fell(os.EX_OSERR, now)

    def tick(self, now: float) -> None:
        """See whether it ended, became ready, or is to be started again."""
        match self.state:
            case State.STARTING | State.READY | State.NOT_READY:
                self._look(now)
            case State.BACKING_OFF if now >= self._due:
                self.restarts += 1
                self.start(now)
            case State.BACKING_OFF | State.STOPPED | State.FAILED:
                pass

    def terminate(self) -> None:
        """Ask it to end; it is not started again."""
        if self.process is not None:
            self.process.terminate()
        self.state = State.STOPPED

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()

    def ended(self) -> bool:
        """Whether nothing of it runs; forgets a process that has ended."""
        if self.process is not None and self.process.poll() is not None:
            self.process = None
        return self.process is None

    def _look(self, now: float) -> None:
        code = self.process.poll() if self.process is not None else None
        if code is not None:
            self._fell(code, now)
        elif now >= self._due:
            self._probe(now)

    def _fell(self, code: int, now: float) -> None:
        if self.state is State.READY and now - self._ready_since >= HEALTHY_SECONDS:
            self._failures = 0
        self._failures += 1
        self.process = None
        if code == EXIT_USAGE:
            self.state = State.FAILED
            self._on_end(Ended(self.child.name, code, None))
            return
        wait = backoff_seconds(self._failures, self._limit)
        self.state, self._due = State.BACKING_OFF, now + wait
        self._on_end(Ended(self.child.name, code, wait))

    def _probe(self, now: float) -> None:
        if not self.child.readiness():
            self._missed += 1
            if self.state is State.READY and self._missed >= MISSES:
                self.state = State.NOT_READY
            self._due = now + PROBE_SECONDS
            return
        self._missed = 0
        if self.state is not State.READY:
            self._ready_since = now
        self.state = State.READY
        self._due = now + PROBE_READY_SECONDS
