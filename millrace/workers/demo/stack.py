"""A one-machine stack of the demo's own: in a new folder, on free ports, deaf to the settings of any other."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millrace.infra.embedded import stack_file
from millrace.infra.embedded.launch import wrapped
from millrace.infra.embedded.ports import free_base
from millrace.infra.embedded.stack_file import Stack
from millrace.infra.settings import Settings, convert, process_environment
from millrace.schemas.errors import Unavailable
from millrace.workers.addresses import with_addresses
from millrace.workers.progress import Progress
from millrace.workers.stack import logs

STOP_SECONDS = 120.0
READY_SECONDS = 240.0


class OwnStack:
    """A stack that was told to start; ``ready`` waits for it."""

    def __init__(self, folder: Path, port_base: int, *, outlives: bool) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        arguments = ("--data", str(folder), "--port-base", str(port_base))
        command = (sys.executable, "-m", "millrace", "up", *arguments)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command if outlives else wrapped(command),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ready(self) -> Settings:
        """Settings that name its places, once all of it is ready. Raises Unavailable with its own words where it is not."""
        deadline = time.monotonic() + READY_SECONDS
        while (stack := stack_file.read(self.folder)) is None or not stack.settled:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"the demo's stack did not start: {logs.last_line(self.log) or 'it said nothing'}")
            time.sleep(0.05)
        if late := [entry.name for entry in stack.processes if entry.state != "ready"]:
            raise Unavailable(f"the demo's stack did not become ready, {', '.join(late)}: {self._reason(stack, late[0])}")
        return with_addresses(convert({"stack": {"data": str(self.folder)}}), stack.addresses)

    def stop(self) -> None:
        """End it in order, as ``millrace down`` does."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _reason(self, stack: Stack, name: str) -> str:
        log = Path(next(entry.log for entry in stack.processes if entry.name == name))
        return logs.last_error(log) or logs.last_line(log) or "it has logged nothing"


@contextmanager
def own_stack(progress: Progress, *, keep: bool) -> Iterator[OwnStack]:
    """A stack while inside. On leaving it is stopped and its folder removed; with ``keep`` only if something was raised."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-demo-"))
    stack: OwnStack | None = None
    left_well = False
    try:
        stack = OwnStack(folder, free_base(), outlives=keep)
        yield stack
        left_well = True
    finally:
        if not (keep and left_well):
            if stack is not None:
                with progress.waiting("stopping what was started"):
                    stack.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Without the settings of this process: they may name somebody's real cluster."""
    return {name: value for name, value in process_environment().items() if not name.startswith("MILLRACE_")}
