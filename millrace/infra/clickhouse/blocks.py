"""Records to one insertable block: decoded once, then column by column, never row by row. Same records, same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from millrace.infra.clickhouse.cells import BLANK, Array, array_of, headers, unpacked_json, unpacked_vector, words
from millrace.schemas.errors import DecodeError
from millrace.schemas.event import from_ms
from millrace.schemas.record import Format, Record
from millrace.schemas.tables import MARKS, Cell, Column, Table
from millrace.schemas.wire import codec, format_of

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
    """The values of each record's fields, which of them came as MessagePack, and why others could not be decoded."""

    rows: list[tuple[Any, ...]] = []
    packed: set[int] = set()
    errors: dict[int, str] = {}


def warm_up() -> None:
    """Make a first array: where pandas is installed pyarrow then loads it, which takes a second that no block should wait for."""
    pa.array([""], pa.string())


class Builder:
    """Builds the blocks of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._codec = codec(table.topic)
        self._fields = tuple(dict.fromkeys(column.field for column in table.columns))
        self._values = attrgetter(*self._fields)
        cells = {column.field: column.cell for column in reversed(table.columns)}
        nullable = {column.field for column in table.columns if column.nullable}
        self._blank = tuple(None if field in nullable else BLANK[cells[field]] for field in self._fields)

    def build(self, records: Sequence[Record], place: Place) -> Block:
        """The block of these records of one partition; what cannot be decoded keeps its bytes and the reason."""
        decoded = self._decoded(records)
        try:
            arrays = self._columns(records, decoded)
        except UNHELD:
            self._set_aside(records, decoded)
            arrays = self._columns(records, decoded)
        names = [column.name for column in self.table.columns] + [mark.name for mark in MARKS]
        batch = pa.RecordBatch.from_arrays(arrays + _marks(records, decoded.errors, place), names=names)
        return Block(_serialized(batch), len(records), len(decoded.errors))

    def _decoded(self, records: Sequence[Record]) -> Decoded:
        """Decode by the codec's own functions; what fails is decoded once more for the words that say why."""
        found, values = Decoded(), self._values
        json, msgpack, append = self._codec.json.decode, self._codec.msgpack.decode, found.rows.append
        for index, record in enumerate(records):
            try:
                if record.headers and format_of(record.headers) is Format.MSGPACK:
                    append(values(msgpack(record.value)))  # type: ignore[arg-type]
                    found.packed.add(index)
                else:
                    append(values(json(record.value)))  # type: ignore[arg-type]
            except UNDECODABLE:
                found.errors[index] = self._why(record)
                append(self._blank)
        return found

    def _why(self, record: Record) -> str:
        try:
            self._codec.decode(record.value, record.headers)
        except DecodeError as error:
            return str(error)
        raise RuntimeError(f"{record.place} was refused and then decoded")

    def _set_aside(self, records: Sequence[Record], decoded: Decoded) -> None:
        """Blank each row whose values its columns cannot hold: it decodes, yet no analyst could read it."""
        for index, record in enumerate(records):
            alone = Decoded(rows=[decoded.rows[index]], packed={0} if index in decoded.packed else set())
            try:
                self._columns([record], alone)
            except UNHELD as error:
                decoded.errors[index] = f"the table cannot hold it: {error}"[:500]
                decoded.rows[index] = self._blank

    def _columns(self, records: Sequence[Record], decoded: Decoded) -> list[Array]:
        by_field = dict(zip(self._fields, zip(*decoded.rows, strict=True), strict=True))
        return [self._column(column, by_field[column.field], records, decoded.packed) for column in self.table.columns]

    def _column(self, column: Column, values: Sequence[Any], records: Sequence[Record], packed: set[int]) -> Array:
        if column.cell is Cell.TIME and not column.nullable and None in values:
            values = [from_ms(records[index].appended_ms) if value is None else value for index, value in enumerate(values)]
        if packed and column.cell in UNPACK:
            unpack = UNPACK[column.cell]
            values = [unpack(value) if index in packed and _is_raw(value) else value for index, value in enumerate(values)]
        return array_of(column.cell, values)


UNPACK = {Cell.JSON: unpacked_json, Cell.VECTOR: unpacked_vector}


def _is_raw(value: Any) -> bool:
    return isinstance(value, msgspec.Raw)


def _marks(records: Sequence[Record], errors: dict[int, str], place: Place) -> list[Array]:
    """The bookkeeping columns, in the order of ``MARKS``."""
    count = len(records)
    return [
        words([place.topic_id] * count),
        pa.array(np.full(count, place.partition, np.int32)),
        pa.array([record.offset for record in records], pa.int64()),
        pa.array([record.appended_ms for record in records], pa.timestamp("ms", "UTC")),
        pa.array([record.key for record in records], pa.binary()),
        headers([record.headers for record in records]),
        pa.array([record.value if index in errors else None for index, record in enumerate(records)], pa.binary()),
        pa.array([errors.get(index, "") for index in range(count)], pa.string()),
        pa.array(np.full(count, place.lease_seconds, np.uint32)),
    ]


def _serialized(batch: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
