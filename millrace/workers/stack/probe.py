"""Short questions to a child process: does it listen, is it ready, what does it say of itself."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

Readiness = Callable[[], bool]
TIMEOUT_SECONDS = 1.0
LOOPBACK = "127.0.0.1"


def tcp(port: int) -> Readiness:
    """Ready when something on 127.0.0.1 accepts a connection on this port."""

    def ready() -> bool:
        try:
            socket.create_connection((LOOPBACK, port), TIMEOUT_SECONDS).close()
        except OSError:
            return False
        return True

    return ready


def http_ok(port: int, path: str, host: str = LOOPBACK) -> Readiness:
    """Ready when ``GET path`` on this port is answered with 200."""
    return lambda: get(port, path, host) is not None


def get(port: int, path: str, host: str = LOOPBACK) -> bytes | None:
    """The body of a 200 answer, or None. Never through a proxy, whatever the environment says."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == 200 else None


def telemetry(port: int) -> dict[str, Any]:
    """What a worker's ``/status`` page says (lag, last_error, ...); nothing if it does not answer."""
    body = get(port, "/status") if port else None
    try:
        page = json.loads(body) if body else {}
    except ValueError:
        return {}
    return page if isinstance(page, dict) else {}
