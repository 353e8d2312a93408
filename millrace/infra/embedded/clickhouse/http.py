"""ClickHouse's HTTP interface: routes, bodies in, answers out, errors as a server words them."""

from __future__ import annotations

import json
import select
import time
import uuid
from contextlib import ExitStack, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from millrace.infra.embedded.clickhouse import encode, statement
from millrace.infra.embedded.clickhouse.body import Incoming
from millrace.infra.embedded.clickhouse.errors import ENGINE_FAILED, NETWORK_ERROR, QueryError
from millrace.infra.embedded.clickhouse.journal import Entry
from millrace.infra.embedded.clickhouse.origin import refuse_foreign
from millrace.infra.embedded.clickhouse.request import Request, parse, parse_form
from millrace.infra.embedded.clickhouse.server import EndpointServer
from millrace.infra.embedded.clickhouse.service import DISPLAY_NAME, Answer
from millrace.infra.embedded.clickhouse.watch import Running
from millrace.infra.embedded.clickhouse.work import STATEMENT_BYTES, read_work

EXCEPTION_BYTES = 8 << 10
LINGER_SECONDS = 2.0
# How long a client may neither send nor take a byte of a request under way; a server has 180 s.
TRANSFER_SECONDS = 180.0
PLAIN = "text/plain; charset=UTF-8"
CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
}


NO_SUMMARY = dict.fromkeys(
    ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows", "result_bytes"), "0"
)


