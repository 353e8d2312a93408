"""Record headers as one column, and the content types that stand in it: read once for a block, not once for a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from millrace.infra.clickhouse.cells import Array
from millrace.schemas.record import Headers
from millrace.schemas.wire import CONTENT_TYPE

HEADERS = pa.map_(pa.string(), pa.binary())


def headers(values: Sequence[Headers | None]) -> Array:
    """Record headers as a map; a header without a value holds no bytes, a name that stands twice stands twice."""
    rows = pa.array([value or () for value in values], HEADERS)
    bodies = rows.items.fill_null(b"") if rows.items.null_count else rows.items
    return pa.MapArray.from_arrays(rows.offsets, rows.keys.dictionary_encode(), bodies)


def content_types(column: Array) -> Iterator[tuple[bytes, list[int]]]:
    """Each content type with the rows of a headers column that name it first; rows that name none are left out."""
    names = column.keys
    code = names.dictionary.index(CONTENT_TYPE).as_py()
    if code < 0:
        return
    places = np.flatnonzero(names.indices.to_numpy() == code)
    rows, firsts = np.unique(np.searchsorted(column.offsets.to_numpy(), places, side="right") - 1, return_index=True)
    kinds = column.items.take(pa.array(places[firsts])).dictionary_encode()
    for number, kind in enumerate(kinds.dictionary.to_pylist()):
        yield kind, rows[kinds.indices.to_numpy() == number].tolist()
