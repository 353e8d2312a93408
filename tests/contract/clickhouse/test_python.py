"""Does clickhouse-connect, sync and async, work unchanged?"""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

KINDS = """id UUID, a Int64, b LowCardinality(String), c Array(Float32), d Nullable(Int32), e DateTime64(6, 'UTC'),
    f Map(String, UInt8), g Decimal(18, 4), h Enum8('x' = 1, 'y' = 2), i Tuple(UInt8, String), j FixedString(3), k IPv4"""


def connect(url: str, **options: Any) -> Any:
    address = urlsplit(url)
    return clickhouse_connect.get_client(host=address.hostname, port=address.port, autogenerate_session_id=False, **options)


@pytest.fixture
def client(url: str, database: str) -> Iterator[Any]:
    made = connect(url, database=database)
    yield made
    made.close()


def test_ping_version_and_commands(client: Any) -> None:
    assert client.ping()
    assert client.server_version.count(".") == 3
    assert client.command("SELECT 1") == 1
    client.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    client.command("INSERT INTO t VALUES ({a:UInt8})", parameters={"a": 3})
    assert client.command("SELECT sum(a) FROM t") == 3


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_compression_both_ways(url: str, database: str, compress: bool | str) -> None:
    with connect(url, database=database, compress=compress) as client:
        client.command("CREATE TABLE t (a UInt32, b String) ENGINE = MergeTree ORDER BY a")
        rows = [(number, str(number)) for number in range(100_000)]
        assert client.insert("t", rows, column_names=["a", "b"]).written_rows == 100_000
        assert client.query("SELECT * FROM t ORDER BY a").result_rows == rows


def test_every_kind_of_column_comes_back_as_it_went(client: Any) -> None:
    client.command(f"CREATE TABLE t ({KINDS}) ENGINE = MergeTree ORDER BY a")
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.UTC)
    row = (uuid.uuid4(), -7, "low", [1.5, 2.0], None, when, {"k": 1}, 12.5, "y", (1, "t"), b"abc", "127.0.0.1")
    client.insert("t", [row])
    back = client.query("SELECT * FROM t").first_row
    assert [str(value) for value in (*back[:5], back[6])] == [str(value) for value in (*row[:5], row[6])]
    assert back[5].replace(tzinfo=datetime.UTC) == when
    assert (float(back[7]), back[8], back[9], back[10], str(back[11])) == (12.5, "y", (1, "t"), b"abc", "127.0.0.1")


def test_arrow_and_data_frames(client: Any) -> None:
    client.command("CREATE TABLE t (a Int64, b String) ENGINE = MergeTree ORDER BY a")
    table = pa.table({"a": pa.array(range(1000), pa.int64()), "b": pa.array([str(n) for n in range(1000)])})
    client.insert_arrow("t", table)
    assert client.query_arrow("SELECT * FROM t ORDER BY a").num_rows == 1000
    frame = client.query_df("SELECT * FROM t ORDER BY a")
    client.insert_df("t", frame)
    assert client.command("SELECT count() FROM t") == 2000
    with client.query_arrow_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(batch.num_rows for batch in stream) == 300_000


def test_raw_bytes_and_tokens(client: Any) -> None:
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10")
    block = client.raw_query("SELECT number AS a FROM numbers(10000)", fmt="Native")
    for _ in range(2):
        settings = {"insert_deduplication_token": "one", "async_insert": 0, "wait_end_of_query": 1}
        client.raw_insert("t", column_names=["a"], insert_block=block, fmt="Native", settings=settings)
    client.raw_insert("t", column_names=["a"], insert_block=iter([block[:100], block[100:]]), fmt="Native")
    assert client.command("SELECT count() FROM t") == 20_000


