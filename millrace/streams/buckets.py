"""Where a key falls in [0, 1). ClickHouse's ``xxHash64`` is the same function, so that any bucket can be derived again in SQL."""

from __future__ import annotations

import xxhash

digest = xxhash.xxh64_intdigest
UNIT = 2.0**-53


def bucket(key: bytes) -> float:
    """Where a key falls in [0, 1): the upper 53 bits of its xxHash64, which a double holds exactly.

    >>> bucket(b"salt:variant:unit-1") == bucket(b"salt:variant:unit-1")
    True
    """
    return (digest(key) >> 11) * UNIT
