"""Is the HTTP interface what its documentation says: routes, parameters, formats, compression, errors?"""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import subprocess
import zlib
from typing import Any

import lz4.frame
import pyarrow.parquet
import pytest

from tests.contract.clickhouse.endpoint import Endpoint, ask, expect


@pytest.mark.parametrize("path", ["/ping", "/replicas_status", "/"])
def test_liveness(url: str, path: str) -> None:
    reply = ask(url, method="GET", path=path)
    assert (reply.status, reply.text) == (200, "Ok.\n")


def test_an_unknown_path_says_what_there_is(url: str) -> None:
    reply = ask(url, method="GET", path="/nothing")
    assert reply.status == 404
    assert "/ping" in reply.text


def test_get_reads_and_does_not_write(url: str, database: str) -> None:
    assert ask(url, method="GET", query="SELECT 1").text == "1\n"
    assert ask(url, method="GET", query=f"CREATE TABLE {database}.t (a UInt8) ENGINE = Memory").code == 164
    assert ask(url, method="GET", query="SELECT getSetting('max_threads')", max_threads=1).text == "1\n"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 AS a, 'x' AS b", "1\tx\n"),
        ("SELECT 1 AS a, 'x' AS b FORMAT CSV", '1,"x"\n'),
        ("SELECT 1 AS a, 'x' AS b FORMAT TabSeparatedWithNames", "a\tb\n1\tx\n"),
        ("SELECT 1 AS a, 'x' AS b FORMAT JSONEachRow", '{"a":1,"b":"x"}\n'),
        ("SELECT 'FORMAT JSON' -- FORMAT JSON", "FORMAT JSON\n"),
        ("SELECT count() FROM numbers(3) GROUP BY number > 9 WITH TOTALS", "3\n\n3\n"),
        ("EXISTS TABLE system.one", "1\n"),
        ("", ""),
    ],
)
def test_format_clauses(url: str, sql: str, expected: str) -> None:
    if sql:
        assert expect(url, sql) == expected
    else:
        assert ask(url, sql).code == 62


def test_a_query_split_between_url_and_body_is_one(url: str) -> None:
    assert expect(url, "+ 2 FORMAT CSV", query="SELECT 1") == "3\n"


def test_formats_with_a_frame_are_whole(url: str) -> None:
    reply = ask(url, "SELECT number FROM numbers(200000) FORMAT JSON")
    assert reply.headers["content-type"].startswith("application/json")
    assert json.loads(reply.body)["rows"] == 200_000
    parquet = pyarrow.parquet.read_table(io.BytesIO(ask(url, "SELECT number FROM numbers(200000) FORMAT Parquet").body))
    assert parquet.num_rows == 200_000


@pytest.mark.parametrize("name", ["TabSeparated", "TSV", "CSV", "RowBinary", "Native", "JSONEachRow", "JSONCompactEachRow"])
def test_a_streamed_result_is_the_materialized_one(url: str, name: str) -> None:
    sql = f"SELECT number, toString(number) AS s FROM numbers(150000) ORDER BY number FORMAT {name}"
    streamed, whole = ask(url, sql, max_threads=1), ask(url, sql, wait_end_of_query=1, max_threads=1)
    assert streamed.headers.get("transfer-encoding") == "chunked"
    assert streamed.body == whole.body


def test_parameters_bind_on_the_server(url: str) -> None:
    sql = "SELECT {a:UInt8} + 1, {b:String}, {c:Array(String)}, {d:Nullable(Int32)} IS NULL"
    assert expect(url, sql, param_a=1, param_b="o'neil\\t", param_c="['x','y']", param_d="\\N") == "2\to\\'neil\\t\t['x','y']\t1\n"
    assert ask(url, "SELECT {a:UInt8}").code == 456
    assert ask(url, "SELECT {a:UInt8}", param_a="x").code == 457


def test_parameters_come_in_a_form_too(url: str) -> None:
    parts = {"query": "SELECT {a:UInt8} * 2", "param_a": "21"}
    body = (
        "".join(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts.items()) + "--x--\r\n"
    )
    assert ask(url, body, headers={"Content-Type": "multipart/form-data; boundary=x"}).text == "42\n"


def test_settings_pass_through(url: str) -> None:
    assert expect(url, "SELECT getSetting('max_block_size')", max_block_size=123) == "123\n"
    assert ask(url, "SELECT 1", no_such_setting=1).code == 115
    assert expect(url, "SELECT currentDatabase()", database="system") == "system\n"
    assert ask(url, "SELECT 1", database="nowhere").code == 81


def test_settings_leave_nothing_behind(url: str) -> None:
    expect(url, "SELECT 1", max_block_size=77)
    expect(url, "SET max_block_size = 78")
    assert expect(url, "SELECT getSetting('max_block_size') IN (77, 78)") == "0\n"


