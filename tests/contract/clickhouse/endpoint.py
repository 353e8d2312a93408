"""The embedded endpoint as a process of its own, and a plain HTTP caller."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

ROOT = Path(__file__).parents[3]


class Endpoint:
    """One endpoint on a folder: started at once, ended with the ``with`` block."""

    def __init__(self, folder: Path, **settings: str | int | float) -> None:
        """``settings`` are keys of the endpoint's section, e.g. ``queries_at_once=1``."""
        self.folder = folder
        outside = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
        self._environment = outside | {f"MILLRACE_ENDPOINT__{name.upper()}": str(value) for name, value in settings.items()}
        self._log = folder.with_suffix(".log")
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start on a free port and wait for the line that says ready."""
        self._from = self._log.stat().st_size if self._log.exists() else 0
        command = (sys.executable, "-m", "millrace.infra.embedded.clickhouse", "--data", str(self.folder), "--port", "0")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment, cwd=ROOT)
        self.url = self.wait_for("ready", 60)["address"]

    def lines(self) -> list[dict[str, Any]]:
        """The log lines of this start so far."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            return [json.loads(line) for line in log.read().splitlines() if line.startswith(b"{") and line.endswith(b"}")]

    def wait_for(self, message: str, seconds: float, **fields: object) -> dict[str, Any]:
        """The first log line with this message and these fields."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.lines():
                if line["message"] == message and all(line.get(name) == value for name, value in fields.items()):
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {message} {fields} within {seconds} s; the log says:\n{self._log.read_text()[-2000:]}")

    def stop(self) -> int:
        """End it by SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.kill()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        """ClickHouse's error code, 0 for none."""
        return int(self.headers.get("x-clickhouse-exception-code", "0"))

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    url: str, body: bytes | str = b"", method: str = "POST", headers: dict[str, str] | None = None, path: str = "/", **params: Any
) -> Reply:
    """One request on a connection of its own."""
    host = urlsplit(url)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
    try:
        target = path + ("?" + urlencode(params) if params else "")
        connection.request(method, target, body.encode() if isinstance(body, str) else body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def under_way(url: str, statements: int, seconds: float = 60.0) -> None:
    """Wait until at least so many statements are in progress."""
    until = time.monotonic() + seconds
    while metric(url, "running") < statements:
        if time.monotonic() > until:
            raise AssertionError(f"never were {statements} statements under way")
        time.sleep(0.02)


def metric(url: str, name: str) -> float:
    """What the endpoint's own metrics say: how many statements are ``running``, how many bytes are ``spooled_bytes``."""
    lines = ask(url, path="/metrics", method="GET").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"clickhouse_endpoint_{name} ")).split()[1])


def expect(url: str, body: bytes | str, **params: Any) -> str:
    """The text of an answer that must be a success."""
    reply = ask(url, body, **params)
    if reply.status != 200:
        raise AssertionError(f"{body!r}: {reply.status} {reply.text}")
    return reply.text
