"""One object a process constructs once: it takes internal events, keeps health, and serves both over HTTP."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TextIO

import msgspec

from millrace.infra.settings import CREDENTIALS, TelemetrySettings
from millrace.infra.telemetry.event import InternalEvent, Level
from millrace.infra.telemetry.metrics import Metrics
from millrace.infra.telemetry.running import ReadinessChanged
from millrace.infra.telemetry.server import Pages, Server
from millrace.schemas.errors import SettingsError

Observer = Callable[[str, InternalEvent], None]
STUCK_SECONDS = 300.0
STILL_SECONDS = 20.0
_observers: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """While inside, ``observer(slot, event)`` is told of every internal event in this process, whoever emits it."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


class Health:
    """Whether the process is ready, and why not. ``beat`` once a loop: a loop that stops beating is no longer live."""

    def __init__(self, emit: Callable[[InternalEvent], None]) -> None:
        self._emit = emit
        self._reason: str | None = "starting"
        self.detail = ""
        """What is wrong beside readiness, e.g. one model of many that cannot be loaded; empty where nothing is."""
        self._beat: float | None = None

    @property
    def reason(self) -> str | None:
        """Why the process is not ready; None while it is. A loop that stands still, as in a call that is not answered, cannot tell."""
        still = 0.0 if self._beat is None else time.monotonic() - self._beat
        if self._reason is None and still > STILL_SECONDS:
            return f"its loop has stood still for {still:.0f} s"
        return self._reason

    @property
    def live(self) -> bool:
        """Whether the loop went round within the last five minutes; true for a process that never beats."""
        return self._beat is None or time.monotonic() - self._beat < STUCK_SECONDS

    def ready(self) -> None:
        """The process does its work."""
        self._change(None)

    def not_ready(self, reason: str) -> None:
        """The process does not do its work, for this reason."""
        self._change(reason)

    def note(self, detail: str) -> None:
        """The process does its work but for this."""
        self.detail = detail

    def beat(self) -> None:
        """The loop went round."""
        self._beat = time.monotonic()

    def _change(self, reason: str | None) -> None:
        if reason != self._reason:
            self._reason = reason
            self._emit(ReadinessChanged(ready=reason is None, reason=reason or ""))


class Telemetry:
    """Metrics, log and health of one process. ``slot`` is role and ordinal, e.g. ``inference-0``."""

    def __init__(self, worker: str, slot: str, settings: TelemetrySettings, stream: TextIO | None = None) -> None:
        self.worker = worker
        self.slot = slot
        self.metrics = Metrics(worker, slot)
        self.health = Health(self.emit)
        self.last_error = ""
        self._settings = settings
        self._level = _level(settings.log_level)
        self._stream = stream or sys.stderr
        self._encode = msgspec.json.Encoder(enc_hook=_plain).encode
        self._quiet: dict[tuple[Any, ...], tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._server: Server | None = None

    def emit(self, event: InternalEvent) -> None:
        """Count the event and, if it has a line, log it. Safe from any thread."""
        event.count(self.metrics)
        if event.FAILURE:
            self.metrics.errors(type(event).__name__).inc()
        for observer in tuple(_observers):
            observer(self.slot, event)
        if event.LEVEL is not None:
            self._log(event, event.LEVEL)

    def serve(self) -> None:
        """Serve ``/metrics``, ``/health/live``, ``/health/ready`` and ``/status``, unless the port in the settings is 0."""
        if self._settings.port and self._server is None:
            self._server = Server(self._settings.host, self._settings.port, self.pages())

    def pages(self) -> Pages:
        """What is served, by path."""
        return {
            "/metrics": lambda: (200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.exposition()),
            "/health/live": lambda: _answer(None if self.health.live else "the loop has not gone round for five minutes", "live"),
            "/health/ready": lambda: _answer(self.health.reason, f"ready, but {self.health.detail}" if self.health.detail else "ready"),
            "/status": lambda: (200, "application/json", msgspec.json.encode(self.status())),
        }

    def status(self) -> dict[str, Any]:
        """Readiness, lag in records over all partitions (None while none is known) and the last error, for ``millrace status``."""
        lags = [sample.value for family in self.metrics.registry.collect() for sample in family.samples if _is_lag(sample.name)]
        return {
            "worker": self.worker,
            "slot": self.slot,
            "ready": self.health.reason is None,
            "reason": self.health.reason or "",
            "detail": self.health.detail,
            "lag": int(sum(lags)) if lags else None,
            "last_error": self.last_error,
        }

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _log(self, event: InternalEvent, level: Level) -> None:
        with self._lock:
            left_out = self._left_out(event)
            if left_out is None:
                return
            if level is Level.ERROR:
                self.last_error = _scrubbed(f"{event.MESSAGE} {event.line().get('reason', '')}".strip())
            if level.value < self._level:
                return
            more = {"left_out": left_out} if left_out else {}
            own = {"time": datetime.now(UTC), "level": level.name, "worker": self.worker, "slot": self.slot}
            line = own | {"message": event.MESSAGE, "event": type(event).__name__} | _plain(event.line()) | more
            self._stream.write(self._encode(line).decode() + "\n")
            self._stream.flush()

    def _left_out(self, event: InternalEvent) -> int | None:
        """How many lines of this kind were left out before this one; None where this one is left out too."""
        if not event.QUIET_SECONDS:
            return 0
        now, kind = time.monotonic(), event.kind
        since, left_out = self._quiet.get(kind, (-event.QUIET_SECONDS, 0))
        if now - since < event.QUIET_SECONDS:
            self._quiet[kind] = (since, left_out + 1)
            return None
        self._quiet[kind] = (now, 0)
        return left_out


def _is_lag(name: str) -> bool:
    return name == "millrace_lag_records"


def _answer(reason: str | None, good: str) -> tuple[int, str, bytes]:
    return (200, "text/plain; charset=utf-8", good.encode()) if reason is None else (503, "text/plain; charset=utf-8", reason.encode())


def _level(name: str) -> int:
    try:
        return Level[name.upper()].value
    except KeyError:
        known = ", ".join(level.name for level in Level)
        raise SettingsError(f"settings: telemetry.log_level is {name!r}: use one of {known}") from None


def _scrubbed(text: str) -> str:
    """A text without the credentials of an address in it.

    >>> _scrubbed("no answer from http://me:word@host:8123/")
    'no answer from http://***@host:8123/'
    """
    return CREDENTIALS.sub("***@", text)


def _plain(value: Any) -> Any:
    """A field as plain values: text scrubbed, keys as text, and of anything else no more than its masked text."""
    match value:
        case str():
            return _scrubbed(value)
        case Enum():
            return value.value
        case dict():
            return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bool() | int() | float() | None | datetime():
            return value
        case _:
            return _scrubbed(repr(value))
