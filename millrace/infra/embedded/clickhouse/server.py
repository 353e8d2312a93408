"""The listening server: loopback only, a bounded number of connections, drained when it is told to stop."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from millrace.infra.embedded.clickhouse.body import Budget, Spool
from millrace.infra.embedded.clickhouse.engine import Engine
from millrace.infra.embedded.clickhouse.errors import STOPPING, QueryError
from millrace.infra.embedded.clickhouse.journal import Journal
from millrace.infra.embedded.clickhouse.limits import Limits
from millrace.infra.embedded.clickhouse.origin import is_loopback
from millrace.infra.embedded.clickhouse.request import Users
from millrace.infra.embedded.clickhouse.service import Service
from millrace.infra.embedded.clickhouse.watch import Running, Watch
from millrace.infra.settings import EndpointSettings
from millrace.schemas.errors import PortTaken, SettingsError

LOOK_SECONDS = 0.05
FULL_TEXT = b"Code: 202. DB::Exception: Too many connections to the embedded endpoint. (TOO_MANY_SIMULTANEOUS_QUERIES)\n"
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=UTF-8\r\nX-ClickHouse-Exception-Code: 202\r\n"
    b"Connection: close\r\nContent-Length: " + str(len(FULL_TEXT)).encode() + b"\r\n\r\n" + FULL_TEXT
)


class EndpointServer(ThreadingHTTPServer):
    """What every connection shares, and the life of the listening socket."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, engine: Engine, settings: EndpointSettings, database: str, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen. Raises PortTaken when the port is in use."""
        self.engine, self.settings = engine, settings
        self.users, self.limits, self.journal = Users(settings), Limits(settings), Journal()
        self.budget = Budget(settings.spool_bytes)
        self.service = Service(engine, settings, database)
        self.draining = threading.Event()
        self.address_family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._places = threading.BoundedSemaphore(settings.connections)
        try:
            super().__init__((settings.host, settings.port), handler)
        except OSError as error:
            raise PortTaken(
                f"port {settings.port} of {settings.host}: {error.strerror}. Stop what uses it, or choose another with --port."
            ) from None
        self.watch = Watch(self._kill)

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name, as the base class would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.settings.host, self.server_address[1]

    def new_spool(self) -> Spool:
        return Spool(self.budget, self.settings.body_bytes)

    def _kill(self, tag: str) -> None:
        """End a query for the watch, whose thread must outlive a KILL that fails: it is repeated."""
        try:
            self.service.kill(tag)
        except QueryError as error:
            self.journal.line("kill failed", tag=tag, error=error.code)

    def metrics(self) -> bytes:
        self.journal.running.set(self.watch.count())
        self.journal.spooled.set(self.budget.used_bytes)
        return self.journal.metrics()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, if there is a place for it; else a refusal that says so."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.sendall(FULL)
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke outside a query: no trace on stderr, one line in the log."""
        self.journal.line("connection lost", peer=str(client_address))

    def enter(self, running: Running) -> None:
        """Watch a request; raise QueryError 236 once the endpoint drains. In this order: what ``drain`` did not count is refused."""
        self.watch.enter(running)
        if self.draining.is_set():
            self.watch.leave(running)
            raise QueryError(STOPPING, "the endpoint is stopping; send it again later")

    def drain(self) -> bool:
        """Finish what runs within ``drain_seconds``, then kill the rest; whether all finished by itself."""
        until = time.monotonic() + self.settings.drain_seconds
        while self.watch.count() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        finished = self.watch.count() == 0
        if not finished:
            self.watch.end_all()
            self._wait_for_the_killed()
        return finished

    def _wait_for_the_killed(self) -> None:
        until = time.monotonic() + 5.0
        while self.watch.count() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)


def check_host(host: str) -> None:
    """Raise SettingsError for a host that is not loopback: there is no TLS, and by default no password."""
    if not is_loopback(host):
        raise SettingsError(
            f"endpoint.host is {host!r}, but the embedded ClickHouse endpoint listens on loopback only (127.0.0.1, ::1, localhost): "
            "it has no TLS. Use a ClickHouse server and MILLRACE_CLICKHOUSE for other machines, or a TLS proxy in front."
        )
