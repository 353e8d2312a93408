"""Where the last few committed records of each partition begin.

Offsets do not count records: transaction markers, aborted records and compaction leave offsets that no committed reader is given. So
it steps back, further each time, and counts what comes, until there is enough of it or the bound is reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from millrace.infra.kafka.scan import Dropped, Scan
from millrace.schemas.errors import Unavailable

REACH_OFFSETS = 100_000
"""It steps back no further than this from a partition's end, nor than four offsets for each record that is wanted."""
FIRST_STEP_OFFSETS = 16
WIDER = 8
AT_ONCE = 500


class Extent(Struct, frozen=True):
    """What a partition holds: offsets [start, end)."""

    partition: int
    start: int
    end: int


def last_offsets(scan: Scan, topic: str, extents: Iterable[Extent], records: int) -> dict[int, int]:
    """By partition, the offset of the first of its last so many records; its end where a committed reader is given none of them.

    Raises Unavailable where Kafka is silent for 15 s, or drops what is being counted.
    """
    found: dict[int, int] = {}
    todo = {extent.partition: extent for extent in extents}
    step, reach = 2 * records + FIRST_STEP_OFFSETS, max(REACH_OFFSETS, 4 * records)
    while todo:
        step = min(step, reach)
        starts = {number: max(extent.start, extent.end - step) for number, extent in todo.items()}
        seen = _seen(scan, topic, {number: (start, todo[number].end) for number, start in starts.items()}, records)
        for number, offsets in seen.items():
            if len(offsets) == records or starts[number] == todo[number].start or step == reach:
                found[number] = offsets[0] if offsets else todo[number].end
                del todo[number]
        step *= WIDER
    return found


def _seen(scan: Scan, topic: str, spans: dict[int, tuple[int, int]], records: int) -> dict[int, deque[int]]:
    """The last so many offsets that are given in [start, end) of each partition."""
    seen: dict[int, deque[int]] = {number: deque(maxlen=records) for number in spans}
    for piece in scan.offsets({(topic, number): span for number, span in spans.items()}, AT_ONCE):
        if isinstance(piece, Dropped):
            raise Unavailable(f"topic {topic}: its retention dropped records while they were counted; try again")
        seen[piece.place[1]].extend(piece.offsets.tolist())
    return seen
