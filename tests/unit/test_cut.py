"""Does a block end where it should?"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from millrace.schemas.record import Record
from millrace.streams import cut as module
from millrace.streams.cut import Limits, month_ms, weight_bytes
from tests.ledger import LIMITS, record

NOVEMBER = 1_795_000_000_000
DECEMBER = month_ms(NOVEMBER)[1]


def cut(records: Sequence[Record], limits: Limits) -> int:
    return module.cut(records, list(map(weight_bytes, records)), limits)


def test_nothing_is_no_block() -> None:
    assert cut([], LIMITS) == 0


def test_a_block_has_at_most_so_many_rows() -> None:
    assert cut([record(n) for n in range(9)], LIMITS) == 5


def test_a_block_has_at_most_so_many_bytes() -> None:
    records = [record(n, value=b"x" * 100) for n in range(5)]
    room = replace(LIMITS, block_bytes=3 * weight_bytes(records[0]))
    assert cut(records, room) == 3
    assert cut(records, replace(room, block_bytes=room.block_bytes - 1)) == 2


def test_headers_weigh_too() -> None:
    plain = record(0)
    flood = replace(plain, headers=[("x" * 1_000, b"y" * 9_000), ("z", None)])
    assert 10_001 < weight_bytes(flood) - weight_bytes(plain) < 10_500
    assert cut([flood, flood], replace(LIMITS, block_bytes=15_000)) == 1


def test_a_record_that_is_larger_than_a_block_is_a_block_of_its_own() -> None:
    assert cut([record(0, value=b"x" * 20_000), record(1)], LIMITS) == 1


def test_a_block_ends_at_the_edge_of_a_table_partition() -> None:
    assert cut([record(0, DECEMBER - 1), record(1, DECEMBER), record(2, DECEMBER)], LIMITS) == 1
    assert cut([record(1, DECEMBER), record(2, DECEMBER)], LIMITS) == 2


def test_a_block_ends_where_append_times_step_back_over_the_edge() -> None:
    assert cut([record(0, DECEMBER), record(1, DECEMBER - 1), record(2, DECEMBER)], LIMITS) == 1


def test_december_ends_with_the_year() -> None:
    start, end = month_ms(DECEMBER)
    assert (end - start) == 31 * 86_400_000
