"""Do records become columns without losing any of them, whatever they hold?"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from millrace.infra.clickhouse.blocks import Block, Builder, Place
from millrace.schemas.record import Headers, Record
from millrace.schemas.tables import TABLES

PLACE = Place("topic-id", 3, 1_795_000_100)
PACKED: Headers = [("content-type", b"application/msgpack")]
REQUEST: dict[str, Any] = {"id": "r1", "unit_id": "u1", "time": "2026-11-21T10:00:00Z"}


def record(value: bytes | None, offset: int = 0, headers: Headers | None = None) -> Record:
    return Record("requests", 3, offset, 1_795_000_000_123, b"key", value, headers)


def json(**more: Any) -> bytes:
    return msgspec.json.encode({**REQUEST, **more})


def build(*records: Record, topic: str = "requests") -> tuple[Block, dict[str, list[Any]]]:
    block = Builder(TABLES[topic]).build(records, PLACE)
    return block, pa.ipc.open_stream(block.data).read_all().to_pydict()


def test_the_same_records_give_the_same_bytes() -> None:
    records = [record(json(id=f"r{n}"), n) for n in range(50)]
    assert build(*records)[0] == build(*records)[0]


def test_columns_stand_in_the_order_of_the_table() -> None:
    _, columns = build(record(json()))
    assert list(columns)[: len(TABLES["requests"].columns)] == [column.name for column in TABLES["requests"].columns]


def test_bookkeeping_says_where_a_record_stood() -> None:
    _, columns = build(record(json(), 41, [("a", b"1"), ("a", b"2")]))
    assert (columns["_topic_id"], columns["_partition"], columns["_offset"], columns["_key"]) == (["topic-id"], [3], [41], [b"key"])
    assert columns["_headers"] == [[("a", b"1"), ("a", b"2")]]
    assert columns["_lease"] == [1_795_000_100]
    assert columns["_appended"][0].timestamp() == 1_795_000_000.123


def test_a_time_that_is_absent_is_the_append_time() -> None:
    _, columns = build(record(b'{"id": "r1", "unit_id": "u1"}'), record(json()))
    assert [time.timestamp() for time in columns["time"]] == [1_795_000_000.123, 1_795_255_200.0]


def test_features_keep_their_own_bytes() -> None:
    _, columns = build(record(b'{"id":"r","unit_id":"u","features":{ "a" : 1e2 }}'))
    assert columns["features"] == [b'{ "a" : 1e2 }']


def test_vectors_of_both_formats_stand_in_one_block() -> None:
    binary = struct.pack("<3f", 1.5, -2.0, float("nan"))
    packed = msgspec.msgpack.encode({"id": "r2", "unit_id": "u", "vector": binary, "features": {"a": 1}})
    listed = msgspec.msgpack.encode({"id": "r3", "unit_id": "u", "vector": [1, 2.5]})
    block, columns = build(record(json(vector=[0.5, 7])), record(packed, 1, PACKED), record(listed, 2, PACKED), record(json(), 3))
    first, second, *rest = columns["vector"]
    assert (first, second[:2], rest) == ([0.5, 7.0], [1.5, -2.0], [[1.0, 2.5], []])
    assert second[2] != second[2]
    assert columns["features"] == [b"", b'{"a":1}', b"", b""]
    assert block.undecoded == 0


def test_a_null_where_there_is_none_is_none() -> None:
    packed = msgspec.msgpack.encode({"id": "r", "unit_id": "u", "vector": None, "features": {"a": 1}})
    block, columns = build(record(json(vector=None)), record(json(vector=[1]), 1))
    assert (columns["vector"], block.undecoded) == ([[], [1.0]], 0)
    block, columns = build(record(json(vector=None)), record(packed, 1, PACKED), record(json(vector=[2]), 2))
    assert (columns["vector"], columns["features"][1], block.undecoded) == ([[], [], [2.0]], b'{"a":1}', 0)


def test_a_time_beyond_what_can_be_shown_is_the_last_that_can() -> None:
    texts = ["1066-10-14T09:00:00Z", "9999-12-31T23:59:59Z", "2026-01-02T03:04:05Z"]
    block, columns = build(*(record(json(deadline=text), at) for at, text in enumerate([*texts, None])))
    assert [time and time.isoformat() for time in columns["deadline"]] == [
        "1900-01-01T00:00:00+00:00",
        "2299-12-30T23:59:59.999999+00:00",
        "2026-01-02T03:04:05+00:00",
        None,
    ]
    assert block.undecoded == 0


@pytest.mark.parametrize(
    "value",
    [
        json(vector=["a"]),
        json(vector={"a": 1}),
        json(vector=[[1.0]]),
    ],
)
def test_what_decodes_but_fits_no_column_keeps_its_bytes_and_spares_its_neighbours(value: bytes) -> None:
    block, columns = build(record(json(id="before")), record(value, 1), record(json(id="after"), 2))
    assert columns["id"] == ["before", "", "after"]
    assert columns["_raw"] == [None, value, None]
    assert [bool(error) for error in columns["_error"]] == [False, True, False]
    assert block.undecoded == 1


def test_a_tombstone_is_a_row_without_bytes() -> None:
    block, columns = build(record(None))
    assert (columns["_raw"], block.rows, block.undecoded) == ([None], 1, 1)
    assert "no value" in columns["_error"][0]


def test_an_unknown_content_type_is_told() -> None:
    _, columns = build(record(json(), 0, [("content-type", b"text/xml")]))
    assert "text/xml" in columns["_error"][0]


def test_the_first_content_type_of_a_record_is_the_one_that_counts() -> None:
    packed = msgspec.msgpack.encode({"id": "r2", "unit_id": "u"})
    both: Headers = [("x", b"application/json"), *PACKED, ("content-type", b"application/json")]
    block, columns = build(record(json()), record(packed, 1, both), record(json(id="r3"), 2, both[2:]), record(json(id="r4"), 3, []))
    assert columns["id"] == ["r1", "r2", "r3", "r4"]
    assert columns["_headers"] == [[], both, both[2:], []]
    assert block.undecoded == 0


def test_a_header_without_a_value_holds_no_bytes() -> None:
    empty: Any = [("a", None), ("b", b"1"), ("content-type", None)]
    _, columns = build(record(json(), 0, empty))
    assert columns["_headers"] == [[("a", b""), ("b", b"1"), ("content-type", b"")]]
    assert "content-type ''" in columns["_error"][0]


def test_numbers_and_lists_of_one_field_are_two_columns() -> None:
    sample = {"id": "p", "request_id": "r", "unit_id": "u", "time": REQUEST["time"], "model": "m"}
    sample |= {"version": 1, "digest": "", "status": "ok"}
    values = [{**sample, "outputs": outputs} for outputs in ({"a": 1.0, "b": [1.0, 2.0]}, {}, {"c": 3})]
    _, columns = build(*(record(msgspec.json.encode(value), n) for n, value in enumerate(values)), topic="predictions")
    assert columns["outputs"] == [[("a", 1.0)], [], [("c", 3.0)]]
    assert columns["output_lists"] == [[("b", [1.0, 2.0])], [], []]


def test_an_integer_that_no_column_holds_spares_its_neighbours() -> None:
    plan = {"name": "m", "version": 1, "time": REQUEST["time"], "shares": [{"version": 1}]}
    values = [plan, {**plan, "version": 1 << 63}]
    block, columns = build(*(record(msgspec.json.encode(value), n) for n, value in enumerate(values)), topic="routes")
    assert columns["version"][0] == 1
    assert block.rows == 2
    assert block.undecoded == 1
