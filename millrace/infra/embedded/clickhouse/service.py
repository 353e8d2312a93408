"""Run one request on a handle of its own: which user, which settings, streamed or whole, insert from a spool or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from millrace.infra.embedded.clickhouse import analyst, hello, statement
from millrace.infra.embedded.clickhouse.body import Spool
from millrace.infra.embedded.clickhouse.engine import Engine, Handle, Report, quote_name, quote_text
from millrace.infra.embedded.clickhouse.errors import ACCESS_DENIED, NOT_IMPLEMENTED, SYNTAX_ERROR, QueryError
from millrace.infra.embedded.clickhouse.request import Request
from millrace.infra.embedded.clickhouse.work import Work
from millrace.infra.settings import EndpointSettings

UNKNOWN_DATABASE = 81
DISPLAY_NAME = "millrace"


@dataclass(slots=True)
class Answer:
    """A result: whole in ``data``, or coming in ``blocks`` of which the first is there already."""

    format: str
    data: bytes = b""
    blocks: Iterator[Report] | None = None
    rows: int = 0
    size: int = 0
    summary: dict[str, str] = field(default_factory=dict)


class Service:
    """Answers requests from one engine."""

    def __init__(self, engine: Engine, settings: EndpointSettings, database: str) -> None:
        self._engine, self._settings, self._database = engine, settings, database

    def kill(self, tag: str) -> None:
        """End the query with this tag, if it is there."""
        with self._engine.handle() as handle:
            handle.run(f"KILL QUERY WHERE splitByChar(' ', Settings['log_comment'])[1] = {quote_text(tag)} ASYNC")

    def answer(self, work: Work, tag: str, stack: ExitStack) -> Answer:
        """Run it. What must stay open while the answer is sent (handle, stream) is put on ``stack``."""
        request = work.request
        if hello.is_hello(work.sql, request.own.get("client_protocol_version", ""), request.default_format):
            return Answer("Native", hello.block(DISPLAY_NAME, self._engine.version, self._engine.timezone), rows=1)
        handle = stack.enter_context(closing(self._engine.open()))
        if request.is_analyst:
            return self._for_analyst(handle, work, tag, stack)
        self._enter(handle, work, tag)
        if work.insert is not None and work.spool is not None:
            return _insert(handle, work.insert, work.spool, request)
        _refuse(handle, work, request.database)
        return _read(handle, request, work.sql, stack)

    def _enter(self, handle: Handle, work: Work, tag: str) -> None:
        request = work.request
        if request.database:
            handle.use(request.database)
        if request.own.get("role"):
            handle.run(f"SET ROLE {quote_name(request.own['role'])}")
        settings = self._materialized_limit(work) | request.settings
        if request.method != "POST" and settings.get("readonly", "0") in ("", "0"):
            settings["readonly"] = "2"
        handle.set(settings | {"log_comment": _comment(tag, request)})

    def _materialized_limit(self, work: Work) -> dict[str, str]:
        """A result that cannot be streamed is whole in memory: it may not be larger than the setting."""
        if work.insert is not None or statement.verb(work.sql) not in statement.STREAMED_VERBS:
            return {}
        return {} if _streamed(work.request, work.sql) else {"max_result_bytes": str(self._settings.result_bytes)}

    def _for_analyst(self, handle: Handle, work: Work, tag: str, stack: ExitStack) -> Answer:
        request = work.request
        if work.insert is not None:
            raise QueryError(ACCESS_DENIED, "analyst: only reading is allowed")
        if request.own.get("role"):
            raise QueryError(ACCESS_DENIED, "analyst: the role cannot be changed")
        settings = analyst.admitted(request.settings, self._settings)
        settings.setdefault("max_result_bytes", str(self._settings.analyst_memory_bytes))
        self._use_for_analyst(handle, request.database)
        sql = analyst.admit(handle, work.sql, self._database, self._engine.table_functions)
        handle.run("SET ROLE analyst")
        handle.set(settings | {"log_comment": _comment(tag, request), "readonly": "1"})
        return _read(handle, request, sql, stack)

    def _use_for_analyst(self, handle: Handle, wanted: str) -> None:
        if wanted not in ("", "default", self._database, "information_schema", "INFORMATION_SCHEMA"):
            raise QueryError(ACCESS_DENIED, f"analyst: the database {wanted} is not open to this user; use {self._database}")
        try:
            handle.use(wanted if wanted not in ("", "default") else self._database)
        except QueryError as error:
            # Before the first migration there is no database yet; SELECT 1 must work all the same.
            if error.code != UNKNOWN_DATABASE:
                raise


def _comment(tag: str, request: Request) -> str:
    """The query's log_comment: our tag, by which KILL finds it, and behind it the client's own."""
    return f"{tag} {request.settings.get('log_comment', '')}".rstrip()


def _streamed(request: Request, sql: bytes) -> bool:
    format_name = statement.output_format(sql, request.default_format)
    return not request.flag("wait_end_of_query") and statement.is_streamed(sql, format_name)


def _refuse(handle: Handle, work: Work, database: str) -> None:
    """What a server's HTTP interface does not do, the engine in this process would: refuse it as a server does."""
    if statement.touches_client_files(work.sql):
        raise QueryError(NOT_IMPLEMENTED, "INTO OUTFILE and FROM INFILE belong to a client, not to the HTTP interface")
    kind, count = handle.classify(work.sql, database or "default")
    if count > 1:
        raise QueryError(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed)")
    if kind == "CONTROL" and work.request.own.get("session_id") and statement.verb(work.sql) in ("SET", "USE", "CREATE"):
        raise QueryError(NOT_IMPLEMENTED, "sessions are not kept by the embedded endpoint: send settings and database with each query")


def _insert(handle: Handle, insert: statement.Insert, spool: Spool, request: Request) -> Answer:
    report = handle.run(insert.from_file(spool.path), params=request.params)
    written = {"written_rows": str(report.rows), "written_bytes": str(report.size)}
    return Answer(request.default_format, rows=report.rows, size=report.size, summary=written)


def _read(handle: Handle, request: Request, sql: bytes, stack: ExitStack) -> Answer:
    format_name = statement.output_format(sql, request.default_format)
    if not _streamed(request, sql):
        report = handle.run(sql, format_name, request.params)
        return Answer(format_name, report.data, rows=report.rows, size=report.size, summary=_read_summary(report))
    blocks = handle.stream(sql, format_name, request.params)
    stack.callback(blocks.close)
    first = next(blocks, None)
    if first is None:
        return Answer(format_name)
    return Answer(format_name, blocks=_chain(first, blocks), summary=_read_summary(first))


def _chain(first: Report, rest: Iterator[Report]) -> Iterator[Report]:
    yield first
    yield from rest


def _read_summary(report: Report) -> dict[str, str]:
    return {"read_rows": str(report.rows), "read_bytes": str(report.size), "result_rows": str(report.rows)}
