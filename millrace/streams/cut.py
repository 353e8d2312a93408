"""Where a block of records ends: at so many rows or bytes, at the edge of a table partition, or when it has waited long enough."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate

from msgspec import Struct

from millrace.schemas.record import Record

RECORD_BYTES = 64
"""What a record weighs in memory besides its key, value and headers."""
HEADER_BYTES = 150
"""What a header weighs besides its name and value."""


class Limits(Struct, frozen=True, kw_only=True):
    """When a block is cut, and how long its writer owns the right to insert it."""

    block_rows: int
    block_bytes: int
    block_seconds: float
    lease_seconds: float
    insert_seconds: float
    """The server ends an insert that runs longer."""
    retry_seconds: float


def weight_bytes(record: Record) -> int:
    """About how much memory a record takes."""
    weight = RECORD_BYTES + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers or ():
        weight += HEADER_BYTES + len(name) + len(value or b"")
    return weight


def month_ms(appended_ms: int) -> tuple[int, int]:
    """The table partition that an append time falls into: its month, as [start, end) in ms.

    >>> start, end = month_ms(1_795_000_000_000)
    >>> datetime.fromtimestamp(start / 1000, UTC).date().isoformat(), datetime.fromtimestamp(end / 1000, UTC).date().isoformat()
    ('2026-11-01', '2026-12-01')
    """
    time = datetime.fromtimestamp(appended_ms / 1_000, UTC)
    start = datetime(time.year, time.month, 1, tzinfo=UTC)
    end = datetime(time.year + time.month // 12, time.month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()) * 1_000, int(end.timestamp()) * 1_000


def cut(records: Sequence[Record], weights_bytes: Sequence[int], limits: Limits) -> int:
    """How many of the first records make the next block; at least one of a sequence that is not empty."""
    if not records:
        return 0
    start, end = month_ms(records[0].appended_ms)
    times = [record.appended_ms for record in records[: limits.block_rows]]
    if min(times) < start or max(times) >= end:
        times = times[: next(index for index, time in enumerate(times) if not start <= time < end)]
    ends = list(accumulate(weights_bytes[: len(times)]))
    return max(1, bisect_right(ends, limits.block_bytes))