@pytest.mark.parametrize(
    ("sql", "code", "name", "status"),
    [
        ("SELEC 1", 62, "SYNTAX_ERROR", 400),
        ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE", 404),
        ("SELECT throwIf(1)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", 500),
        ("SELECT 1; SELECT 2", 62, "SYNTAX_ERROR", 400),
        ("SELECT nothing", 47, "UNKNOWN_IDENTIFIER", 404),
    ],
)
def test_errors_have_code_name_and_status(url: str, sql: str, code: int, name: str, status: int) -> None:
    reply = ask(url, sql)
    assert (reply.code, reply.status) == (code, status)
    assert reply.text.startswith(f"Code: {code}. DB::Exception: ")
    assert f"({name})" in reply.text


def test_an_error_in_the_middle_is_framed_by_its_tag_and_never_looks_whole(url: str) -> None:
    settings: dict[str, Any] = {"max_block_size": 10_000, "max_threads": 1}
    with pytest.raises(Exception, match="IncompleteRead") as broken:
        ask(url, "SELECT throwIf(number = 150000) FROM numbers(200000)", **settings)
    partial = broken.value.partial  # type: ignore[attr-defined]
    assert re.search(rb"\r\n__exception__\r\n(\w{16})\r\nCode: 395.*\n(\d+) \1\r\n__exception__\r\n$", partial, re.DOTALL)
    assert ask(url, "SELECT throwIf(number = 150000) FROM numbers(200000)", wait_end_of_query=1, **settings).code == 395


COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress, "lz4": lz4.frame.compress}


@pytest.mark.parametrize("encoding", COMPRESS)
def test_bodies_may_be_compressed(url: str, database: str, encoding: str) -> None:
    expect(url, f"CREATE TABLE {database}.t (a UInt32) ENGINE = MergeTree ORDER BY a")
    data = COMPRESS[encoding](b"".join(b"%d\n" % number for number in range(100_000)))
    reply = ask(url, data, headers={"Content-Encoding": encoding}, query=f"INSERT INTO {database}.t FORMAT TSV")
    assert (reply.status, reply.text) == (200, "")
    assert expect(url, f"SELECT count(), max(a) FROM {database}.t") == "100000\t99999\n"


def test_answers_may_be_compressed(url: str) -> None:
    reply = ask(url, "SELECT number FROM numbers(100000)", headers={"Accept-Encoding": "gzip"}, enable_http_compression=1)
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body).count(b"\n") == 100_000
    plain = ask(url, "SELECT 1", headers={"Accept-Encoding": "gzip"}, enable_http_compression=0)
    assert (plain.headers.get("content-encoding"), plain.text) == (None, "1\n")


INSERTS = [
    ("INSERT INTO {t} (a, b) FORMAT CSV", b"1,x\n2,y\n"),
    ("INSERT INTO {t} SETTINGS async_insert = 0 FORMAT JSONEachRow", b'{"a":1,"b":"x"}\n{"a":2,"b":"y"}'),
    ("INSERT INTO {t} VALUES", b"(1, 'x'), (2, lower('Y'))"),
    ("", b"INSERT INTO {t} VALUES (1, 'x'), ({two:UInt32}, 'y')"),
    ("", b"INSERT INTO {t} (b, a) FORMAT TSV\nx\t1\ny\t2\n"),
    ("", b"insert into {t} format CSV 1,x\n2,y\n"),
    ("", b"/* FORMAT x */ INSERT INTO TABLE {t} -- VALUES\n(a, `b`) FORMAT RowBinary\n\x01\x00\x00\x00\x01x\x02\x00\x00\x00\x01y"),
    ("", b"INSERT INTO {t} SELECT number + 1, ['x', 'y'][number + 1] FROM numbers(2)"),
    ("", b"INSERT INTO {t} WITH 1 AS one SELECT one, 'x' UNION ALL SELECT 2, 'y'"),
    ("INSERT INTO {t} FORMAT", b"TSV\n1\tx\n2\ty\n"),
]


@pytest.mark.parametrize(("query", "body"), INSERTS)
def test_inserts_in_every_form(url: str, database: str, query: str, body: bytes) -> None:
    table = f"{database}.`format`"
    expect(url, f"CREATE TABLE {table} (a UInt32, b String) ENGINE = MergeTree ORDER BY a")
    reply = ask(url, body.replace(b"{t}", table.encode()), query=query.replace("{t}", table), param_two=2)
    assert (reply.status, reply.text) == (200, "")
    assert expect(url, f"SELECT * FROM {table} ORDER BY a") == "1\tx\n2\ty\n"


def test_an_insert_tells_what_it_wrote(url: str, database: str) -> None:
    expect(url, f"CREATE TABLE {database}.t (a UInt32) ENGINE = MergeTree ORDER BY a")
    reply = ask(url, f"INSERT INTO {database}.t FORMAT TSV\n1\n2\n3\n", query_id=f"{database}-insert")
    assert json.loads(reply.headers["x-clickhouse-summary"])["written_rows"] == "3"
    assert reply.headers["x-clickhouse-query-id"] == f"{database}-insert"


