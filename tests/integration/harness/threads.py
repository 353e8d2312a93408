"""A worker in a thread of this process, whose internal events a test can see."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from millrace.infra.telemetry import Telemetry, observed
from millrace.infra.telemetry.event import InternalEvent
from millrace.workers.runner import Runner
from tests.integration.harness.rig import Rig
from tests.stack import wait_until

E = TypeVar("E", bound=InternalEvent)


class InThread:
    """Runs a rig's work until the ``with`` block is left; leaving it raises what the runner raised, unless ``error`` was asked for."""

    def __init__(self, rig: Rig, at: Callable[[str], None] = lambda point: None) -> None:
        settings = rig.settings
        self.events: list[InternalEvent] = []
        self.slot = f"{rig.bench.role}-{settings.ordinal}"
        self.telemetry = Telemetry(rig.bench.role, self.slot, settings.telemetry, io.StringIO())
        self.telemetry.serve()
        self.runner = Runner(rig.bench.work(), settings, self.telemetry, at)
        self._raised: BaseException | None = None
        self._taken = False
        self._stack = ExitStack()
        self._thread = threading.Thread(target=self._run, name=self.slot)

    def __enter__(self) -> InThread:
        self._stack.enter_context(observed(self._observe))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._stack.close()
        if error is not None:
            error.add_note(f"events of {self.slot}: {self.events[-30:]}; raised: {self._raised!r}")
        elif self._raised is not None and not self._taken:
            raise self._raised

    def stop(self) -> None:
        """Drain, and wait for the end."""
        self.runner.stop("test")
        self._thread.join(60)
        if self._thread.is_alive():
            raise AssertionError("the runner does not end")
        self.telemetry.close()

    def error(self, seconds: float = 60.0) -> BaseException:
        """Wait until the runner ends by itself; what it raised."""
        wait_until(lambda: not self._thread.is_alive(), seconds, "the runner stops by itself")
        if self._raised is None:
            raise AssertionError("the runner ended without an error")
        self._taken = True
        return self._raised

    def seen(self, kind: type[E]) -> list[E]:
        """The internal events of one kind, so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def wait_for(self, kind: type[E], times: int = 1, seconds: float = 60.0) -> E:
        """Wait for an internal event; the last of that kind."""
        wait_until(lambda: len(self.seen(kind)) >= times or not self._thread.is_alive(), seconds, f"{times} of {kind.__name__}")
        found = self.seen(kind)
        if len(found) < times:
            raise AssertionError(f"the runner ended before {kind.__name__}: {self._raised!r}")
        return found[-1]

    def _observe(self, slot: str, event: InternalEvent) -> None:
        if slot == self.slot:
            self.events.append(event)

    def _run(self) -> None:
        try:
            self.runner.run()
        except BaseException as error:  # noqa: BLE001 - raised again by the test that left the block
            self._raised = error
            self.runner._inputs.close()  # as the end of a process would, this lets go of the group
