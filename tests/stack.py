"""Real places for tests: a Kafka broker and a ClickHouse endpoint as processes that a test may stop, kill and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from millrace.infra.embedded import kafka
from millrace.infra.embedded.launch import wrapped
from millrace.infra.embedded.ports import WIDTH, free_base

_claims: list[socket.socket] = []


def claim_base() -> int:
    """A free port base that no other test run on this machine takes: its last port stays bound until this process ends."""
    while True:
        base = free_base()
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", base + WIDTH - 1))
            claim.listen(1)
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return base


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds; fail naming it after ``seconds``. Asking takes no more than half of the time: others need it."""
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(max(0.03, now - asked))


class Server:
    """A server in a process of its own, with a log file; dies with the test run."""

    def __init__(self, command: tuple[str, ...], ready: Callable[[], bool], log: Path) -> None:
        self.log = log
        self._command = command
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise AssertionError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers."""
        if self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                wrapped(self._command, signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(self._is_ready, 60, f"{self._command[0]} ready")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; the end of {self.log}:\n{self.log.read_text()[-2000:]}") from None

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start on the same data and ports."""
        self.stop()
        self.start()

    def _is_ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"ended with {self._process.returncode}")
        return self._ready()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class Broker(Server):
    """One Kafka broker: ``address`` for clients; ``stop``, ``kill``, ``start``, ``restart``, ``pause``, ``resume``."""

    def __init__(self, folder: Path) -> None:
        base = claim_base()
        config = kafka.Broker(folder, base, base + 1)
        self.address = config.address
        super().__init__(kafka.prepare(config), lambda: kafka.answers(base), folder / "broker.log")


class ClickHouse(Server):
    """One embedded ClickHouse endpoint: ``url`` for clients; the same verbs as a broker."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        port = port or claim_base() + 2
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-m", "millrace.infra.embedded.clickhouse", "--data", str(folder / "data"), "--port", str(port))
        super().__init__(command, lambda: pings(self.url), folder / "clickhouse.log")


def pings(url: str) -> bool:
    """Whether ClickHouse's ping is answered with Ok."""
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2) as answer:
            return bool(answer.read().startswith(b"Ok"))
    except OSError:
        return False
