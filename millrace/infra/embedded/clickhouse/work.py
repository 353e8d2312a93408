"""From a request and its body to work: a statement, or an insert with its data spooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from millrace.infra.embedded.clickhouse.body import Spool, too_large
from millrace.infra.embedded.clickhouse.errors import ACCESS_DENIED, SYNTAX_ERROR, QueryError
from millrace.infra.embedded.clickhouse.limits import Kind
from millrace.infra.embedded.clickhouse.request import Request
from millrace.infra.embedded.clickhouse.statement import Incomplete, Insert, parse_insert

STATEMENT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Work:
    """A request with its body read: either a statement, or an insert and the spool that holds its data."""

    request: Request
    sql: bytes
    insert: Insert | None = None
    spool: Spool | None = None

    @property
    def kind(self) -> Kind:
        if self.request.is_analyst:
            return Kind.ANALYST
        return Kind.INSERT if self.insert else Kind.QUERY

    @property
    def body_bytes(self) -> int:
        return self.spool.size if self.spool else len(self.sql)


def read_work(request: Request, pieces: Iterator[bytes], new_spool: Callable[[], Spool], stack: ExitStack) -> Work:
    """Read the body as far as it tells an insert's head, then its data into a spool, or the rest of the statement.

    The spool is closed by ``stack``. Raises QueryError for an empty or oversized statement and an analyst's insert.
    """
    text = bytearray(request.sql.encode(errors="surrogateescape").rstrip())
    pieces = _joined(pieces) if text else pieces
    insert = _grow_until_told(text, pieces)
    if insert is None:
        for piece in pieces:
            _append(text, piece)
        if not text.strip():
            raise QueryError(SYNTAX_ERROR, "Empty query")
        return Work(request, bytes(text))
    if request.is_analyst:
        raise QueryError(ACCESS_DENIED, "analyst: only reading is allowed")
    stack.callback((spool := new_spool()).close)
    spool.write(memoryview(text)[insert.data_offset :])
    for piece in pieces:
        spool.write(piece)
    return Work(request, bytes(text[: insert.data_offset]), insert, spool)


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A statement split between URL and body is joined by a line end, and not at all if there is no body."""
    for piece in pieces:
        yield b"\n" + piece
        yield from pieces


def _grow_until_told(text: bytearray, pieces: Iterator[bytes]) -> Insert | None:
    while True:
        try:
            return parse_insert(bytes(text), complete=False)
        except Incomplete:
            piece = next(pieces, None)
        if piece is None:
            return parse_insert(bytes(text), complete=True)
        _append(text, piece)


def _append(text: bytearray, piece: bytes) -> None:
    text += piece
    if len(text) > STATEMENT_BYTES:
        raise too_large(STATEMENT_BYTES)
