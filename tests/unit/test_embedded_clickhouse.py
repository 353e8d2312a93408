"""Do the endpoint's pure parts do what their names say: statements, errors, bodies, encodings, users, the analyst's words?"""

from __future__ import annotations

import base64
import gzip
import io
import zlib
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from millrace.infra.embedded.clickhouse import encode, hello
from millrace.infra.embedded.clickhouse.analyst import admitted, check_words
from millrace.infra.embedded.clickhouse.body import Budget, Incoming, Spool
from millrace.infra.embedded.clickhouse.errors import QueryError, from_engine
from millrace.infra.embedded.clickhouse.origin import is_loopback, refuse_foreign
from millrace.infra.embedded.clickhouse.request import Users, parse, parse_form
from millrace.infra.embedded.clickhouse.statement import (
    Incomplete,
    is_streamed,
    kind,
    output_format,
    parse_insert,
    touches_client_files,
    verb,
)
from millrace.infra.embedded.clickhouse.work import read_work
from millrace.infra.settings import EndpointSettings, Secret

SETTINGS = EndpointSettings()


def headers(**given: str) -> Message:
    made = Message()
    for name, value in given.items():
        made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    ("sql", "target", "settings", "name", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x00\x01", b"INSERT INTO t ", b"", "Native", b"\x00\x01"),
        (b"INSERT INTO t FORMAT Native\n\n \x01", b"INSERT INTO t ", b"", "Native", b"\n \x01"),
        (
            b"insert into a.b (x, `FORMAT y`) settings p='FORMAT z' format CSV  \r\n1,2",
            b"insert into a.b (x, `FORMAT y`) ",
            b"settings p='FORMAT z' ",
            "CSV",
            b"1,2",
        ),
        (b"INSERT INTO t VALUES (1)", b"INSERT INTO t ", b"", "Values", b" (1)"),
        (b"INSERT INTO format FORMAT TSV;\n1", b"INSERT INTO format ", b"", "TSV", b"1"),
        (b"INSERT INTO values VALUES (1)", b"INSERT INTO values ", b"", "Values", b" (1)"),
        (b"/* a */ INSERT INTO {t:Identifier} FORMAT TSV\n1", b"INSERT INTO {t:Identifier} ", b"", "TSV", b"1"),
        (b"INSERT INTO FUNCTION null('a UInt8') FORMAT TSV\n1", b"INSERT INTO FUNCTION null('a UInt8') ", b"", "TSV", b"1"),
    ],
)
def test_an_insert_is_cut_where_its_data_begins(sql: bytes, target: bytes, settings: bytes, name: str, data: bytes) -> None:
    insert = parse_insert(sql, complete=True)
    assert insert is not None
    assert (insert.target, insert.settings, insert.format, sql[insert.data_offset :]) == (target, settings, name, data)


def test_settings_stand_between_infile_and_format() -> None:
    insert = parse_insert(b"INSERT INTO t -- a comment\nSETTINGS x = 1 FORMAT CSV\n1", complete=True)
    assert insert is not None
    lines = [line.strip() for line in insert.from_file("/p").split("\n") if line.strip()]
    assert lines == ["INSERT INTO t -- a comment", "FROM INFILE '/p' COMPRESSION 'none'", "SETTINGS x = 1", "FORMAT CSV"]


@pytest.mark.parametrize(
    "sql",
    [
        b"SELECT 1",
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t (a) WITH 1 AS b SELECT b",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
    ],
)
def test_what_brings_no_data_is_no_such_insert(sql: bytes) -> None:
    assert parse_insert(sql, complete=True) is None


def test_the_head_is_found_however_the_bytes_come() -> None:
    sql = b"INSERT INTO db.t (a, b) SETTINGS x = 'it''s FORMAT CSV' FORMAT Native\n\x07\x08\x09\x0a"
    for size in range(len(sql) - 3):
        with pytest.raises(Incomplete):
            parse_insert(sql[: min(size, sql.index(b"FORMAT Native") + 13)], complete=False)
    assert parse_insert(sql, complete=False) == parse_insert(sql, complete=True)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"SELECT 1", "TSV"),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 'FORMAT CSV' -- FORMAT XML", "TSV"),
        (b"SELECT * FROM (SELECT 1 FORMAT CSV)", "TSV"),
        (b"SELECT 1 FORMAT JSON SETTINGS a = 1;", "JSON"),
        (b"SELECT format FROM t", "TSV"),
    ],
)
def test_the_output_format(sql: bytes, expected: str) -> None:
    assert output_format(sql, "TSV") == expected


def test_what_is_streamed() -> None:
    assert is_streamed(b"(SELECT 1)", "TSV")
    assert not is_streamed(b"SELECT 1", "JSON")
    assert not is_streamed(b"SHOW TABLES", "TSV")
    assert not is_streamed(b"SELECT 1 GROUP BY 1 WITH TOTALS", "TSV")