def test_parameters_on_both_sides(client: Any) -> None:
    assert client.query("SELECT {a:String}, {b:Array(UInt8)}", parameters={"a": "o'neil\n\t\\", "b": [1, 2]}).first_row == (
        "o'neil\n\t\\",
        [1, 2],
    )
    assert client.query("SELECT %(a)s, %(b)s", parameters={"a": "o'neil", "b": 2}).first_row == ("o'neil", 2)
    assert client.query("SELECT {a:DateTime}", parameters={"a": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)}).row_count == 1


def test_form_encoded_parameters(url: str) -> None:
    with connect(url, form_encode_query_params=True) as client:
        assert client.query("SELECT length({a:String})", parameters={"a": "x" * 100_000}).first_row == (100_000,)


def test_settings_and_limits(client: Any) -> None:
    assert client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 99}).first_row == (99,)
    assert client.query("SELECT 1 AS a LIMIT 0").column_names == ("a",)
    assert client.query("SELECT number FROM numbers(10) WHERE number > 10").result_rows == []
    with pytest.raises(DatabaseError) as refused:
        client.query("SELECT sum(cityHash64(number)) FROM numbers(100000000000)", settings={"max_execution_time": 0.3})
    assert refused.value.code == 159


def test_streams(client: Any) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(500000)") as stream:
        assert sum(len(block) for block in stream) == 500_000
    with client.query_rows_stream("SELECT number FROM numbers(10000000)") as stream:
        assert next(iter(stream)) == (0,)
    assert client.command("SELECT 2") == 2


@pytest.mark.parametrize(
    ("sql", "code", "name"),
    [
        ("SELEC", 62, "SYNTAX_ERROR"),
        ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE"),
        ("SELECT throwIf(number = 150000) FROM numbers(200000)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("DROP TABLE nowhere", 60, "UNKNOWN_TABLE"),
    ],
)
def test_errors_have_code_and_name(client: Any, sql: str, code: int, name: str) -> None:
    with pytest.raises(DatabaseError) as failed:
        _ = client.query(sql).result_rows
    assert (failed.value.code, failed.value.name) == (code, name)


def test_an_error_in_the_middle_of_a_stream(client: Any) -> None:
    settings = {"max_block_size": 10_000, "max_threads": 1}
    with (
        pytest.raises(StreamFailureError) as failed,
        client.query_row_block_stream("SELECT throwIf(number = 150000) FROM numbers(200000)", settings=settings) as stream,
    ):
        assert sum(1 for _ in stream) < 20
    assert (failed.value.code, failed.value.name) == (395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO")


def test_a_failing_insert_is_an_error(client: Any) -> None:
    client.command("CREATE TABLE t (a UInt8, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(DatabaseError) as failed:
        client.insert("t", [[11]])
    assert (failed.value.code, failed.value.name) == (469, "VIOLATED_CONSTRAINT")
    assert client.command("SELECT count() FROM t") == 0


def test_async_client(url: str, database: str) -> None:
    async def talk() -> None:
        address = urlsplit(url)
        client = await clickhouse_connect.get_async_client(
            host=address.hostname, port=address.port, database=database, autogenerate_session_id=False
        )
        await client.command("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
        await client.insert("t", [[number] for number in range(1000)], column_names=["a"])
        results = await asyncio.gather(*(client.query("SELECT count() FROM t WHERE a < {n:UInt32}", parameters={"n": n}) for n in range(8)))
        assert [result.result_rows[0][0] for result in results] == list(range(8))
        async with await client.query_row_block_stream("SELECT number FROM numbers(200000)") as stream:
            assert sum([len(block) async for block in stream]) == 200_000
        with pytest.raises(DatabaseError) as failed:
            await client.query("SELECT * FROM nowhere")
        assert failed.value.code == 60
        await client.close()

    asyncio.run(talk())


def test_the_default_client_with_a_session_id_works(url: str) -> None:
    address = urlsplit(url)
    with clickhouse_connect.get_client(host=address.hostname, port=address.port) as client:
        assert client.command("SELECT 1") == 1
