"""Features of many requests as one float32 matrix: decoded together, and one by one only where something is wrong.

Per value it is the decoder and the copy that cost. So the raw bytes of all requests of one form are joined into one list and decoded by
one call, and the numbers reach numpy through a MessagePack encoding, in which every float has the same width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from millrace.schemas.limits import Limits
from millrace.schemas.record import Format, Record
from millrace.streams.feature_values import Fault, Form, encode_names, read_one, stated_of_all, too_large

Matrix = NDArray[np.float32]
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
BINARY_HEADER_BYTES = {0xC4: 2, 0xC5: 3, 0xC6: 5}

_pack = msgspec.msgpack.Encoder().encode
_as_tuple = msgspec.structs.astuple


class Rows(Struct):
    """The features of some requests. Rows with a fault hold no meaning and must not be used.

    ``completed`` holds, by row, the features by name where a default had to be added; other requests' own bytes are what was used.
    """

    matrix: Matrix
    faults: dict[int, Fault]
    completed: dict[int, Raw]

    def without_faults(self) -> Rows:
        """The rows that can be used, counted anew."""
        if not self.faults:
            return self
        kept = [i for i in range(len(self.matrix)) if i not in self.faults]
        completed = {at: self.completed[i] for at, i in enumerate(kept) if i in self.completed}
        return Rows(self.matrix[kept], {}, completed)


class FeatureReader:
    """Read features in the order that one model version declares: shape (n, k)."""

    def __init__(self, names: Sequence[str], defaults: dict[str, float], limits: Limits) -> None:
        self._names = tuple(names)
        self._defaults = dict(defaults)
        self._limits = limits
        self._lists: dict[Form, Any] = {
            Form.JSON_VECTOR: msgspec.json.Decoder(list[list[float]]).decode,
            Form.PACKED_VECTOR: msgspec.msgpack.Decoder(list[list[float]]).decode,
        }
        self._objects: dict[Form, Any] = {}
        self._rows: dict[Form, Any] = {
            Form.JSON_VECTOR: msgspec.json.Decoder(list[float]).decode,
            Form.PACKED_VECTOR: msgspec.msgpack.Decoder(list[float]).decode,
        }
        if len(self._names) <= limits.features:
            with suppress(ValueError):  # a name with a quotation mark, a backslash or a control character: each row is read as a dict
                self._know_names()
        self._dicts: dict[Form, Any] = {
            Form.JSON_NAMES: msgspec.json.Decoder(list[dict[str, float]]).decode,
            Form.PACKED_NAMES: msgspec.msgpack.Decoder(list[dict[str, float]]).decode,
        }

    def read(self, records: Sequence[Record]) -> Rows:
        """The matrix of these requests, and what is wrong with any of them. One request's fault touches no other."""
        forms, raws = stated_of_all([record.event for record in records])
        rows = Rows(self._bulk_of_all(forms, raws), {}, {})
        doubtful = ~np.isfinite(rows.matrix).all(axis=1)
        if doubtful.any():
            for i in np.flatnonzero(doubtful).tolist():
                self._one(rows, i, forms[i], raws[i], records[i])
        return rows

    def _know_names(self) -> None:
        """Decoders of objects that hold these names and no other; NaN stands for a missing one."""
        fields: Iterable[tuple[str, type, Any]] = [(f"x{i}", float, float("nan")) for i in range(len(self._names))]
        rename = {f"x{i}": name for i, name in enumerate(self._names)}
        row = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, gc=False)
        rows: Any = list[row]  # type: ignore[valid-type]
        self._objects = {Form.JSON_NAMES: msgspec.json.Decoder(rows).decode, Form.PACKED_NAMES: msgspec.msgpack.Decoder(rows).decode}
        self._rows |= {Form.JSON_NAMES: msgspec.json.Decoder(row).decode, Form.PACKED_NAMES: msgspec.msgpack.Decoder(row).decode}

    def _bulk_of_all(self, forms: list[Form], raws: list[bytes]) -> Matrix:
        """Rows that bulk decoding could not read hold NaN."""
        kinds = set(forms)
        if len(kinds) == 1:
            return self._bulk(forms[0], raws)
        matrix = np.empty((len(raws), len(self._names)), np.float32)
        for kind in kinds:
            places = [i for i, form in enumerate(forms) if form is kind]
            matrix[places] = self._bulk(kind, [raws[i] for i in places])
        return matrix

    def _bulk(self, form: Form, raws: list[bytes]) -> Matrix:
        matrix = None
        if form in self._lists:
            matrix = self._from_lists(form, raws)
        elif form in self._dicts:
            matrix = self._from_objects(form, raws)
        elif form is Form.FLOAT32_VECTOR:
            matrix = self._from_binary(raws)
        return self._each(form, raws) if matrix is None else matrix

    def _from_lists(self, form: Form, raws: list[bytes]) -> Matrix | None:
        try:
            rows = self._lists[form](_joined(form, raws))
        except UNREADABLE:
            return None
        return self._matrix(rows) if set(map(len, rows)) == {len(self._names)} else None

    def _from_objects(self, form: Form, raws: list[bytes]) -> Matrix | None:
        """Names that the model does not know make the strict decoder fail; then all are looked at, and those are skipped."""
        joined = _joined(form, raws)
        with suppress(*UNREADABLE):
            if form in self._objects:
                return self._matrix(list(map(_as_tuple, self._objects[form](joined))))
        try:
            rows: list[dict[str, float]] = self._dicts[form](joined)
        except UNREADABLE:
            return None
        if max(map(len, rows)) > self._limits.features or not _names_fit(form, raws, rows, self._limits.string_characters):
            return None
        if form is Form.PACKED_NAMES and not _all_finite(rows):
            return None
        return self._matrix(self._picked(rows))

    def _picked(self, rows: list[dict[str, float]]) -> list[Sequence[float]]:
        """The model's features of each row in their order; NaN stands for a missing one."""
        if len(self._names) > 1:
            with suppress(KeyError):
                return list(map(itemgetter(*self._names), rows))
        missing = float("nan")
        return [[row.get(name, missing) for name in self._names] for row in rows]

    def _from_binary(self, raws: list[bytes]) -> Matrix | None:
        header = BINARY_HEADER_BYTES[raws[0][0]]
        width = header + 4 * len(self._names)
        if {(len(raw), raw[0]) for raw in raws} != {(width, raws[0][0])}:
            return None
        table = np.frombuffer(b"".join(raws), np.uint8).reshape(len(raws), width)
        return np.ascontiguousarray(table[:, header:]).view("<f4").astype(np.float32, copy=False)

    def _each(self, form: Form, raws: list[bytes]) -> Matrix:
        """Row by row, where reading all at once failed: NaN for the rows that do not look as they should, to be read again alone."""
        width = len(self._names)
        matrix = np.full((len(raws), width), np.nan, np.float32)
        if form is Form.FLOAT32_VECTOR:
            for i, raw in enumerate(raws):
                header = BINARY_HEADER_BYTES[raw[0]]
                if len(raw) == header + 4 * width:
                    matrix[i] = np.frombuffer(raw, "<f4", offset=header)
        elif form in self._rows:
            good = {i: row for i, raw in enumerate(raws) if (row := self._row(form, raw)) is not None}
            if good:
                matrix[list(good)] = self._matrix(list(good.values()))
        return matrix

    def _row(self, form: Form, raw: bytes) -> Sequence[float] | None:
        try:
            row: Any = self._rows[form](raw)
        except UNREADABLE:
            return None
        if form in self._dicts:
            return _as_tuple(row)
        return row if len(row) == len(self._names) else None

    def _one(self, rows: Rows, i: int, form: Form, raw: bytes, record: Record) -> None:
        """Fill one row in, or name its fault."""
        values = read_one(form, raw, self._limits)
        if isinstance(values, dict):
            values = self._completed(rows, i, values, record)
        if isinstance(values, Fault):
            rows.faults[i] = values
        elif len(values) != len(self._names):
            rows.faults[i] = Fault(f"$.vector: it has {len(values)} values, the model wants {len(self._names)}")
        elif fault := too_large(form, self._names, values):
            rows.faults[i] = fault
        else:
            rows.matrix[i] = values

    def _completed(self, rows: Rows, i: int, values: dict[str, float], record: Record) -> list[float] | Fault:
        missing = [name for name in self._names if name not in values]
        unknown = [name for name in missing if name not in self._defaults]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            return Fault(f"$.features: {unknown[0]!r}{more} missing; the model has no default for it: send it")
        if missing:
            values = values | {name: self._defaults[name] for name in missing}
            form = Form.PACKED_NAMES if record.form is Format.MSGPACK else Form.JSON_NAMES
            rows.completed[i] = encode_names(form, values)
        return [values[name] for name in self._names]

    def _matrix(self, rows: Sequence[Sequence[float]]) -> Matrix:
        """Rows of k floats each as (n, k): in MessagePack each float is one byte of tag and eight of big-endian double."""
        k = len(self._names)
        packed = _pack(rows)
        header = 1 if k < 16 else 3 if k < 65_536 else 5
        width = header + 9 * k
        value = np.dtype({"names": ["value"], "formats": [">f8"], "offsets": [1], "itemsize": 9})
        row = np.dtype({"names": ["values"], "formats": [(value, (k,))], "offsets": [header], "itemsize": width})
        table = np.frombuffer(packed, row, offset=len(packed) - len(rows) * width)
        with np.errstate(over="ignore"):
            return table["values"]["value"].astype(np.float32).reshape(len(rows), k)


def _joined(form: Form, raws: list[bytes]) -> bytes:
    if form in (Form.JSON_NAMES, Form.JSON_VECTOR):
        return b"[" + b",".join(raws) + b"]"
    return b"\xdd" + len(raws).to_bytes(4, "big") + b"".join(raws)


def _names_fit(form: Form, raws: list[bytes], rows: list[dict[str, float]], limit: int) -> bool:
    """Whether no name is longer than the limit.

    A JSON name of n characters is a stretch of n bytes without a quotation mark, unless it holds an escaped one: mostly it is enough to
    hop from mark to mark, as far as the limit allows.
    """
    if form is Form.JSON_NAMES and b"\\" not in (joined := b"".join(raws)):
        return _hops(joined, limit)
    return all(len(name) <= limit for name in set().union(*rows))


def _hops(joined: bytes, limit: int) -> bool:
    at = 0
    while at + limit + 1 < len(joined):
        mark = joined.rfind(b'"', at + 1, at + limit + 2)
        if mark < 0:
            return False
        at = mark
    return True


def _all_finite(rows: list[dict[str, float]]) -> bool:
    return bool(np.isfinite(np.fromiter(chain.from_iterable(row.values() for row in rows), np.float64)).all())
