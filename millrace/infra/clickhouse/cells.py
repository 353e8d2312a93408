"""One column of a block: Python values of one field to an Arrow array. Raises for a value that its column cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.schemas.tables import Cell

Array = Any
Values = Sequence[Any]
Floats = np.ndarray[Any, np.dtype[Any]]

# What ClickHouse's DateTime64 can show.
TIME = pa.timestamp("us", "UTC")
FIRST = pa.scalar(datetime(1900, 1, 1, tzinfo=UTC), TIME)
LAST = pa.scalar(datetime(2299, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC), TIME)
BUFFERS = frozenset({bytes, msgspec.Raw})

BLANK: dict[Cell, Any] = {
    Cell.TEXT: "",
    Cell.WORD: "",
    Cell.INTEGER: 0,
    Cell.FLOAT: 0.0,
    Cell.BOOLEAN: False,
    Cell.TIME: None,
    Cell.BYTES: b"",
    Cell.JSON: b"",
    Cell.VECTOR: b"",
    Cell.TEXTS: (),
    Cell.INTEGERS: (),
    Cell.NUMBERS: {},
    Cell.LISTS: {},
    Cell.WORDS: {},
    Cell.COUNTS: {},
}
"""What stands for the field of a record that could not be decoded."""

_encode = msgspec.json.Encoder().encode
_rows_of_floats = msgspec.json.Decoder(list[list[float] | None]).decode
_floats = msgspec.json.Decoder(list[float] | None).decode
_floats_or_bytes = msgspec.msgpack.Decoder(list[float] | bytes | None).decode


def array_of(cell: Cell, values: Values) -> Array:
    """The values of one field as the Arrow array of its column."""
    return BUILDERS[cell](values)


def words(values: Values) -> Array:
    """Text of few different values, as a dictionary."""
    return pa.array(values, pa.string()).dictionary_encode()


def times(values: Values) -> Array:
    """Aware times, in microseconds. One beyond what ClickHouse can show, such as the year 9999 for never, is the last that it can."""
    array = pa.array(values, TIME)
    known = pc.min_max(array)
    if known["min"].is_valid and (known["min"].value < FIRST.value or known["max"].value > LAST.value):
        array = pc.if_else(pc.less(array, FIRST), FIRST, array)
        array = pc.if_else(pc.greater(array, LAST), LAST, array)
    return array


def json_texts(values: Values) -> Array:
    """Containers as JSON text; what is already bytes stays as it is, and nothing stays nothing."""
    if None in values:
        return pa.array(
            [value if value is None else bytes(value) if type(value) in BUFFERS else _encode(value) for value in values], pa.binary()
        )
    if BUFFERS.isdisjoint(map(type, values)):
        return joined(list(map(_encode, values)))
    return joined([value if type(value) in BUFFERS else _encode(value) for value in values])


def joined(parts: Sequence[Any]) -> Array:
    """Buffers as one binary array: joined once, never copied one by one."""
    return pa.Array.from_buffers(pa.binary(), len(parts), [None, pa.py_buffer(offsets(parts)), pa.py_buffer(b"".join(parts))])


def offsets(parts: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Where each part begins when all stand in a row, and where the last ends: shape (n + 1,)."""
    ends = np.zeros(len(parts) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, parts), np.int32, len(parts)), out=ends[1:])
    return ends


def vectors(values: Values) -> Array:
    """Vectors as lists of float32: raw JSON arrays of numbers, or rows that are already unpacked. That there are none is common.

    A null says that there is none, as many serializers write it.
    """
    if not any(map(len, values)):
        return _float32_lists(np.zeros(len(values) + 1, np.int32), np.empty(0))
    if any(isinstance(value, np.ndarray) for value in values):
        return _float32_rows([value if isinstance(value, np.ndarray) else _parsed(value) for value in values])
    found = _rows_of_floats(b"[" + b",".join([value if len(value) else b"[]" for value in values]) + b"]")
    if len(found) != len(values):
        raise ValueError("vector: expected one array of numbers")
    rows = [row or [] for row in found]
    ends = offsets(rows)
    return _float32_lists(ends, np.fromiter(chain.from_iterable(rows), np.float64, int(ends[-1])))


def _parsed(value: Any) -> Floats:
    return np.array((_floats(value) if len(value) else None) or [], np.float64)


def _float32_rows(rows: Sequence[Floats]) -> Array:
    return _float32_lists(offsets(rows), np.concatenate(rows))


def _float32_lists(ends: Any, flat: Floats) -> Array:
    """A number that is too large for float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat.astype(np.float32)))


def maps(values: Sequence[dict[str, Any]], of: Callable[[Values], Array]) -> Array:
    """Dictionaries as one map array, their values built by ``of``."""
    names, items = list(chain.from_iterable(values)), list(chain.from_iterable(map(dict.values, values)))
    return pa.MapArray.from_arrays(pa.array(offsets(values)), words(names), of(items))


def numbers(values: Values) -> Array:
    """The plain numbers of dictionaries that may also hold lists."""
    return maps(_only(values, lists=False), _plain(pa.float64()))


def lists(values: Values) -> Array:
    """The lists of dictionaries that may also hold plain numbers."""
    return maps(_only(values, lists=True), _plain(pa.list_(pa.float64())))


def _only(values: Sequence[dict[str, Any]], *, lists: bool) -> Sequence[dict[str, Any]]:
    """The dictionaries with their lists alone, or with all but those. That there are no lists at all is most common, and quick."""
    kinds = set(map(type, chain.from_iterable(map(dict.values, values))))
    if list not in kinds:
        return [{}] * len(values) if lists else values
    return [{name: item for name, item in value.items() if (type(item) is list) is lists} for value in values]


def unpacked_json(raw: Any) -> bytes:
    """A raw MessagePack value as JSON text."""
    return _encode(msgspec.msgpack.decode(raw)) if len(raw) else b""


def unpacked_vector(raw: Any) -> Floats:
    """A raw MessagePack vector, in binary float32 or as a list, as numbers of shape (k,)."""
    value = _floats_or_bytes(raw) if len(raw) else None
    return np.frombuffer(value, "<f4") if isinstance(value, bytes) else np.array(value or [], np.float64)


def _plain(kind: Any) -> Callable[[Values], Array]:
    return lambda values: pa.array(values, kind)


BUILDERS: dict[Cell, Callable[[Values], Array]] = {
    Cell.TEXT: _plain(pa.string()),
    Cell.WORD: words,
    Cell.INTEGER: _plain(pa.int64()),
    Cell.FLOAT: _plain(pa.float64()),
    Cell.BOOLEAN: _plain(pa.bool_()),
    Cell.TIME: times,
    Cell.BYTES: _plain(pa.binary()),
    Cell.JSON: json_texts,
    Cell.VECTOR: vectors,
    Cell.TEXTS: _plain(pa.list_(pa.string())),
    Cell.INTEGERS: _plain(pa.list_(pa.int64())),
    Cell.NUMBERS: numbers,
    Cell.LISTS: lists,
    Cell.WORDS: lambda values: maps(values, _plain(pa.string())),
    Cell.COUNTS: lambda values: maps(values, _plain(pa.int64())),
}
