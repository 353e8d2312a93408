"""Workers as processes that a test kills, freezes, thaws and asks to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from millrace.infra.embedded.launch import wrapped
from tests.integration.harness.rig import Rig
from tests.stack import wait_until

PROGRAM = "tests.integration.harness.worker"


class WorkerProcess:
    """One worker process with its log; it does not outlive its ``with`` block, however it is left.

    ``point``, ``nth`` and ``action`` name where it kills (``kill``) or freezes (``stop``) itself.
    """

    def __init__(self, rig: Rig, point: str = "", nth: int = 1, action: str = "kill", program: str = PROGRAM) -> None:
        folder = Path(rig.tree["stack"]["data"])
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{rig.bench.name}-{id(self)}.log"
        command = (sys.executable, "-m", program, rig.bench.name, *((point, str(nth), action) if point else ()))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                wrapped(command, signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=rig.environment()
            )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and self.alive:
            self._signal(signal.SIGUSR1)  # its threads' stacks go to its log
            time.sleep(0.3)
        self.kill()
        if error is not None:
            error.add_note(f"log of {self._process.args!r}:\n{self._log.read_text()[-4000:]}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended; a frozen one has not."""
        return self._process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether the process is stopped by a signal."""
        if not self.alive:
            raise AssertionError(f"it ended with {self._process.returncode}:\n{self._log.read_text()[-3000:]}")
        status = Path(f"/proc/{self._process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    @property
    def lines(self) -> list[str]:
        """What it wrote so far."""
        return self._log.read_text().splitlines()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines of one kind of internal event."""
        parsed = [json.loads(line) for line in self.lines if line.startswith("{") and line.endswith("}")]
        return [line for line in parsed if line.get("event") == name]

    def wait_for(self, name: str, times: int = 1, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until it has logged an internal event so often; the last of them."""
        wait_until(lambda: len(self.events(name)) >= times or not self.alive, seconds, f"{times} of {name} in {self._log}")
        found = self.events(name)
        if len(found) < times:
            raise AssertionError(f"it ended with {self._process.returncode} before {name}:\n{self._log.read_text()[-3000:]}")
        return found[-1]

    def kill(self) -> None:
        """End it as a crash would."""
        self._signal(signal.SIGKILL)
        self._process.wait(60)

    def freeze(self) -> None:
        """Stop it in its tracks, with its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self._log.read_text()[-3000:]}") from None

    def drain(self, seconds: float = 60.0) -> None:
        """Ask it to end, once it is at work, and see that it does so well. While it starts, a signal ends it as it ends any process."""
        self.wait_for("Assigned")
        self.terminate()
        code = self.wait(seconds)
        if code != 0:
            raise AssertionError(f"ended with {code}:\n{self._log.read_text()[-3000:]}")

    @property
    def failures(self) -> list[str]:
        """Why it stopped, if it did: the kind of each error."""
        return [line["error"] for line in self.events("Failed")]

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)


class Supervised:
    """A worker that is started again whenever it ends by itself, as a supervisor would; ``failures`` says why it ended.

    ``point``, ``nth`` and ``action`` name where the first one harms itself.
    """

    def __init__(self, rig: Rig, program: str = PROGRAM, point: str = "", nth: int = 1, action: str = "stop") -> None:
        self._rig, self._program, self._harm = rig, program, (point, nth, action)
        self._starting = threading.Lock()
        self._stack = ExitStack()
        self._workers: list[WorkerProcess] = []
        self._done, self._left = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor")

    def __enter__(self) -> Supervised:
        self._start(*self._harm)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._stack.__exit__(kind, error, trace)
        self._left.set()
        self._thread.join()

    @property
    def worker(self) -> WorkerProcess:
        """The one that runs now."""
        return self._workers[-1]

    @property
    def failures(self) -> list[str]:
        """The kinds of errors for which it was started again."""
        return [error for worker in self._workers for error in worker.failures]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one kind of internal event, of all of them."""
        return [event for worker in self._workers for event in worker.events(name)]

    def drain(self) -> None:
        """Ask it to end and see that it does so well."""
        self._end()
        self.worker.drain()

    def _end(self) -> None:
        """Start no more; a start that is under way is done by then."""
        with self._starting:
            self._done.set()

    def _start(self, point: str = "", nth: int = 1, action: str = "stop") -> None:
        self._workers.append(self._stack.enter_context(WorkerProcess(self._rig, point, nth, action, self._program)))

    def _watch(self) -> None:
        """Stays until the block is left: a child is killed when the thread that started it ends."""
        while not self._left.wait(0.25):
            with self._starting:
                if not self._done.is_set() and not self.worker.alive:
                    self._start()
