"""A unit's outcomes of the last minutes: an exposure that is appended after them may still count them.

They are kept whatever their name and whatever is known of plans, so that a plan that is learnt late changes nothing. Of a unit with many
of them they move into chunks, or each outcome would write all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from millrace.streams.experiment.subject import Coding, Entry, UnitState, digest_of
from millrace.streams.step import Store

GRACE_MS = 600_000
SLACK_MS = 60_000
"""How much longer they are kept: append times may go back a little when a partition's leader changes."""
KEPT_MS = GRACE_MS + SLACK_MS
INLINE = 256
CHUNKS = b"g"
ENTRIES: Coding[list[bytes]] = Coding(list[bytes])
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Entry] = msgspec.msgpack.Decoder(Entry).decode


def remember(unit_id: str, unit: UnitState, entry: Entry, store: Store) -> None:
    """Keep an outcome, and let go of what is too old."""
    recent = unit.recent
    if not recent:
        unit.since_ms = entry[0]
    elif unit.since_ms < entry[0] - KEPT_MS:
        forget(unit_id, unit, entry[0] - KEPT_MS, store)
        unit.since_ms = unit.since_ms if recent else entry[0]
    recent.append(_encode(entry))
    if len(recent) > INLINE:
        _spill(unit_id, unit, store)
        forget(unit_id, unit, entry[0] - KEPT_MS, store)  # of a unit that is never quiet the first of them is never old


def recall(unit_id: str, unit: UnitState, from_ms: int, store: Store) -> Iterator[Entry]:
    """The outcomes appended from then on."""
    for number, newest_ms in unit.chunks:
        if newest_ms >= from_ms:
            yield from _since(ENTRIES.decode(store.get(_key(unit_id, number)) or b""), from_ms)
    yield from _since(unit.recent, from_ms)


def forget(unit_id: str, unit: UnitState, oldest_ms: int, store: Store) -> bool:
    """Let go of what comes before the first outcome that is new enough; whether there was any."""
    gone = 0
    while unit.chunks and unit.chunks[0][1] < oldest_ms:
        store.delete(_key(unit_id, unit.chunks.pop(0)[0]))
        gone += 1
    if unit.chunks or not unit.recent or unit.since_ms >= oldest_ms:
        return bool(gone)
    times = (_decode(entry)[0] for entry in unit.recent)
    old, unit.since_ms = next(((at, time_ms) for at, time_ms in enumerate(times) if time_ms >= oldest_ms), (len(unit.recent), 0))
    del unit.recent[:old]
    return bool(gone or old)


def _since(entries: Iterable[bytes], from_ms: int) -> Iterator[Entry]:
    return (entry for entry in map(_decode, entries) if entry[0] >= from_ms)


def _spill(unit_id: str, unit: UnitState, store: Store) -> None:
    number = unit.chunks[-1][0] + 1 if unit.chunks else 0
    store.put(_key(unit_id, number), ENTRIES.encode(unit.recent))
    unit.chunks.append([number, max(_decode(entry)[0] for entry in unit.recent)])
    unit.recent.clear()


def _key(unit_id: str, number: int) -> bytes:
    return CHUNKS + digest_of(unit_id) + number.to_bytes(4, "big")