def test_verbs_and_kinds() -> None:
    assert verb(b"-- x\n /* y */ ((select 1))") == "SELECT"
    assert (kind(b"kill query where 1"), kind(b"gibberish"), kind(b"")) == ("kill", "other", "other")
    assert touches_client_files(b"SELECT 1 INTO /* x */ OUTFILE 'y'")
    assert not touches_client_files(b"SELECT 'INTO OUTFILE'")


@pytest.mark.parametrize(
    ("message", "code", "name", "text"),
    [
        ("Code: 60. DB::Exception: No table t. (UNKNOWN_TABLE)", 60, "UNKNOWN_TABLE", "No table t."),
        ("Streaming query failed: Code: 159. DB::Exception: Slow (a). (TIMEOUT_EXCEEDED)", 159, "TIMEOUT_EXCEEDED", "Slow (a)."),
        ("no code at all", 1001, "STD_EXCEPTION", "no code at all"),
    ],
)
def test_the_engines_errors_keep_code_and_name(message: str, code: int, name: str, text: str) -> None:
    error = from_engine(message)
    assert (error.code, error.name, str(error)) == (code, name, text)
    assert error.body("1.2").startswith(f"Code: {code}. DB::Exception: {text} ({name}) (version 1.2".encode())


def read(data: bytes, **given: str) -> bytes:
    return Incoming(io.BytesIO(data), headers(**{"Content_Length": str(len(data)), **given})).read(1 << 30)


ROWS = b"".join(b"%d\n" % number for number in range(400_000))


@pytest.mark.parametrize(
    ("encoding", "data"), [("gzip", gzip.compress(ROWS)), ("deflate", zlib.compress(ROWS)), ("lz4", lz4.frame.compress(ROWS))]
)
def test_bodies_are_decompressed_frame_after_frame(encoding: str, data: bytes) -> None:
    assert read(data, Content_Encoding=encoding) == ROWS
    assert read(data + data, Content_Encoding=encoding) == ROWS + ROWS
    for broken in (data[:-20], b"nonsense"):
        with pytest.raises(QueryError) as refused:
            read(broken, Content_Encoding=encoding)
        assert refused.value.code == 354


@pytest.mark.parametrize("accepted", ["gzip", "deflate", "lz4", "zstd", "br, zstd;q=0.5", "identity", "gzip;q=0"])
def test_what_is_encoded_decodes_to_the_same(accepted: str) -> None:
    encoder = encode.choose(accepted)
    data = b"".join(encoder.encode(piece) for piece in (ROWS[:1000], b"", ROWS[1000:])) + encoder.finish()
    assert read(data, **({"Content_Encoding": encoder.name} if encoder.name else {})) == ROWS
    assert (len(data) < len(ROWS) * 0.8) == bool(encoder.name)


def test_chunked_bodies() -> None:
    whole = headers(Transfer_Encoding="chunked")
    assert Incoming(io.BytesIO(b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), whole).read(100) == b"abc0123456789"
    with pytest.raises(ConnectionResetError):
        Incoming(io.BytesIO(b"3\r\nab"), whole).read(100)
    with pytest.raises(QueryError, match="malformed"):
        Incoming(io.BytesIO(b"zz\r\nab"), whole).read(100)


def test_a_spool_counts_against_its_limit_and_the_budget() -> None:
    budget = Budget(10)
    spool = Spool(budget, 8)
    spool.write(b"12345678")
    with pytest.raises(QueryError) as large:
        spool.write(b"9")
    other = Spool(budget, 8)
    with pytest.raises(QueryError) as much:
        other.write(b"123")
    assert (large.value.code, much.value.code, budget.used_bytes) == (307, 241, 8)
    spool.close()
    other.close()
    assert budget.used_bytes == 0


def request(query_string: str = "", users: Users | None = None, **given: str) -> Any:
    return parse("POST", query_string, {}, headers(**given), users or Users(SETTINGS))


def test_a_request_is_taken_apart() -> None:
    made = request("query=SELECT+1&database=d&param_a=1&max_threads=2&wait_end_of_query=1", Accept_Encoding="gzip")
    assert (made.sql, made.database, made.params, made.settings) == ("SELECT 1", "d", {"a": "1"}, {"max_threads": "2"})
    assert (made.user, made.flag("wait_end_of_query"), made.accept_encoding, made.default_format) == (
        "default",
        True,
        "gzip",
        "TabSeparated",
    )


@pytest.mark.parametrize(
    ("query_string", "code"), [("compress=1", 48), ("user=root", 516), ("query_id=a%0d%0aX:+y", 36), ("default_format=a%0ab", 36)]
)
def test_requests_that_are_refused(query_string: str, code: int) -> None:
    with pytest.raises(QueryError) as refused:
        request(query_string)
    assert refused.value.code == code


