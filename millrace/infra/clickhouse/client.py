"""The connection to ClickHouse over HTTP: bounded times, no hidden repeats, and errors told as ours."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, ProgrammingError
from msgspec import Struct

from millrace.infra.settings import ClickHouseSettings
from millrace.schemas.errors import MillraceError, SettingsError, Unavailable

T = TypeVar("T")

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
WIRE_SECONDS = 5.0
"""How much longer than the server's own limit we wait for its answer."""
VIOLATED_CONSTRAINT = 469
# The library logs each failed call before it raises: the raised error says it all.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
SCHEMES = {"http": 8123, "https": 8443}


class Refusal(MillraceError):
    """ClickHouse answered that it will not do this. ``code`` is its own number, 0 where it gave none."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Column(Struct, frozen=True):
    """One column of a result."""

    name: str
    type: str


class Client:
    """ClickHouse as millrace uses it. May be used by several threads."""

    def __init__(self, settings: ClickHouseSettings, seconds: float = ANSWER_SECONDS, patience_seconds: float = 0.0) -> None:
        self.database = settings.database
        self._settings = settings
        self._seconds = seconds
        self._client = self._connect(time.monotonic() + patience_seconds)

    @property
    def address(self) -> str:
        """Where it is."""
        return self._settings.address

    def use_database(self) -> None:
        """Let names without a database mean ours; it must exist."""
        self._client.database = self.database

    def command(self, sql: str, **settings: Any) -> str:
        """Run a statement; its answer as text. Raises Refusal, or Unavailable where nothing is known."""
        return str(self._told(lambda: self._client.command(sql, settings=settings)))

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query, all of them in memory."""
        return self.table(sql, parameters)[1]

    def table(self, sql: str, parameters: dict[str, Any] | None = None) -> tuple[list[Column], list[tuple[Any, ...]]]:
        """The columns and rows of a query, all of them in memory."""

        def ask() -> tuple[list[Column], list[tuple[Any, ...]]]:
            result = self._client.query(sql, parameters=parameters, settings={"wait_end_of_query": 1})
            columns = [Column(name, kind.name) for name, kind in zip(result.column_names, result.column_types, strict=True)]
            return columns, [tuple(row) for row in result.result_rows]

        return self._told(ask)

    def raw(self, sql: str, form: str, parameters: dict[str, Any] | None = None) -> bytes:
        """The answer of a query as bytes in a format."""
        return self._told(lambda: bytes(self._client.raw_query(sql, parameters=parameters, fmt=form, settings={"wait_end_of_query": 1})))

    def insert(self, table: str, columns: list[str], form: str, data: bytes, settings: dict[str, Any]) -> None:
        """Insert bytes in a format. Raises Refusal, or Unavailable where nobody knows whether they were stored."""
        self._told(lambda: self._client.raw_insert(table, columns, data, settings=settings, fmt=form))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _told(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except ProgrammingError as error:
            raise Refusal(error.code or 0, _reason(error)) from None
        except DatabaseError as error:
            if error.code is None:
                raise Unavailable(f"ClickHouse at {self.address} does not answer: {_reason(error)}") from None
            raise Refusal(error.code, _reason(error)) from None
        except (ClickHouseError, OSError) as error:
            raise Unavailable(f"ClickHouse at {self.address} does not answer: {_reason(error)}") from None

    def _connect(self, deadline: float) -> Any:
        where = urlsplit(address(self._settings))
        if where.scheme not in SCHEMES or not where.hostname:
            raise SettingsError(f"clickhouse.address must be like http://127.0.0.1:8123, not {self._settings.address!r}")
        while True:
            try:
                return self._told(lambda: self._get(where.scheme, str(where.hostname), where.port or SCHEMES[where.scheme]))
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _get(self, scheme: str, host: str, port: int) -> Any:
        return clickhouse_connect.get_client(
            interface=scheme,
            host=host,
            port=port,
            username=self._settings.user,
            password=self._settings.password.reveal(),
            connect_timeout=math.ceil(CONNECT_SECONDS),
            send_receive_timeout=math.ceil(self._seconds + WIRE_SECONDS),
            query_retries=0,
            compress=False,
            autogenerate_session_id=False,
            client_name="millrace",
            query_limit=0,
        )


def address(settings: ClickHouseSettings) -> str:
    """Where ClickHouse is; raises SettingsError where no address is set."""
    if not settings.address:
        raise SettingsError(
            "no ClickHouse address: start the one-machine stack with `millrace up`, or set MILLRACE_CLICKHOUSE=http://host:port"
        )
    return settings.address


def is_lease_over(refusal: Refusal, constraint: str) -> bool:
    """Whether an insert was refused because its lease is over."""
    return refusal.code == VIOLATED_CONSTRAINT and f"`{constraint}`" in str(refusal)


def _reason(error: BaseException) -> str:
    """The server's own words, or the system's, without what the libraries in between put around them."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "DB::Exception: " in line:
        return line.split("DB::Exception: ", 1)[1].split(" (version ")[0][:1_000]
    found = re.search(r"\[Errno \d+\] ([^\"')]+)|(timed out)|(Remote end closed connection[^\"')]*)", line)
    return next((group for group in found.groups() if group), line) if found else line[:1_000]
