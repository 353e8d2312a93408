"""How many statements run at once: places for queries, for an analyst's queries among them, and for inserts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum

from millrace.infra.embedded.clickhouse.errors import TOO_MANY_QUERIES, QueryError
from millrace.infra.settings import EndpointSettings

LOOK_SECONDS = 0.25


class Kind(Enum):
    """What a statement takes a place for."""

    INSERT = "insert"
    QUERY = "query"
    ANALYST = "analyst"


class Places:
    """A counted number of places; who finds none waits its turn for a while."""

    def __init__(self, name: str, count: int, patience_seconds: float) -> None:
        self._name, self._count, self._patience = name, count, patience_seconds
        self._free = threading.Semaphore(count)

    @contextmanager
    def take(self, gone: Callable[[], bool]) -> Iterator[None]:
        """Hold one place. Raises QueryError 202 when none came free in time, ConnectionResetError when the client left."""
        until = time.monotonic() + self._patience
        while not self._free.acquire(timeout=max(0.0, min(LOOK_SECONDS, until - time.monotonic()))):
            if gone():
                raise ConnectionResetError("the client went away while it waited for its turn")
            if time.monotonic() >= until:
                raise QueryError(TOO_MANY_QUERIES, f"Too many simultaneous {self._name}. Maximum: {self._count}")
        try:
            yield
        finally:
            self._free.release()


class Limits:
    """The endpoint's places. An analyst needs one of the analysts' and one of the queries': a worker always finds some left."""

    def __init__(self, settings: EndpointSettings) -> None:
        patience = settings.queue_seconds
        self._inserts = Places("inserts", settings.inserts_at_once, patience)
        self._queries = Places("queries", settings.queries_at_once, patience)
        self._analysts = Places("analyst queries", min(settings.analyst_queries_at_once, settings.queries_at_once), patience)

    @contextmanager
    def take(self, kind: Kind, gone: Callable[[], bool]) -> Iterator[None]:
        """Hold the places that this kind of statement needs."""
        with ExitStack() as stack:
            match kind:
                case Kind.INSERT:
                    stack.enter_context(self._inserts.take(gone))
                case Kind.QUERY:
                    stack.enter_context(self._queries.take(gone))
                case Kind.ANALYST:
                    stack.enter_context(self._analysts.take(gone))
                    stack.enter_context(self._queries.take(gone))
            yield
