"""Records to one insertable block: decoded once, then column by column, never row by row. Same records, same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from millrace.infra.clickhouse.cells import BLANK, Array, array_of, unpacked_json, unpacked_vector
from millrace.infra.clickhouse.headers import content_types, headers
from millrace.schemas.errors import DecodeError
from millrace.schemas.record import Format, Record
from millrace.schemas.tables import MARKS, Cell, Column, Table
from millrace.schemas.wire import CONTENT_TYPE, codec, format_of

FORMAT = "ArrowStream"
UNDECODABLE = (DecodeError, msgspec.MsgspecError, TypeError, RecursionError, UnicodeDecodeError)
UNHELD = (TypeError, ValueError, OverflowError, pa.ArrowException, msgspec.MsgspecError, RecursionError)


class Place(Struct, frozen=True):
    """What all rows of a block share: where their records stand and until when they may be inserted."""

    topic_id: str
    partition: int
    lease_seconds: int


class Block(Struct, frozen=True):
    """A block ready for insertion: its bytes in Arrow's stream format, how many rows, and how many of them were not decoded."""

    data: bytes
    rows: int
    undecoded: int


class Decoded(Struct):
    """Each record's event, which of them came as MessagePack, why others could not be decoded, and when all were appended."""

    events: list[Any]
    packed: set[int]
    errors: dict[int, str]
    appended: Array


def warm_up() -> None:
    """Make a first array: where pandas is installed pyarrow then loads it, which takes a second that no block should wait for."""
    pa.array([""], pa.string())


class Builder:
    """Builds the blocks of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._codec = codec(table.topic)
        self._names = [column.name for column in table.columns] + [mark.name for mark in MARKS]
        self._values = [attrgetter(column.field) for column in table.columns]
        # Of a field that is kept in two columns both blanks are alike.
        self._blank = SimpleNamespace(**{c.field: None if c.nullable else BLANK[c.cell] for c in table.columns})

    def build(self, records: Sequence[Record], place: Place) -> Block:
        """The block of these records of one partition; what cannot be decoded keeps its bytes and the reason."""
        heads = headers([record.headers for record in records])
        decoded = self._decoded(records, heads)
        try:
            arrays = self._columns(decoded)
        except UNHELD:
            self._set_aside(decoded)
            arrays = self._columns(decoded)
        batch = pa.RecordBatch.from_arrays(arrays + _marks(records, decoded, heads, place), names=self._names)
        return Block(_serialized(batch), len(records), len(decoded.errors))

    def _decoded(self, records: Sequence[Record], heads: Array) -> Decoded:
        """Decode by the codec's own functions; what fails is decoded once more for the words that say why."""
        decoders, packed = self._decoders(heads)
        events: list[Any] = []
        errors: dict[int, str] = {}
        append = events.append
        for decode, record in zip(decoders, records, strict=True):
            try:
                append(decode(record.value))
            except UNDECODABLE:
                errors[len(events)] = self._why(record)
                append(self._blank)
        return Decoded(events, packed, errors, pa.array([record.appended_ms for record in records], pa.timestamp("ms", "UTC")))

    def _decoders(self, heads: Array) -> tuple[list[Callable[[Any], Any]], set[int]]:
        """What each record is decoded by, and which of them are MessagePack: looked up once for each content type."""
        decoders: list[Callable[[Any], Any]] = [self._codec.json.decode] * len(heads)
        packed: set[int] = set()
        for kind, rows in content_types(heads):
            form = _format(kind)
            if form is Format.JSON:
                continue
            if form is Format.MSGPACK:
                packed.update(rows)
            for row in rows:
                decoders[row] = self._codec.msgpack.decode if form is Format.MSGPACK else _refuse
        return decoders, packed

    def _why(self, record: Record) -> str:
        try:
            self._codec.decode(record.value, record.headers)
        except DecodeError as error:
            return str(error)
        raise RuntimeError(f"{record.place} was refused and then decoded")

    def _set_aside(self, decoded: Decoded) -> None:
        """Blank each row whose values its columns cannot hold: it decodes, yet no analyst could read it."""
        for index, event in enumerate(decoded.events):
            alone = Decoded([event], {0} if index in decoded.packed else set(), {}, decoded.appended[index : index + 1])
            try:
                self._columns(alone)
            except UNHELD as error:
                decoded.errors[index] = f"the table cannot hold it: {error}"[:500]
                decoded.events[index] = self._blank

    def _columns(self, decoded: Decoded) -> list[Array]:
        events = decoded.events
        return [
            _column(column, list(map(values, events)), decoded) for column, values in zip(self.table.columns, self._values, strict=True)
        ]


UNPACK = {Cell.JSON: unpacked_json, Cell.VECTOR: unpacked_vector}


def _column(column: Column, values: list[Any], decoded: Decoded) -> Array:
    if decoded.packed and column.cell in UNPACK:
        unpack, packed = UNPACK[column.cell], decoded.packed
        values = [unpack(value) if index in packed and isinstance(value, msgspec.Raw) else value for index, value in enumerate(values)]
    array = array_of(column.cell, values)
    if array.null_count and column.cell is Cell.TIME and not column.nullable:
        return pc.coalesce(array, decoded.appended.cast(array.type))
    return array


def _format(kind: bytes) -> Format | None:
    """The format of a content type; None where it is not known."""
    try:
        return format_of([(CONTENT_TYPE, kind)])
    except DecodeError:
        return None


def _refuse(value: Any) -> Any:
    raise DecodeError("the content type is not known")


def _marks(records: Sequence[Record], decoded: Decoded, heads: Array, place: Place) -> list[Array]:
    """The bookkeeping columns, in the order of ``MARKS``."""
    count = len(records)
    raw: list[bytes | None] = [None] * count
    why = [""] * count
    for index, reason in decoded.errors.items():
        raw[index], why[index] = records[index].value, reason
    return [
        pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([place.topic_id])),
        pa.array(np.full(count, place.partition, np.int32)),
        pa.array([record.offset for record in records], pa.int64()),
        decoded.appended,
        pa.array([record.key for record in records], pa.binary()),
        heads,
        pa.array(raw, pa.binary()),
        pa.array(why, pa.string()),
        pa.array(np.full(count, place.lease_seconds, np.uint32)),
    ]


def _serialized(batch: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