def test_a_bad_row_stores_nothing(url: str, database: str) -> None:
    expect(url, f"CREATE TABLE {database}.t (a UInt32) ENGINE = MergeTree ORDER BY a")
    rows = b"".join(b"%d\n" % number for number in range(9_000)) + b"bad\n"
    assert ask(url, rows, query=f"INSERT INTO {database}.t FORMAT TSV").code == 27
    assert expect(url, f"SELECT count() FROM {database}.t") == "0\n"


def test_a_constraint_is_an_error_and_not_a_success(url: str, database: str) -> None:
    expect(url, f"CREATE TABLE {database}.t (a UInt32, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree ORDER BY a")
    reply = ask(url, f"INSERT INTO {database}.t FORMAT TSV\n11\n")
    assert (reply.code, reply.status) == (469, 500)
    assert expect(url, f"SELECT count() FROM {database}.t") == "0\n"


def test_a_token_stores_once_in_table_and_view(url: str, database: str) -> None:
    window = "SETTINGS non_replicated_deduplication_window = 100"
    expect(url, f"CREATE TABLE {database}.t (a UInt32) ENGINE = MergeTree ORDER BY a {window}")
    expect(url, f"CREATE TABLE {database}.s (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple() {window}")
    expect(url, f"CREATE MATERIALIZED VIEW {database}.mv TO {database}.s AS SELECT count() AS n FROM {database}.t")
    for token in ("one", "one", "two", "one"):
        settings = {"insert_deduplication_token": token, "async_insert": 0, "deduplicate_blocks_in_dependent_materialized_views": 1}
        expect(url, f"INSERT INTO {database}.t FORMAT TSV\n1\n2\n", wait_end_of_query=1, **settings)
    assert expect(url, f"SELECT count() FROM {database}.t") == "4\n"
    assert expect(url, f"SELECT sum(n) FROM {database}.s") == "4\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(url: str, database: str) -> None:
    def curl(*arguments: str, data: bytes = b"") -> bytes:
        return subprocess.run(
            ("curl", "-sS", "--fail-with-body", *arguments), input=data, capture_output=True, check=True, timeout=30
        ).stdout

    assert curl(f"{url}/ping") == b"Ok.\n"
    assert curl("-G", url, "--data-urlencode", "query=SELECT 1 FORMAT CSV") == b"1\n"
    assert curl(url, "-d", "SELECT 1 AS a FORMAT JSONEachRow") == b'{"a":1}\n'
    assert curl("--compressed", f"{url}?enable_http_compression=1", "-d", "SELECT count() FROM numbers(10)") == b"10\n"
    curl(url, "-d", f"CREATE TABLE {database}.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    rows = b"".join(b"%d\n" % number for number in range(500_000))
    curl(f"{url}?query=INSERT+INTO+{database}.t+FORMAT+TSV", "--data-binary", "@-", data=rows)
    insert = f"{url}?query=INSERT+INTO+{database}.t+FORMAT+TSV"
    curl(insert, "-H", "Content-Encoding: gzip", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", data=gzip.compress(rows))
    parquet = curl(url, "-d", f"SELECT a FROM {database}.t FORMAT Parquet")
    assert pyarrow.parquet.read_table(io.BytesIO(parquet)).num_rows == 1_000_000


def test_native_block_compression_is_refused_by_name(endpoint: Endpoint) -> None:
    assert ask(endpoint.url, "SELECT 1", compress=1).code == 48


def test_files_of_a_client_are_not_the_servers(endpoint: Endpoint) -> None:
    target = endpoint.folder.parent / "out.csv"
    assert ask(endpoint.url, f"SELECT 1 INTO OUTFILE '{target}'").code == 48
    assert ask(endpoint.url, "INSERT INTO t FROM INFILE '/etc/hostname' FORMAT LineAsString").code == 48
    assert not target.exists()


@pytest.mark.parametrize("headers", [{"Origin": "https://example.org"}, {"Host": "example.org"}])
def test_web_pages_of_elsewhere_are_refused(endpoint: Endpoint, headers: dict[str, str]) -> None:
    assert ask(endpoint.url, "SELECT 1", headers=headers).code == 497


def test_state_that_would_be_lost_is_refused(endpoint: Endpoint) -> None:
    for sql in ("SET max_threads = 1", "CREATE TEMPORARY TABLE t (a UInt8)", "USE system"):
        assert ask(endpoint.url, sql, session_id="s").code == 48
    assert ask(endpoint.url, "SELECT 1", session_id="s").text == "1\n"


def test_a_query_has_a_log_line_and_metrics(endpoint: Endpoint) -> None:
    ask(endpoint.url, "SELECT number FROM numbers(7)", query_id="logged")
    line = endpoint.wait_for("query", 30, query_id="logged")
    assert (line["user"], line["kind"], line["rows"], line["error"]) == ("default", "select", 7, 0)
    assert line["seconds"] > 0
    assert line["bytes"] > 0
    ask(endpoint.url, "SELEC", query_id="broken")
    assert endpoint.wait_for("query", 30, query_id="broken")["error"] == 62
    assert (
        'clickhouse_endpoint_queries_total{error="0",kind="select",user="default"}' in ask(endpoint.url, path="/metrics", method="GET").text
    )
