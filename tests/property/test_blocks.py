"""Any record at all becomes a row, the same one whatever stands beside it."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.infra.clickhouse.blocks import Block, Builder, Place
from millrace.schemas.record import Record
from millrace.schemas.samples import SAMPLES
from millrace.schemas.tables import TABLES

BUILDERS = {topic: Builder(table) for topic, table in TABLES.items()}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from([b"application/json", b"application/msgpack", b"Application/MsgPack; a=b", b"?", b"", None])
HEADERS: st.SearchStrategy[Any] = st.none() | st.lists(st.tuples(st.sampled_from(["content-type", "x", ""]), KINDS), max_size=3)


def altered(topic: str, name: str, value: object) -> bytes:
    """A sample with one field altered to anything."""
    plain = msgspec.json.decode(msgspec.json.encode(SAMPLES[topic]))
    return msgspec.json.encode({**plain, name: value})


def drawn_records(topic: str, data: st.DataObject) -> list[Record]:
    """Records of samples as they are, altered, in either format, and of no sense at all."""
    names = st.sampled_from(SAMPLES[topic].__struct_fields__)
    whole = st.sampled_from([msgspec.json.encode(SAMPLES[topic]), msgspec.msgpack.encode(SAMPLES[topic])])
    values = st.none() | st.binary(max_size=40) | whole | st.builds(altered, st.just(topic), names, JSON)
    drawn = data.draw(st.lists(st.tuples(values, HEADERS), min_size=1, max_size=6))
    return [Record(topic, 0, offset, 1_795_000_000_000 + offset, None, value, headers) for offset, (value, headers) in enumerate(drawn)]


def rows_of(block: Block) -> list[str]:
    """Each row as text, in which NaN equals NaN."""
    return [repr(row) for row in pa.ipc.open_stream(block.data).read_all().to_pylist()]


@pytest.mark.parametrize("topic", sorted(TABLES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_does_not_depend_on_its_neighbours(topic: str, data: st.DataObject) -> None:
    records = drawn_records(topic, data)
    build, place = BUILDERS[topic].build, Place("topic-id", 0, 0)
    assert rows_of(build(records, place)) == [row for record in records for row in rows_of(build([record], place))]


@pytest.mark.parametrize("topic", sorted(TABLES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_record_becomes_a_row(topic: str, data: st.DataObject) -> None:
    records = drawn_records(topic, data)
    block = BUILDERS[topic].build(records, Place("topic-id", 0, 0))
    rows = pa.ipc.open_stream(block.data).read_all().to_pydict()
    assert rows["_offset"] == list(range(len(records)))
    assert [bool(error) for error in rows["_error"]].count(True) == block.undecoded
    assert all(raw == record.value for raw, error, record in zip(rows["_raw"], rows["_error"], records, strict=True) if error)
