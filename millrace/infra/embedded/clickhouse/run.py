"""The endpoint's life: open the engine, listen, say so, serve until a signal, drain, close."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from millrace.infra.embedded.clickhouse.engine import Engine
from millrace.infra.embedded.clickhouse.http import Handler
from millrace.infra.embedded.clickhouse.server import EndpointServer, check_host
from millrace.infra.settings import EndpointSettings


def serve(settings: EndpointSettings, folder: Path, database: str = "millrace") -> None:
    """Serve the engine of ``folder`` over HTTP until SIGTERM or SIGINT, then drain and close it.

    ``database`` is the one whose ``v_*`` views the analyst may read. Runs in the main thread. Raises SettingsError for a
    host that is not loopback, PathInUse for a folder that another process owns, PortTaken for a port in use.
    """
    check_host(settings.host)
    with _stop_on_signal() as stop:
        engine = Engine(folder.expanduser().resolve(), settings, database)
        try:
            _serve(EndpointServer(engine, settings, database, Handler), folder, stop)
        finally:
            engine.close()


def _serve(server: EndpointServer, folder: Path, stop: threading.Event) -> None:
    listener = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="accept", daemon=True)
    listener.start()
    host, port = server.settings.host, server.server_port
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server.journal.line("ready", address=address, port=port, path=str(folder), pid=os.getpid(), version=server.engine.version)
    while not stop.wait(0.5):  # not for ever: a signal that another thread took is handled only when this one goes round
        pass
    server.draining.set()
    server.journal.line("draining", running=server.watch.count())
    server.shutdown()
    server.server_close()
    finished = server.drain()
    server.watch.stop()
    server.journal.line("stopped", finished=finished)


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    stop = threading.Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
