"""The supervisor with real child processes: small HTTP servers that a test can make deaf, slow or mortal."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.infra.embedded import stack_file
from millrace.infra.embedded.processes import find
from millrace.infra.embedded.stack_file import Addresses, ProcessEntry
from millrace.infra.settings import Settings, StackSettings
from millrace.workers.stack.child import Child, Ended
from millrace.workers.stack.probe import http_ok
from millrace.workers.stack.status import Verdict, status
from millrace.workers.stack.supervisor import Site, StopRequest, StopRequested, Supervisor
from tests.stack import claim_base, wait_until

SCRIPT = """
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
port, mode = int(sys.argv[1]), sys.argv[2]
print(json.dumps({"level": "ERROR", "message": f"I am {mode}"}), flush=True)
if mode == "mortal":
    sys.exit(1)
if mode == "misused":
    sys.exit(2)
def bye(*_):
    print("bye", time.monotonic(), flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else bye)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        reason = {"busy": "starting", "held": "partition group 1 is held"}.get(mode, "")
        body = json.dumps({"lag": 12, "last_error": "", "reason": reason}).encode()
        self.send_response(503 if reason and self.path == "/health/ready" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Bench:
    """A supervisor on a thread of its own, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = claim_base()
        self.ended: list[Ended] = []
        self.stop = StopRequest()
        self.late: list[list[str]] = []
        self._thread: threading.Thread | None = None
        self.supervisor: Supervisor | None = None

    def child(self, name: str, mode: str, stop_seconds: float = 5.0) -> Child:
        port = self.base + int(name[-1])
        command = (sys.executable, "-c", SCRIPT, str(port), mode)
        return Child(name, name[:-2], command, http_ok(port, "/health/ready"), {"LANG": "C"}, stop_seconds, port)

    def run(self, *stages: list[Child], seconds: float = 60.0) -> None:
        site = Site(self.folder, Addresses("127.0.0.1:1", "http://127.0.0.1:2"), 1.0)
        self.supervisor = Supervisor(site, stages, self.ended.append, self.stop)
        self._thread = threading.Thread(target=self._life, args=(len(stages), seconds))
        self._thread.start()

    def _life(self, stages: int, seconds: float) -> None:
        if self.supervisor is None:
            raise AssertionError("run first")
        try:
            for stage in range(stages):
                self.supervisor.start(stage)
                self.late.append([child.name for child in self.supervisor.await_ready(stage, seconds)])
            self.supervisor.watch()
        except StopRequested:
            self.late.append(["stopped while starting"])
        finally:
            self.supervisor.stop()

    def end(self) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive()

    def entries(self) -> dict[str, ProcessEntry]:
        stack = stack_file.read(self.folder)
        return {entry.name: entry for entry in stack.processes} if stack else {}

    def settled(self) -> bool:
        stack = stack_file.read(self.folder)
        return stack is not None and stack.settled

    def pid(self, name: str) -> int:
        identity = self.entries()[name].identity
        assert identity is not None
        return identity.pid


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.end()


def rows(bench: Bench) -> list[tuple[str, str, str]]:
    """Name, state and last error, as ``millrace status`` tells them."""
    found, _ = status(Settings(stack=StackSettings(data=str(bench.folder))))
    return [(row.name, row.state, row.last_error) for row in found.processes]


def test_stages_start_in_order_and_stop_in_reverse(bench: Bench) -> None:
    place, *workers = (bench.child(name, "good", stop_seconds=60) for name in ("place-0", "worker-1", "worker-2"))
    bench.run([place], workers)
    wait_until(bench.settled, 60, "all ready")
    created = {name: entry.identity.created for name, entry in bench.entries().items() if entry.identity}
    assert created["place-0"] < min(created["worker-1"], created["worker-2"])
    bench.end()
    said = {name: float((bench.folder / "logs" / f"{name}.log").read_text().split("bye ")[1]) for name in created}
    assert max(said["worker-1"], said["worker-2"]) < said["place-0"]
    assert {entry.state for entry in bench.entries().values()} == {"stopped"}
    assert bench.ended == []


def test_a_killed_child_is_started_again_and_counted(bench: Bench) -> None:
    bench.run([bench.child("worker-0", "good")])
    wait_until(bench.settled, 60, "ready")
    for restarts in (1, 2):
        os.kill(bench.pid("worker-0"), signal.SIGKILL)
        wait_until(lambda n=restarts: bench.entries()["worker-0"].restarts == n, 60, "started again")  # type: ignore[misc]
        wait_until(lambda: bench.entries()["worker-0"].state == "ready", 60, "ready again")
    assert [(end.exit_code, end.backoff_seconds) for end in bench.ended] == [(-9, 0.25), (-9, 0.5)]


def test_status_tells_lag_uptime_and_last_error(bench: Bench) -> None:
    bench.run([bench.child("worker-0", "good")])
    wait_until(bench.settled, 60, "ready")
    settings = Settings(stack=StackSettings(data=str(bench.folder)))
    wait_until(lambda: (status(settings)[0].processes[0].state, status(settings)[0].processes[0].lag) == ("ready", 12), 60, "it is told")
    found, verdict = status(settings)
    row = found.processes[0]
    assert verdict is Verdict.GOOD
    assert (row.name, row.role, row.pid, row.state, row.lag) == ("worker-0", "worker", bench.pid("worker-0"), "ready", 12)
    assert row.last_error == "I am good"
    assert row.uptime_seconds is not None
    assert 0 <= row.uptime_seconds < 120


def test_a_child_that_keeps_ending_is_given_up_waiting_for_but_not_given_up(bench: Bench) -> None:
    started = time.monotonic()
    bench.run([bench.child("worker-0", "mortal"), bench.child("worker-1", "good")], seconds=60)
    wait_until(bench.settled, 60, "settled without it")
    assert bench.late == [["worker-0"]]
    assert time.monotonic() - started < 40  # a child that does not keep ending is waited for for 60 s
    before = bench.entries()["worker-0"].restarts
    wait_until(lambda: bench.entries()["worker-0"].restarts > before, 60, "it is still tried")
    _, verdict = status(Settings(stack=StackSettings(data=str(bench.folder))))
    assert verdict is Verdict.PROBLEMS


def test_a_child_that_refuses_its_settings_has_failed(bench: Bench) -> None:
    bench.run([bench.child("worker-0", "misused")], seconds=60)
    wait_until(bench.settled, 60, "settled")
    assert (bench.late, bench.entries()["worker-0"].state) == ([["worker-0"]], "failed")
    assert bench.entries()["worker-0"].restarts == 0


def test_a_child_that_is_never_ready_is_waited_for_so_long(bench: Bench) -> None:
    bench.run([bench.child("worker-0", "busy")], seconds=1.0)
    wait_until(bench.settled, 60, "settled")
    assert bench.late == [["worker-0"]]
    assert bench.entries()["worker-0"].state == "starting"
    assert rows(bench) == [("worker-0", "starting", "starting")]


def test_a_child_that_says_what_it_waits_for_is_not_ready_rather_than_starting(bench: Bench) -> None:
    """As a worker that was started again while a partition of its is held."""
    bench.run([bench.child("worker-0", "held")], seconds=1.0)
    wait_until(bench.settled, 60, "settled")
    assert rows(bench) == [("worker-0", "not-ready", "partition group 1 is held")]
    _, verdict = status(Settings(stack=StackSettings(data=str(bench.folder))))
    assert verdict is Verdict.PROBLEMS


def test_a_full_disk_does_not_end_the_stack(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run([bench.child("worker-0", "good")])
    wait_until(bench.settled, 60, "ready")
    before = bench.pid("worker-0")

    def full(data: Path, stack: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stack_file, "write", full)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: len(bench.ended) == 1, 60, "seen")
        time.sleep(0.5)
    wait_until(lambda: bench.entries()["worker-0"].restarts == 1, 60, "recorded once there is room")
    assert bench.pid("worker-0") != before


def test_a_deaf_child_is_killed_after_its_time(bench: Bench) -> None:
    bench.run([bench.child("worker-0", "deaf", stop_seconds=0.5)])
    wait_until(bench.settled, 60, "ready")
    identity = bench.entries()["worker-0"].identity
    started = time.monotonic()
    bench.end()
    assert 0.5 <= time.monotonic() - started < 20
    assert find(identity) is None


def test_asked_twice_it_does_not_wait(bench: Bench) -> None:
    bench.run([bench.child("worker-0", "deaf", stop_seconds=60)])
    wait_until(bench.settled, 60, "ready")
    bench.stop()
    bench.end()
    assert bench.entries()["worker-0"].state == "stopped"


def test_a_stop_while_starting_starts_no_more(bench: Bench) -> None:
    bench.run([bench.child("place-0", "busy")], [bench.child("worker-1", "good")], seconds=60)
    wait_until(lambda: "place-0" in bench.entries(), 60, "started")
    bench.end()
    assert bench.late == [["stopped while starting"]]
    assert bench.entries()["worker-1"].identity is None
