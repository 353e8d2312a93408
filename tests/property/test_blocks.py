"""Any record at all becomes a row."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.schemas.record import Record
from millrace.schemas.samples import SAMPLES
from millrace.schemas.tables import TABLES

BUILDERS = {topic: Builder(table) for topic, table in TABLES.items()}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.sampled_from([None, [], [("content-type", b"application/msgpack")], [("content-type", b"?"), ("x", b"\xff")]])


def altered(topic: str, name: str, value: object) -> bytes:
    """A sample with one field altered to anything."""
    plain = msgspec.json.decode(msgspec.json.encode(SAMPLES[topic]))
    return msgspec.json.encode({**plain, name: value})


@pytest.mark.parametrize("topic", sorted(TABLES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_record_becomes_a_row(topic: str, data: st.DataObject) -> None:
    names = st.sampled_from(SAMPLES[topic].__struct_fields__)
    values = st.none() | st.binary(max_size=40) | st.builds(altered, st.just(topic), names, JSON)
    drawn = data.draw(st.lists(st.tuples(values, HEADERS), min_size=1, max_size=6))
    records = [Record(topic, 0, offset, 1_795_000_000_000, None, value, headers) for offset, (value, headers) in enumerate(drawn)]
    block = BUILDERS[topic].build(records, Place("topic-id", 0, 0))
    rows = pa.ipc.open_stream(block.data).read_all().to_pydict()
    assert rows["_offset"] == list(range(len(records)))
    assert [bool(error) for error in rows["_error"]].count(True) == block.undecoded
    assert all(raw == record.value for raw, error, record in zip(rows["_raw"], rows["_error"], records, strict=True) if error)
