"""Which outcomes are there again: by their ids, remembered for one to two weeks of append time.

Ids stand with their unit, 16 bytes each, so that a new outcome costs no key of its own. Of a unit with many of them they move into keys,
a lot at a time, or each outcome would write all of them again.
"""

from __future__ import annotations

from millrace.streams.experiment.subject import UnitState
from millrace.streams.step import Store

GENERATION_MS = 604_800_000
ID_BYTES = 16
INLINE_BYTES = 64 * ID_BYTES
SPILLED = b"i"


def repeated(unit: UnitState, digest: bytes, generation: int, store: Store) -> bool:
    """Whether the outcome before this one with its id is of this generation or the one before; remembers it."""
    if generation > unit.generation:
        unit.older = unit.ids if generation == unit.generation + 1 else b""
        unit.ids, unit.generation = b"", generation
    fresh = not _holds(unit.ids, digest)
    if not fresh:
        return True
    again = _holds(unit.older, digest) or _spilled(unit, digest, store)
    unit.ids += digest
    if len(unit.ids) >= INLINE_BYTES:
        _spill(unit, store)
    return again


def key(generation: int, digest: bytes = b"") -> bytes:
    """Where an id of a generation stands that moved out of its unit."""
    return SPILLED + generation.to_bytes(4, "big") + digest


def _holds(ids: bytes, digest: bytes) -> bool:
    at = ids.find(digest)
    while at > 0 and at % ID_BYTES:
        at = ids.find(digest, at + 1)
    return at >= 0


def _spilled(unit: UnitState, digest: bytes, store: Store) -> bool:
    if unit.spilled < unit.generation - 1:
        return False
    return any(store.get(key(generation, digest)) is not None for generation in (unit.generation, unit.generation - 1))


def _spill(unit: UnitState, store: Store) -> None:
    for at in range(0, len(unit.ids), ID_BYTES):
        store.put(key(unit.generation, unit.ids[at : at + ID_BYTES]), b"\x01")
    unit.ids, unit.spilled = b"", unit.generation
