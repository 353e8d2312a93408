"""End the query of a client that went away, and all that run when the time for draining is over."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from millrace.infra.embedded.clickhouse.errors import SAME_ID_RUNNING, QueryError

REPEAT_SECONDS = 0.25
LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclass(eq=False)
class Running:
    """One request while it runs. ``tag`` is the query's log_comment, by which the engine finds it."""

    query_id: str
    tag: str
    connection: socket.socket
    killable: bool
    left: threading.Event = field(default_factory=threading.Event)
    holds_id: bool = False

    def gone(self) -> bool:
        return self.left.is_set()


class Watch:
    """One thread that hears of every hang-up at once (epoll) and repeats KILL QUERY until the request has ended.

    Repeated, because a hang-up may be heard before the engine knows the query. An insert with data is let finish: it is
    bounded by its body, and half an insert helps nobody.
    """

    def __init__(self, kill: Callable[[str], None]) -> None:
        self._kill = kill
        self._running: dict[int, Running] = {}
        self._ids: set[str] = set()
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="client-watch", daemon=True)
        self._thread.start()

    def enter(self, running: Running) -> None:
        """Watch this request. Raises QueryError 216 if its query id is running already."""
        with self._lock:
            if running.query_id in self._ids:
                raise QueryError(SAME_ID_RUNNING, f"Query with id = {running.query_id} is already running")
            self._ids.add(running.query_id)
            running.holds_id = True
            descriptor = running.connection.fileno()
            self._running[descriptor] = running
            self._epoll.register(descriptor, LEFT)

    def answered(self, running: Running) -> None:
        """Free its query id before the last byte goes out: a client that has its answer may use the id again."""
        with self._lock:
            if running.holds_id:
                self._ids.discard(running.query_id)
                running.holds_id = False

    def leave(self, running: Running) -> None:
        """The request has ended: no longer watched."""
        self.answered(running)
        with self._lock:
            descriptor = running.connection.fileno()
            if self._running.pop(descriptor, None) is not None:
                with suppress(FileNotFoundError):
                    self._epoll.unregister(descriptor)

    def count(self) -> int:
        return len(self._running)

    def end_all(self) -> None:
        """Kill what still runs, inserts too: the time for draining is over."""
        with self._lock:
            for running in self._running.values():
                running.killable = True
                running.left.set()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._epoll.close()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            for descriptor, _ in self._epoll.poll(REPEAT_SECONDS):
                self._hang_up(descriptor)
            for tag in self._doomed():
                self._kill(tag)

    def _hang_up(self, descriptor: int) -> None:
        with self._lock:
            running = self._running.get(descriptor)
            if running is not None:
                running.left.set()
                # Level-triggered: left registered, it would spin until the request ends.
                self._epoll.unregister(descriptor)

    def _doomed(self) -> list[str]:
        with self._lock:
            return [running.tag for running in self._running.values() if running.killable and running.left.is_set()]