def test_passwords_in_each_of_their_places() -> None:
    users = Users(EndpointSettings(password=Secret("a"), analyst_password=Secret("b")))
    basic = "Basic " + base64.b64encode(b"analyst:b").decode()
    assert request("", users, Authorization=basic).is_analyst
    assert request("", users, X_ClickHouse_User="default", X_ClickHouse_Key="a").user == "default"
    assert request("user=analyst&password=b", users).is_analyst
    for wrong in ("user=analyst&password=a", "user=default", ""):
        with pytest.raises(QueryError):
            request(wrong, users)


def test_forms_have_fields_and_no_files() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="query"%s\r\n\r\nSELECT 1\r\n--b--\r\n'
    assert parse_form("multipart/form-data; boundary=b", part % b"") == {"query": "SELECT 1"}
    with pytest.raises(QueryError, match="external tables"):
        parse_form("multipart/form-data; boundary=b", part % b'; filename="x"')


@pytest.mark.parametrize(
    ("query_string", "pieces", "sql", "data"),
    [
        ("query=SELECT+1", [b"+ 2"], b"SELECT 1\n+ 2", None),
        ("", [b"SELECT", b" 1"], b"SELECT 1", None),
        ("query=INSERT+INTO+t+FORMAT+Native%0A", [b"\n\x01", b"\x02"], b"INSERT INTO t FORMAT Native\n", b"\n\x01\x02"),
        ("", [b"INSERT INTO t FOR", b"MAT TSV", b"\n1\n"], b"INSERT INTO t FORMAT TSV\n", b"1\n"),
    ],
)
def test_work_is_read_from_url_and_body(query_string: str, pieces: list[bytes], sql: bytes, data: bytes | None) -> None:
    with ExitStack() as stack:
        work = read_work(request(query_string), iter(pieces), lambda: Spool(Budget(100), 100), stack)
        assert work.sql == sql
        assert (None if work.spool is None else Path(work.spool.path).read_bytes()) == data


def test_the_analysts_settings_are_clamped() -> None:
    caps = EndpointSettings(analyst_execution_seconds=2.5, analyst_memory_bytes=100, analyst_threads=3)
    full = {"max_execution_time": "2.5", "max_memory_usage": "100", "max_threads": "3"}
    assert admitted({}, caps) == full
    assert admitted({"max_execution_time": "0", "max_memory_usage": "101", "max_threads": "nan", "readonly": "0"}, caps) == full
    assert admitted({"max_execution_time": "1", "max_block_size": "7"}, caps) == full | {"max_execution_time": "1.0", "max_block_size": "7"}
    for name, value in (("allow_ddl", "1"), ("max_threads", "many"), ("join_use_nulls", "1")):
        with pytest.raises(QueryError) as refused:
            admitted({name: value}, caps)
        assert refused.value.code == 164


FUNCTIONS = frozenset({"url", "numbers", "merge"})


@pytest.mark.parametrize(
    "sql", ["SELECT 'file(', url FROM v_x", "SELECT * FROM numbers(3)", "SELECT name FROM system.tables", "SHOW TABLES"]
)
def test_words_that_pass(sql: str) -> None:
    check_words(sql.encode(), FUNCTIONS)


@pytest.mark.parametrize(
    "sql",
    ["SELECT `file`('x')",
     "SELECT * FROM url('x')", "SELECT * FROM `merge`(1)", "SELECT a$$, file('x'), b$$", "SELECT 1 /* x */", "SELECT 'x",
     "SELECT * FROM system.processes", "SELECT 1 IN system", "SHOW PROCESSLIST", "SHOW", "", "VALUES (1)", "SELECT {x:Identifier}"],
)  # fmt: skip
def test_words_that_do_not_pass(sql: str) -> None:
    with pytest.raises(QueryError):
        check_words(sql.encode(), FUNCTIONS)


def test_the_hello_block_is_what_clickhouse_go_reads() -> None:
    assert hello.is_hello(b"SELECT displayName(), version(), revision(), timezone()", "54485", "Native")
    assert not hello.is_hello(b"SELECT displayName(), version(), revision(), timezone()", "", "Native")
    block = hello.block("millrace", "26.9", "UTC")
    assert block.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00\x08millrace")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in block


def test_loopback_and_origins() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.9.1", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "example.org", "192.0.2.1", "", "localhost.example.org"))
    refuse_foreign(headers(Host="127.0.0.1:8123", Origin="http://localhost:3000"))
    for given in ({"Host": "example.org:8123"}, {"Host": "localhost", "Origin": "null"}):
        with pytest.raises(QueryError):
            refuse_foreign(headers(**given))
