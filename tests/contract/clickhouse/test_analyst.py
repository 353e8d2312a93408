"""Can the analyst read views and nothing else, however the statement is written?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.contract.clickhouse.endpoint import Endpoint, Reply, ask, expect

PASSWORD = "views-only"
SECRET = "the-secret-of-the-raw-table"
FILE_SECRET = "the-secret-of-the-file"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint with a password for analysts, tight caps, one raw table and one view of part of it."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "secret.txt").write_text(FILE_SECRET)
    settings = {"analyst_execution_seconds": 3, "analyst_memory_bytes": 100 << 20, "analyst_threads": 1}
    with Endpoint(folder / "data", analyst_password=PASSWORD, **settings) as running:
        for statement in (
            "CREATE DATABASE millrace",
            "CREATE TABLE millrace.raw (id UInt32, secret String) ENGINE = MergeTree ORDER BY id",
            f"INSERT INTO millrace.raw VALUES (1, '{SECRET}'), (2, '{SECRET}')",
            "CREATE TABLE millrace.joinable (id UInt32, secret String) ENGINE = Join(ANY, LEFT, id)",
            f"INSERT INTO millrace.joinable VALUES (1, '{SECRET}')",
            "CREATE DICTIONARY millrace.d (id UInt32, secret String) PRIMARY KEY id SOURCE(CLICKHOUSE(TABLE 'raw' DB 'millrace')) "
            "LAYOUT(FLAT()) LIFETIME(0)",
            "CREATE VIEW millrace.v_ids DEFINER = CURRENT_USER SQL SECURITY DEFINER AS SELECT id FROM millrace.raw",
            "ALTER TABLE millrace.v_ids COMMENT COLUMN id 'which one'",
            "CREATE VIEW millrace.v_invoker SQL SECURITY INVOKER AS SELECT id, secret FROM millrace.raw",
            "CREATE VIEW millrace.hidden DEFINER = CURRENT_USER SQL SECURITY DEFINER AS SELECT * FROM millrace.raw",
            "CREATE VIEW millrace.v_limited DEFINER = CURRENT_USER SQL SECURITY DEFINER AS "
            "SELECT id FROM millrace.raw WHERE id = {wanted:UInt32}",
        ):
            expect(running.url, statement)
        yield running


def analyst(running: Endpoint, sql: str, **params: Any) -> Reply:
    return ask(running.url, sql, headers={"X-ClickHouse-User": "analyst", "X-ClickHouse-Key": PASSWORD}, **params)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT sum(id) FROM millrace.v_ids", "3\n"),
        ("SELECT sum(id) FROM v_ids", "3\n"),
        ("SELECT count() FROM v_ids AS a JOIN millrace.v_ids AS b USING id", "2\n"),
        ("WITH t AS (SELECT id FROM v_ids) SELECT max(id) FROM t", "2\n"),
        ("FROM v_ids SELECT min(id)", "1\n"),
        ("(SELECT 1) UNION ALL (SELECT 1)", "1\n1\n"),
        ("SELECT * FROM v_limited(wanted = 2)", "2\n"),
        ("SELECT 'file(', $$url('x')$$ /* executable( */ -- python(", "file(\turl(\\'x\\')\n"),
        ("SELECT id FROM v_ids ORDER BY id FORMAT JSONEachRow", '{"id":1}\n{"id":2}\n'),
        ("SHOW TABLES FROM millrace", "v_ids\nv_invoker\nv_limited\n"),
        ("SELECT name FROM system.tables WHERE database = 'millrace' ORDER BY name", "v_ids\nv_invoker\nv_limited\n"),
        ("SELECT comment FROM system.columns WHERE database = 'millrace' AND table = 'v_ids'", "which one\n"),
        ("SELECT table_name FROM information_schema.tables WHERE table_schema = 'millrace' ORDER BY 1 LIMIT 1", "v_ids\n"),
        ("EXISTS TABLE millrace.v_ids", "1\n"),
        ("SELECT sum(number) FROM numbers(10)", "45\n"),
        ("SELECT {a:UInt8} + 1", "8\n"),
    ],
)
def test_reads_that_are_allowed(guarded: Endpoint, sql: str, expected: str) -> None:
    reply = analyst(guarded, sql, param_a=7)
    assert (reply.status, reply.text) == (200, expected)


HOSTILE = [
    # tables without a grant
    "SELECT * FROM millrace.raw",
    "SELECT * FROM `millrace`.`raw`",
    'SELECT * FROM "millrace"."raw"',
    "SELECT * FROM millrace.hidden",
    "SELECT * FROM millrace.v_invoker",
    "SELECT * FROM raw",
    "WITH x AS (SELECT * FROM millrace.raw) SELECT * FROM x",
    "SELECT (SELECT any(secret) FROM millrace.raw)",
    "SELECT id IN (SELECT id FROM millrace.raw) FROM v_ids",
    "SELECT 1 IN millrace.raw",
    "SELECT * FROM v_ids JOIN millrace.raw USING id",
    "SELECT * FROM view(SELECT * FROM millrace.raw)",
    "SELECT * FROM merge('millrace', '.*')",
    "SELECT * FROM merge('system', 'processes')",
    "SELECT * FROM loop(millrace.raw)",
    "SELECT * FROM mergeTreeIndex('millrace', 'raw')",
    "SELECT * FROM cluster('default', millrace.raw)",
    "SELECT joinGet('millrace.joinable', 'secret', toUInt32(1))",
    "SELECT dictGet('millrace.d', 'secret', toUInt64(1))",
    "SELECT * FROM dictionary('millrace.d')",
    "SELECT * FROM millrace.d",
    "SELECT hasColumnInTable('millrace', 'raw', 'secret')",
    "SELECT * FROM eval('SELECT * FROM millrace.raw')",
    "SELECT * FROM {db:Identifier}.{table:Identifier}",
    "DESCRIBE TABLE millrace.raw",
    "SHOW CREATE TABLE millrace.raw",
    "SHOW COLUMNS FROM raw FROM millrace SETTINGS readonly = 0",
    "EXISTS TABLE millrace.raw",
    "EXPLAIN SELECT * FROM millrace.raw",
    "CHECK TABLE millrace.raw",
    # files
    "SELECT file('{file}')",
    "SELECT FILE('{file}')",
    "SELECT `file`('{file}')",
    "SELECT \"file\"('{file}')",
    "SELECT \u201cfile\u201d('{file}')",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('{file}')))",
    "SELECT * FROM values('a String', file('{file}'))",
    "SELECT * FROM input('a String')",
    "SELECT fi/**/le('{file}'), file /* x */ ('{file}')",
    "SELECT $$'$$, file($x${file}$x$), $$'$$",
    "SELECT '{file}' AS p, * APPLY file FROM (SELECT '{file}')",
    "SELECT * APPLY(file) FROM (SELECT '{file}')",
    "SELECT * REPLACE (file('{file}') AS a) FROM (SELECT 1 AS a)",
    "SELECT arrayMap(x -> file(x), ['{file}'])",
    "WITH (p -> file(p)) AS f SELECT f('{file}')",
    "WITH file('{file}') AS x SELECT x",
    "SELECT 1 AS a$$, file('{file}'), 2 AS b$$",
    "SELECT 1 # '\n, file('{file}')",
    "SELECT 1 -- '\n, file('{file}')",
    "SELECT * FROM eval('SELECT file(''{file}'')')",
    "SELECT * FROM file('{file}', 'LineAsString')",
    "SELECT * FROM file('{file}', LineAsString, 'line String')",
    "SELECT * FROM fileCluster('default', '{file}', 'LineAsString')",
    "DESCRIBE TABLE file('{file}', 'LineAsString')",
    "EXPLAIN SYNTAX SELECT file('{file}')",
    "EXPLAIN AST SELECT file('{file}')",
    "SELECT * FROM `{file}`",
    "SELECT * FROM default.`{file}`",
    "SELECT * FROM filesystem('{folder}')",
    "SELECT * FROM sqlite('{file}', 't')",
    "SELECT 1 INTO OUTFILE '{folder}/written.txt'",
    "SELECT 1 INTO OUTFILE '{folder}/written.txt' TRUNCATE AND STDOUT FORMAT CSV",
    "INSERT INTO FUNCTION file('{folder}/written.txt', 'CSV', 'a UInt8') VALUES (1)",
    "INSERT INTO FUNCTION file('{folder}/written.txt', 'CSV', 'a UInt8') SELECT 1",
    "INSERT INTO millrace.raw FROM INFILE '{file}' FORMAT LineAsString",
    # other places
    "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1:9', 'millrace', 'raw')",
    "SELECT * FROM s3('http://127.0.0.1:9/x', 'CSV')",
    "SELECT * FROM mysql('127.0.0.1:9', 'd', 't', 'u', 'p')",
    "SELECT * FROM executable('cat /etc/passwd', 'TSV', 'a String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM Python(x)",
    "SELECT hasColumnInTable('127.0.0.1:9', 'u', 'p', 'd', 't', 'c')",
    "SELECT aiGenerate('default', 'hello')",
    # statements that do something
    "SET readonly = 0",
    "SET ROLE full",
    "SET max_memory_usage = 0",
    "USE system",
    "KILL QUERY WHERE 1",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    "CREATE TEMPORARY TABLE t (a UInt8)",
    "CREATE VIEW millrace.v_mine AS SELECT * FROM millrace.raw",
    "CREATE FUNCTION f AS (x) -> file(x)",
    "DROP VIEW millrace.v_ids",
    "ALTER TABLE millrace.raw DELETE WHERE 1",
    "DELETE FROM millrace.raw WHERE 1",
    "INSERT INTO millrace.raw VALUES (3, 'x')",
    "INSERT INTO millrace.raw SELECT 3, 'x'",
    "WITH 1 AS a INSERT INTO millrace.raw SELECT a, 'x'",
    "OPTIMIZE TABLE millrace.raw",
    "TRUNCATE TABLE millrace.raw",
    "BACKUP TABLE millrace.raw TO File('{folder}/b.tar.gz')",
    "GRANT SELECT ON millrace.raw TO analyst",
    "EXECUTE AS default SELECT * FROM millrace.raw",
    "ATTACH DATABASE x ENGINE = Memory",
    "SELECT 1; SELECT * FROM millrace.raw",
    "SELECT 1; SET readonly = 0; SELECT file('{file}')",
    "PARALLEL WITH SELECT 1",
    # settings inside the statement
    "SELECT sum(id) FROM v_ids SETTINGS readonly = 0",
    "SELECT sum(id) FROM v_ids SETTINGS max_execution_time = 0",
    "SELECT * FROM (SELECT id FROM v_ids SETTINGS max_memory_usage = 0)",
    "SELECT sum(id) FROM v_ids SETTINGS allow_introspection_functions = 1",
    # other people's business
    "SELECT query FROM system.processes",
    "SELECT * FROM `system`.`processes`",
    "SELECT * FROM `\\x73ystem`.processes",
    "SELECT * FROM SYSTEM.processes",
    "SELECT * FROM system . processes",
    "SELECT * FROM system.users",
    "SELECT * FROM system.parts",
    "SELECT * FROM system.query_cache",
    "SELECT 1 IN system.processes",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "SHOW USERS",
    "SHOW TABLES FROM system",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_hostile_statements_are_refused(guarded: Endpoint, sql: str) -> None:
    folder = guarded.folder.parent
    text = sql.replace("{file}", str(folder / "secret.txt")).replace("{folder}", str(folder))
    for params in ({}, {"database": "default"}):
        reply = analyst(guarded, text, param_db="millrace", param_table="raw", **params)
        assert reply.status != 200, reply.text
        assert reply.code > 0
        assert SECRET not in reply.text
        assert FILE_SECRET not in reply.text
    assert not (folder / "written.txt").exists()


def test_clickhouse_connect_as_the_analyst(guarded: Endpoint) -> None:
    address = urlsplit(guarded.url)
    with clickhouse_connect.get_client(
        host=address.hostname, port=address.port, username="analyst", password=PASSWORD, database="millrace", autogenerate_session_id=False
    ) as client:
        assert client.query("SELECT sum(id) FROM v_ids").result_rows == [(3,)]
        assert client.query("SELECT * FROM v_ids LIMIT 0").column_names == ("id",)
        assert client.query_arrow("SELECT * FROM v_ids").num_rows == 2
        with pytest.raises(DatabaseError) as refused:
            client.query("SELECT * FROM raw")
        assert (refused.value.code, refused.value.name) == (497, "ACCESS_DENIED")
        with pytest.raises(DatabaseError):
            client.insert("raw", [[3, "x"]], column_names=["id", "secret"])


def test_nothing_was_changed(guarded: Endpoint) -> None:
    assert expect(guarded.url, "SELECT count() FROM millrace.raw") == "2\n"
    assert expect(guarded.url, "SELECT count() FROM system.tables WHERE name = 'v_mine'") == "0\n"


@pytest.mark.parametrize("name", ["database", "role"])
def test_no_way_round_by_parameters(guarded: Endpoint, name: str) -> None:
    value = {"database": "system", "role": "full"}[name]
    assert analyst(guarded, "SELECT * FROM processes", **{name: value}).code == 497


@pytest.mark.parametrize("setting", ["allow_introspection_functions", "max_memory_usage_for_user", "allow_ddl", "format_schema", "profile"])
def test_a_setting_that_is_not_on_the_list_is_refused(guarded: Endpoint, setting: str) -> None:
    reply = analyst(guarded, "SELECT 1", **{setting: "1"})
    assert (reply.code, setting in reply.text) == (164, True)


def test_caps_may_be_lowered_and_not_raised(guarded: Endpoint) -> None:
    asked = {"max_execution_time": "3600", "max_memory_usage": "0", "max_threads": "64", "max_block_size": "1000"}
    names = ", ".join(f"getSetting('{name}')" for name in asked)
    assert analyst(guarded, f"SELECT {names}", **asked).text.split() == ["3", str(100 << 20), "1", "1000"]
    assert analyst(guarded, "SELECT getSetting('max_memory_usage')", max_memory_usage="5000000").text == "5000000\n"


def test_time_is_capped(guarded: Endpoint) -> None:
    assert analyst(guarded, "SELECT sum(cityHash64(number)) FROM numbers(100000000000)").code == 159


def test_memory_is_capped(guarded: Endpoint) -> None:
    at_once = "SELECT length(range(50000000 + number)) FROM numbers(1)"  # 400 MB in one step: no time passes in which time is up
    assert analyst(guarded, at_once).code == 241


@pytest.mark.parametrize("key", ["", "wrong", PASSWORD.upper()])
def test_a_wrong_password_is_refused_and_not_told(guarded: Endpoint, key: str) -> None:
    reply = ask(guarded.url, "SELECT 1", headers={"X-ClickHouse-User": "analyst", "X-ClickHouse-Key": key})
    assert (reply.status, reply.code) == (403, 516)
    assert PASSWORD not in reply.text


def test_an_unknown_user_is_refused(guarded: Endpoint) -> None:
    assert ask(guarded.url, "SELECT 1", user="root", password="x").code == 516


def test_the_password_stands_in_no_log_and_no_file(guarded: Endpoint) -> None:
    ask(guarded.url, "SELECT 1", user="analyst", password=PASSWORD)
    guarded.wait_for("query", 30, user="analyst", kind="select")
    assert PASSWORD not in "".join(str(line) for line in guarded.lines())
    files = [path for path in Path(guarded.folder / "config").iterdir() if path.is_file()]
    assert files
    assert all(PASSWORD not in path.read_text() for path in files)


def test_without_a_password_anybody_of_this_machine_is_the_analyst(endpoint: Endpoint) -> None:
    assert ask(endpoint.url, "SELECT 1", user="analyst", password="anything").text == "1\n"
    assert ask(endpoint.url, "SELECT 1", user="analyst").text == "1\n"
    assert ask(endpoint.url, "SELECT * FROM system.processes", user="analyst").code == 497
