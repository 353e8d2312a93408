"""The partition of a key, as Kafka's own clients compute it."""

from __future__ import annotations

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """The 32-bit murmur2 hash that Kafka's Java client uses.

    >>> murmur2(b"21") == -973932308 & MASK
    True
    """
    value = (SEED ^ len(key)) & MASK
    whole = len(key) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * MULTIPLIER & MASK
        value = (value * MULTIPLIER & MASK) ^ ((word ^ word >> 24) * MULTIPLIER & MASK)
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * MULTIPLIER & MASK
    value = (value ^ value >> 13) * MULTIPLIER & MASK
    return value ^ value >> 15


def partition_of(key: str, partitions: int) -> int:
    """The partition that a record with this key is in."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
