"""ClickHouse as a report asks it: every statement is kept, so that whoever reads the report can run it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millrace.infra.clickhouse.client import Client
from millrace.infra.settings import ClickHouseSettings
from millrace.workers.report.content import Query


class Asking(Client):
    """A client that notes what it was asked, and about what. A statement is noted once, however often it is asked."""

    def __init__(self, settings: ClickHouseSettings, seconds: float) -> None:
        super().__init__(settings, seconds)
        self._noted: dict[str, Query] = {}
        self._about: tuple[str, str] = ("", "")

    @property
    def queries(self) -> tuple[Query, ...]:
        """What was asked, in order."""
        return tuple(self._noted.values())

    @contextmanager
    def about(self, title: str, gives: str) -> Iterator[None]:
        """What is asked inside is about this."""
        before, self._about = self._about, (title, gives)
        try:
            yield
        finally:
            self._about = before

    def note(self, title: str, gives: str, sql: str) -> None:
        """Note a statement that somebody else has asked."""
        self._noted.setdefault(sql, Query(title=title, gives=gives, sql=sql))

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query, which is noted; it must stand for itself. Raises Refusal, Unavailable, and ValueError on parameters."""
        if parameters:
            raise ValueError("a statement with parameters cannot be run again as it stands: write its values into it")
        self.note(*self._about, sql)
        return super().rows(sql)
