"""A data-plane worker as a process: signals, health, and the exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, Protocol

from millrace import __version__
from millrace.infra.kafka.clients import Slot
from millrace.infra.settings import Settings, load
from millrace.infra.telemetry import Failed, Started, Stopped, Telemetry
from millrace.schemas.errors import MillraceError, SettingsError
from millrace.workers.runner import Runner, Work

REFUSED = 2
"""The exit code of a worker that refuses its settings: starting it again would not help."""


class Loop(Protocol):
    """What runs until it is asked to stop."""

    def run(self) -> None:
        """Work until ``stop``."""
        ...

    def stop(self, why: str) -> None:
        """Finish what was begun and end; called from a signal handler."""
        ...


def run(work: Work, settings: Settings, at: Callable[[str], None] = lambda point: None) -> int:
    """Run a worker as this process until SIGTERM or SIGINT; the exit code: 0 as asked, 1 where it had to stop, 2 for its settings."""
    return run_loop(work.role, settings, lambda telemetry: Runner(work, settings, telemetry, at))


def run_loop(role: str, settings: Settings, make: Callable[[Telemetry], Loop]) -> int:
    """Run any loop of a role as this process, with signals, health and the last word; the exit code as ``run``."""
    telemetry = Telemetry(role, str(Slot(role, settings.ordinal)), settings.telemetry)
    telemetry.serve()
    began = time.monotonic()
    telemetry.emit(Started(version=__version__, pid=os.getpid()))
    _settle_memory()
    try:
        loop = make(telemetry)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda caught, _: loop.stop(signal.Signals(caught).name))
        loop.run()
    except MillraceError as error:
        telemetry.emit(Failed(error=type(error).__name__, reason=str(error)))
        return REFUSED if isinstance(error, SettingsError) else 1
    except Exception as error:  # noqa: BLE001 - the last word of a process that meets what nobody foresaw
        telemetry.emit(Failed(error=type(error).__name__, reason=str(error), traceback=traceback.format_exc()))
        return 1
    telemetry.emit(Stopped(seconds=time.monotonic() - began))
    return 0


def _settle_memory() -> None:
    """A poll makes tens of thousands of short-lived objects: the default thresholds would walk them all again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def main(role: str, make: Callable[[Settings, Telemetry], Loop]) -> NoReturn:
    """What a worker's ``__main__`` calls: settings from the environment, the loop, the exit code."""
    try:
        settings = load()
    except SettingsError as error:
        sys.stderr.write(f"millrace: {error}\n")
        leave(REFUSED)
    leave(run_loop(role, settings, lambda telemetry: make(settings, telemetry)))


def leave(code: int) -> NoReturn:
    """End the process at once: a call that no broker or server answers must not keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