class Handler(BaseHTTPRequestHandler):
    """One connection. A request is read whole before it takes a place, so that a slow sender holds none."""

    server: EndpointServer
    protocol_version = "HTTP/1.1"
    server_version = "millrace-clickhouse"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def setup(self) -> None:
        self.request.settimeout(self.server.settings.keep_alive_seconds)
        super().setup()

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def log_message(self, format: str, *args: Any) -> None:
        """The journal has a line for each query; the base class's own lines are not wanted."""

    def _route(self) -> None:
        self._begun = self._broken = False
        path, query_string = (part := urlsplit(self.path)).path, part.query
        if self.server.draining.is_set():
            self.close_connection = True
        match path:
            case "/ping" | "/replicas_status":
                self._send(HTTPStatus.OK, b"Ok.\n", PLAIN)
            case "/metrics":
                self._send(HTTPStatus.OK, self.server.metrics(), "text/plain; version=0.0.4; charset=utf-8")
            case "/" | "/query" if self.command == "HEAD" or (self.command == "GET" and "query=" not in query_string):
                self._send(HTTPStatus.OK, b"Ok.\n", PLAIN)
            case "/" | "/query":
                self._query(query_string)
            case _:
                text = f"There is no handle {path}\nUse / or /ping or /replicas_status or /metrics.\n"
                self._send(HTTPStatus.NOT_FOUND, text.encode(), PLAIN)

    def _query(self, query_string: str) -> None:
        """Answer one query and write its log line, whatever happens. It is watched until then: a drain waits for an error's answer too."""
        begun, entry = time.monotonic(), Entry(query_id=str(uuid.uuid4()))
        self.connection.settimeout(TRANSFER_SECONDS)
        with ExitStack() as watched:
            try:
                self._try(query_string, entry, watched)
            finally:
                entry.seconds = time.monotonic() - begun
                self.server.journal.query(entry)
                self.connection.settimeout(self.server.settings.keep_alive_seconds)

    def _try(self, query_string: str, entry: Entry, watched: ExitStack) -> None:
        incoming: Incoming | None = None
        try:
            incoming = Incoming(self.rfile, self.headers)
            with ExitStack() as stack:
                self._run(query_string, incoming, entry, stack, watched)
        except QueryError as error:
            self._fail(error, incoming, entry)
        except OSError:
            # The client is gone (or its kept-alive time is over): nothing to say to it.
            entry.error = entry.error or NETWORK_ERROR
            self.close_connection = True
        except Exception as error:  # noqa: BLE001  the client must get an answer, the log the reason
            self.server.journal.line("request failed", query_id=entry.query_id, error=f"{type(error).__name__}: {error}")
            self._fail(QueryError(ENGINE_FAILED, f"the endpoint failed: {type(error).__name__}: {error}"), incoming, entry)

    def _run(self, query_string: str, incoming: Incoming, entry: Entry, stack: ExitStack, watched: ExitStack) -> None:
        refuse_foreign(self.headers)
        request = parse(self.command, query_string, self._form(incoming), self.headers, self.server.users)
        entry.query_id, entry.user = request.query_id, request.user
        work = read_work(request, iter(incoming), self.server.new_spool, stack)
        entry.kind = statement.kind(work.sql)
        entry.body_bytes = work.body_bytes
        running = Running(request.query_id, f"endpoint:{uuid.uuid4()}", self.connection, killable=work.insert is None)
        self.server.enter(running)
        watched.callback(self.server.watch.leave, running)
        stack.callback(self.server.watch.answered, running)
        stack.enter_context(self.server.limits.take(work.kind, running.gone))
        answer = self.server.service.answer(work, running.tag, stack)
        entry.rows, entry.bytes = answer.rows, answer.size
        self._answer(running, request, answer, entry)

    def _form(self, incoming: Incoming) -> dict[str, str]:
        content_type = self.headers.get("Content-Type") or ""
        if not content_type.lower().startswith("multipart/form-data"):
            return {}
        return parse_form(content_type, incoming.read(STATEMENT_BYTES))

    def _answer(self, running: Running, request: Request, answer: Answer, entry: Entry) -> None:
        encoder = encode.choose(request.accept_encoding) if answer.blocks or answer.data else encode.Plain()
        headers = self._query_headers(request.query_id, answer)
        if encoder.name:
            headers["Content-Encoding"] = encoder.name
        if answer.blocks is None:
            data = encoder.encode(answer.data) + encoder.finish()
            self.server.watch.answered(running)
            self._send(HTTPStatus.OK, data, CONTENT_TYPES.get(answer.format, PLAIN), headers)
            return
        self._stream(answer, encoder, headers, entry)
        self.server.watch.answered(running)
        self._end_chunks()

    def _query_headers(self, query_id: str, answer: Answer) -> dict[str, str]:
        return {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": DISPLAY_NAME,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
            "X-ClickHouse-Format": answer.format,
            "X-ClickHouse-Summary": json.dumps(NO_SUMMARY | answer.summary, separators=(",", ":")),
        }

    def _stream(self, answer: Answer, encoder: encode.Encoder, headers: dict[str, str], entry: Entry) -> None:
        tag = uuid.uuid4().hex[:16]
        headers |= {"X-ClickHouse-Exception-Tag": tag}
        self._head(HTTPStatus.OK, CONTENT_TYPES.get(answer.format, PLAIN), headers | {"Transfer-Encoding": "chunked"})
        entry.rows = entry.bytes = 0
        try:
            for block in answer.blocks or ():
                entry.rows += block.rows
                entry.bytes += len(block.data)
                self._chunk(encoder.encode(block.data))
        except QueryError as error:
            entry.error = error.code
            self._break_off(error, encoder, tag)
            return
        self._chunk(encoder.finish())

    def _break_off(self, error: QueryError, encoder: encode.Encoder, tag: str) -> None:
        """Say the error inside the body, framed by the tag, and leave the chunked body unfinished: no client takes it for whole."""
        self._broken = True
        text = error.body(self.server.engine.version)[:EXCEPTION_BYTES].rstrip() + b"\n"
        frame = f"\r\n__exception__\r\n{tag}\r\n".encode() + text + f"{len(text)} {tag}\r\n__exception__\r\n".encode()
        self._chunk(encoder.encode(frame) + encoder.finish())
        self.wfile.flush()
        # A client that decompresses in another task reads the error first if the connection outlives it a little.
        select.select([self.connection], [], [], LINGER_SECONDS)
        self.close_connection = True

    def _fail(self, error: QueryError, incoming: Incoming | None, entry: Entry) -> None:
        """Answer with the error. A body that was not read to its end is read first, or the connection given up."""
        entry.error = error.code
        if self._begun or incoming is None or not incoming.discard(self.server.settings.body_bytes):
            self.close_connection = True
        if self._begun:
            return
        headers = {"X-ClickHouse-Exception-Code": str(error.code), "X-ClickHouse-Query-Id": entry.query_id}
        with suppress(OSError):
            self._send(error.status, error.body(self.server.engine.version), PLAIN, headers)

    def _send(self, status: int, data: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        self._head(status, content_type, (headers or {}) | {"Content-Length": str(len(data))})
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self._begun = True
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection or self.server.draining.is_set():
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Connection", "Keep-Alive")
            self.send_header("Keep-Alive", f"timeout={int(self.server.settings.keep_alive_seconds)}")
        self.end_headers()

    def _end_chunks(self) -> None:
        """The end of a body that is whole; a broken one has none."""
        if not self._broken:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode())
            self.wfile.write(data)
            self.wfile.write(b"\r\n")
