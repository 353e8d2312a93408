"""Starting and stopping the one-machine stack: what stands behind ``millrace up`` and ``millrace down``."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from millrace.infra.embedded import processes, stack_file
from millrace.infra.embedded.processes import Identity
from millrace.infra.embedded.stack_file import Stack
from millrace.infra.settings import Settings
from millrace.infra.telemetry import ChildRestarted, Failed, Telemetry
from millrace.schemas.errors import MillraceError, Unavailable, UsageError
from millrace.workers.addresses import with_addresses
from millrace.workers.progress import Progress
from millrace.workers.stack import logs
from millrace.workers.stack.child import Child, Ended
from millrace.workers.stack.plan import Plan, check_ports, places, workers
from millrace.workers.stack.supervisor import Site, StopRequest, StopRequested, Supervisor

LEFTOVER_SECONDS = 20.0
DOWN_SECONDS = 120.0
PLACES, WORKERS = 0, 1
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REASON_CHARACTERS = 2_000

Provision = Callable[[Settings], object]


def nothing() -> None:
    """What is done once all has been started, where nobody asked for anything."""


def up(plan: Plan, provision: Provision, progress: Progress, once_started: Callable[[], None] = nothing) -> None:
    """Run the stack until it is asked to stop (SIGTERM, Ctrl-C); ``once_started`` is called when all has been started.

    Raises PathInUse, PortTaken and Unavailable before anything runs, and Unavailable, with everything stopped again, when a
    place does not become ready. A worker that does not is reported, and supervised on: its stack may be needed to help it.
    """
    stop = StopRequest()
    with stack_file.owned(plan.data), _signals(stop), suppress(StopRequested):
        _clear_leftovers(plan.data, progress)
        check_ports(plan)
        with _recorded(plan), _telemetry(plan) as telemetry:
            _run(plan, provision, stop, _Reporter(progress, telemetry, once_started))
        progress.say("stopped")


def detach(arguments: Sequence[str], plan: Plan, progress: Progress) -> Stack:
    """Run ``millrace up`` with these arguments in a session of its own; return once it has settled.

    Raises what it ended with (its own message, and where its log is).
    """
    with stack_file.owned(plan.data):
        pass  # only to say at once that a stack runs here
    log = plan.data / "logs" / "up.log"
    log.parent.mkdir(exist_ok=True)
    logs.rotate(log)
    with log.open("ab") as output, progress.waiting(f"starting the stack on {plan.data}"):
        child = subprocess.Popen(
            [sys.executable, "-m", "millrace", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _settled(child, plan, log)
        except KeyboardInterrupt:
            child.terminate()
            child.wait(DOWN_SECONDS)
            raise


def down(data: Path, progress: Progress) -> bool:
    """Stop the stack on this data folder and wait for it; whether there was one. Raises Unavailable if it does not end."""
    stack = stack_file.read(data)
    if stack is None:
        return False
    supervisor = processes.find(stack.supervisor)
    if supervisor is None:
        return bool(_clear_leftovers(data, progress))
    with progress.waiting(f"stopping the stack on {data}"):
        supervisor.terminate()
        if not processes.gone(stack.supervisor, DOWN_SECONDS):
            raise Unavailable(
                f"millrace up (pid {supervisor.pid}) did not end within {DOWN_SECONDS:.0f} s. See {data / 'logs'}; kill -9 is safe."
            )
    return True


def _run(plan: Plan, provision: Provision, stop: StopRequest, reporter: _Reporter) -> None:
    progress = reporter.progress
    with progress.waiting("preparing"):
        stages = (places(plan), workers(plan))
    site = Site(plan.data, plan.addresses, plan.settings.stack.restart_limit_seconds)
    supervisor = Supervisor(site, stages, reporter.ended, stop)
    try:
        stop.check()
        _start(plan, provision, supervisor, progress)
        reporter.telemetry.health.ready()
        reporter.once_started()
        supervisor.watch()
    finally:
        progress.say("stopping")
        supervisor.stop()


def _start(plan: Plan, provision: Provision, supervisor: Supervisor, progress: Progress) -> None:
    """Places, then topics and start offsets, then workers."""
    seconds = plan.settings.stack.ready_seconds
    late = _start_stage(supervisor, PLACES, seconds, progress)
    if late:
        raise Unavailable(_not_ready(plan, late[0]))
    with progress.waiting("provisioning topics"):
        provision(with_addresses(plan.settings, plan.addresses))
        gc.collect()  # a Kafka client still in a reference cycle would complain when the broker stops
    for child in _start_stage(supervisor, WORKERS, seconds, progress):
        progress.bad(_not_ready(plan, child))
    progress.good(f"ready: Kafka {plan.addresses.kafka}, ClickHouse {plan.addresses.clickhouse}, data {plan.data}")


def _start_stage(supervisor: Supervisor, stage: int, seconds: float, progress: Progress) -> list[Child]:
    children = supervisor.start(stage)
    if not children:
        return []
    started = time.monotonic()
    with progress.waiting(f"starting {', '.join(child.name for child in children)}"):
        late = supervisor.await_ready(stage, seconds)
    ready = [child.name for child in children if child not in late]
    if ready:
        progress.good(f"{', '.join(ready)} ready after {time.monotonic() - started:.1f} s")
    return late


def _not_ready(plan: Plan, child: Child) -> str:
    log = plan.data / "logs" / f"{child.name}.log"
    reason = logs.last_error(log) or logs.last_line(log) or "it has logged nothing"
    return f"{child.name} did not become ready: {reason} (log: {log})"


def _settled(child: subprocess.Popen[bytes], plan: Plan, log: Path) -> Stack:
    """Wait until the detached ``up`` has settled; each of its own waits has a deadline, this adds one over all."""
    deadline = time.monotonic() + 3 * plan.settings.stack.ready_seconds + DOWN_SECONDS
    while time.monotonic() < deadline:
        code = child.poll()
        if code is not None:
            raise _reason(code, log)
        stack = stack_file.read(plan.data)
        if stack is not None and stack.settled and stack.supervisor.pid == child.pid:
            return stack
        time.sleep(0.1)
    raise Unavailable(f"the stack is still starting (pid {child.pid}). See {log}; stop it with: millrace down")


def _reason(code: int, log: Path) -> MillraceError:
    """What a detached ``up`` ended with, as its own last words say, or its code where it had none (a signal, a traceback)."""
    said = logs.last_line(log, REASON_CHARACTERS)
    kinds: dict[int, type[MillraceError]] = {2: UsageError, 3: Unavailable}
    reason = said.removeprefix("millrace: ") if said.startswith("millrace: ") else f"millrace up ended with code {code} after: {said}"
    return kinds.get(code, MillraceError)(f"{reason} (log: {log})")


def _clear_leftovers(data: Path, progress: Progress) -> list[int]:
    """End what a crashed ``millrace up`` left running on this folder: only processes proven to be its children."""
    stack = stack_file.read(data)
    if stack is None:
        return []
    ended = processes.end((entry.identity for entry in stack.processes), LEFTOVER_SECONDS)
    if ended:
        progress.bad(f"an earlier stack on {data} had not ended in order: stopped what was left of it ({len(ended)} processes)")
    stack_file.remove(data)
    return ended


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Tells of a child that ended (to who watches, to the log, and in the metrics), and that all has been started."""

    progress: Progress
    telemetry: Telemetry
    once_started: Callable[[], None]

    def ended(self, ended: Ended) -> None:
        """Say it; where even that cannot be written (a full disk), go on: the children matter more."""
        with suppress(OSError):
            self._say(ended)

    def _say(self, ended: Ended) -> None:
        what = f"{ended.name} ended with code {ended.exit_code}"
        if ended.backoff_seconds is None:
            self.progress.bad(f"{what}: it refuses its settings, so it is not started again")
            self.telemetry.emit(Failed("ChildFailed", what))
        else:
            self.progress.bad(f"{what}, started again in {ended.backoff_seconds:.2g} s")
            self.telemetry.emit(ChildRestarted(ended.name, ended.exit_code, ended.backoff_seconds))


@contextmanager
def _telemetry(plan: Plan) -> Iterator[Telemetry]:
    """The supervisor's own log, metrics and health, while inside."""
    log = plan.data / "logs" / "supervisor.log"
    log.parent.mkdir(exist_ok=True)
    logs.rotate(log)
    with log.open("a") as stream:
        telemetry = Telemetry("supervisor", "supervisor-0", replace(plan.settings.telemetry, port=plan.ports.supervisor), stream)
        telemetry.serve()
        try:
            yield telemetry
        finally:
            telemetry.close()


@contextmanager
def _recorded(plan: Plan) -> Iterator[None]:
    """The stack file stands while inside, from before anything runs until everything has ended."""
    stack_file.write(plan.data, Stack(Identity.own(), False, plan.addresses, ()))
    try:
        yield
    finally:
        stack_file.remove(plan.data)


@contextmanager
def _signals(stop: StopRequest) -> Iterator[None]:
    """While inside, the signals that end a process ask for a stop."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
