"""Runs the children of the one-machine stack: in stages, each waited for, started again when they end, stopped in reverse.

The first stage holds the places (Kafka, ClickHouse), the last the workers. One thread, the main one: Linux ends a child
with the thread that started it.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from millrace.infra.embedded import stack_file
from millrace.infra.embedded.launch import wrapped
from millrace.infra.embedded.processes import Identity
from millrace.infra.embedded.stack_file import Addresses, ProcessEntry, Stack
from millrace.infra.settings import process_environment
from millrace.workers.stack import logs
from millrace.workers.stack.child import Child, Ended, Process, Spawn, State, Watch

TICK_SECONDS = 0.1
HOUSEKEEPING_SECONDS = 10.0
HOPELESS_RESTARTS = 3


class StopRequested(Exception):
    """Somebody asked the stack to stop while it was being started."""


class StopRequest:
    """Set by a signal: stop soon; set twice: without patience. Safe from a signal handler."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self.hurried = False

    def __call__(self) -> None:
        """Ask for the stop."""
        self.hurried = self._set.is_set()
        self._set.set()

    def wait(self, seconds: float) -> bool:
        """Whether it was asked for, after at most so many seconds."""
        return self._set.wait(seconds)

    def check(self) -> None:
        """Raise StopRequested if it was asked for."""
        if self._set.is_set():
            raise StopRequested


@dataclass(frozen=True, slots=True)
class Site:
    """Where a stack lives: its data folder, its addresses, and how long it waits at most to start a child again."""

    data: Path
    addresses: Addresses
    backoff_limit_seconds: float

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    def log(self, child: Child) -> Path:
        """The log file of a child."""
        return self.logs / f"{child.name}.log"


def spawner(site: Site) -> Spawn:
    """Starts a child in a session of its own (Ctrl-C is ours to pass on), its output appended to its log file."""

    def spawn(child: Child) -> Process:
        with site.log(child).open("ab") as log:
            return subprocess.Popen(
                wrapped(child.command),
                env=process_environment() | dict(child.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    return spawn


def _living_with_a_full_disk() -> AbstractContextManager[None]:
    """A disk that is full must not end the supervisor: what could not be written is written again at the next round."""
    return suppress(OSError)


class Supervisor:
    """Keeps the children of all stages running until it is asked to stop, and ``stack.json`` true."""

    def __init__(self, site: Site, stages: Sequence[Sequence[Child]], on_end: Callable[[Ended], None], stop: StopRequest) -> None:
        spawn = spawner(site)
        self._site = site
        self._stages = [[Watch(child, spawn, site.backoff_limit_seconds, on_end) for child in stage] for stage in stages]
        self._stop = stop
        self._settled = False
        self._me = Identity.own()
        self._identities: dict[str, tuple[Process, Identity | None]] = {}
        self._recorded: Stack | None = None
        site.logs.mkdir(parents=True, exist_ok=True)
        for watch in self._all():
            logs.rotate(site.log(watch.child))

    def start(self, stage: int) -> list[Child]:
        """Start the children of a stage; which they are."""
        for watch in self._stages[stage]:
            watch.start(time.monotonic())
            self._record()
        return [watch.child for watch in self._stages[stage]]

    def await_ready(self, stage: int, seconds: float) -> list[Child]:
        """Wait for a stage; the children that were not ready in time or keep ending. Raises StopRequested."""
        deadline = time.monotonic() + seconds
        while waited := [watch for watch in self._stages[stage] if watch.state is not State.READY]:
            hopeless = [watch for watch in waited if watch.state is State.FAILED or watch.restarts >= HOPELESS_RESTARTS]
            if hopeless or time.monotonic() > deadline:
                return [watch.child for watch in hopeless or waited]
            self._round()
        return []

    def watch(self) -> None:
        """Keep everything running until a stop is requested."""
        self._settled = True
        housekeeping = time.monotonic()
        while not self._stop.wait(TICK_SECONDS):
            self._tick()
            if time.monotonic() >= housekeeping:
                housekeeping = time.monotonic() + HOUSEKEEPING_SECONDS
                self._shorten_logs()

    def stop(self) -> None:
        """End the stages in reverse order: ask, wait as long as each child may take, then kill."""
        for stage in reversed(self._stages):
            for watch in stage:
                watch.terminate()
            self._record()
            self._wait_ended(stage)
        self._record()

    def _round(self) -> None:
        self._tick()
        self._stop.wait(TICK_SECONDS)
        self._stop.check()

    def _tick(self) -> None:
        now = time.monotonic()
        for watch in self._all():
            watch.tick(now)
        self._record()

    def _wait_ended(self, stage: Iterable[Watch]) -> None:
        started = time.monotonic()
        while running := [watch for watch in stage if not watch.ended()]:
            waited = time.monotonic() - started
            for watch in running:
                if self._stop.hurried or waited > watch.child.stop_seconds:
                    watch.kill()
            time.sleep(TICK_SECONDS / 2)

    def _all(self) -> Iterable[Watch]:
        return chain.from_iterable(self._stages)

    def _shorten_logs(self) -> None:
        for watch in self._all():
            with _living_with_a_full_disk():
                logs.shorten(self._site.log(watch.child))

    def _record(self) -> None:
        stack = Stack(self._me, self._settled, self._site.addresses, tuple(map(self._entry, self._all())))
        if stack != self._recorded:
            with _living_with_a_full_disk():
                stack_file.write(self._site.data, stack)
                self._recorded = stack

    def _entry(self, watch: Watch) -> ProcessEntry:
        child = watch.child
        return ProcessEntry(
            name=child.name,
            role=child.role,
            state=watch.state.value,
            restarts=watch.restarts,
            identity=self._identity(watch),
            telemetry_port=child.telemetry_port,
            log=str(self._site.log(child)),
        )

    def _identity(self, watch: Watch) -> Identity | None:
        process = watch.process
        if process is None:
            return None
        known, identity = self._identities.get(watch.child.name, (None, None))
        if known is not process:
            identity = Identity.of(process.pid, watch.child.command)
            self._identities[watch.child.name] = (process, identity)
        return identity
