"""Keyed state of one partition group: RocksDB, behind writes that are not committed yet."""

from __future__ import annotations

import shutil
from bisect import bisect_left, insort
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from millrace.schemas.errors import PathInUse

KEY = b"k"
MARK = b"m"
Writes = dict[bytes, bytes | None]
FEW_KEYS = 16


class Mark(Struct, frozen=True):
    """How far a store is: its changelog's topic id, the next offset to apply, and when it was written, in seconds since the epoch."""

    topic_id: str
    offset: int
    written: float


class GroupStore:
    """The store of one slot and partition group: what was committed, in RocksDB, and over it what this transaction wrote.

    Only ``apply`` writes to disk, together with the changelog offset that the writes have, so that a store is always the exact image of a
    prefix of its changelog.
    """

    def __init__(self, folder: Path, cache_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._cache_bytes = cache_bytes
        self._pending: Writes = {}
        self._order: list[bytes] = []
        self._unordered: list[bytes] = []
        self._db = self._opened()

    @property
    def mark(self) -> Mark | None:
        """How far the store is; None while it is empty."""
        value = self._db.get(MARK)
        return msgspec.msgpack.decode(value, type=Mark) if value is not None else None

    @property
    def pending(self) -> Writes:
        """What this transaction wrote so far: key to value, or to None where it was deleted."""
        return self._pending

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, with all that was written in this transaction."""
        if key in self._pending:
            return self._pending[key]
        value: bytes | None = self._db.get(KEY + key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key in this transaction."""
        self._write(key, value)

    def delete(self, key: bytes) -> None:
        """Remove a key in this transaction."""
        self._write(key, None)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with start <= key < end, in order, as they stood when the scan began."""
        self._put_in_order()
        keys = self._order[bisect_left(self._order, start) : bisect_left(self._order, end)]
        pending = {key: self._pending[key] for key in keys}
        return _overlaid(self._stored(start, end), pending)

    def discard(self) -> None:
        """Forget what this transaction wrote."""
        self._pending, self._order, self._unordered = {}, [], []

    def take(self) -> Writes:
        """Take over what this transaction wrote, for ``apply`` once it is committed."""
        writes = self._pending
        self.discard()
        return writes

    def apply(self, writes: Writes, mark: Mark) -> None:
        """Write committed changes and how far they reach, in one batch."""
        batch = WriteBatch(raw_mode=True)
        for key, value in writes.items():
            if value is None:
                batch.delete(KEY + key)
            else:
                batch.put(KEY + key, value)
        batch.put(MARK, msgspec.msgpack.encode(mark))
        self._db.write(batch)

    def close(self) -> None:
        """Close the files; the state stays on disk."""
        self._db.close()

    def wipe(self) -> None:
        """Close, remove and begin empty."""
        self._db.close()
        shutil.rmtree(self._folder)
        self.discard()
        self._db = self._opened()

    def _write(self, key: bytes, value: bytes | None) -> None:
        if key not in self._pending:
            self._unordered.append(key)
        self._pending[key] = value

    def _put_in_order(self) -> None:
        """Keep the keys in order beside the writes, for scans alone: a step that never scans pays nothing.

        One that scans once a record must not look at all of them each time: a few keys are put in their places, many are sorted in.
        """
        if len(self._unordered) > FEW_KEYS:
            self._order += self._unordered
            self._order.sort()
        else:
            for key in self._unordered:
                insort(self._order, key)
        self._unordered.clear()

    def _opened(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            return Rdict(str(self._folder), _options(self._cache_bytes))
        except Exception as error:  # rocksdict raises plain exceptions with RocksDB's text
            if "lock" in str(error).lower():
                raise PathInUse(
                    f"another process has the state in {self._folder} open: end it, or give each worker its own ordinal"
                ) from None
            raise

    def _stored(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=KEY + start):
            if not key.startswith(KEY) or key[1:] >= end:
                return
            yield key[1:], value


class NoStore:
    """The store of a stateless step: there is none, and using it is a mistake of the step's."""

    def get(self, key: bytes) -> bytes | None:
        raise TypeError("a stateless step has no store")

    def put(self, key: bytes, value: bytes) -> None:
        raise TypeError("a stateless step has no store")

    def delete(self, key: bytes) -> None:
        raise TypeError("a stateless step has no store")

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        raise TypeError("a stateless step has no store")


def _overlaid(stored: Iterator[tuple[bytes, bytes]], pending: Writes) -> Iterator[tuple[bytes, bytes]]:
    """Both in the order of their keys; what is pending wins."""
    fresh = iter(pending.items())
    ahead = next(fresh, None)
    for key, value in stored:
        while ahead is not None and ahead[0] < key:
            if ahead[1] is not None:
                yield ahead[0], ahead[1]
            ahead = next(fresh, None)
        if key not in pending:
            yield key, value
    while ahead is not None:
        if ahead[1] is not None:
            yield ahead[0], ahead[1]
        ahead = next(fresh, None)


def _options(cache_bytes: int) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(32 << 20)
    options.set_max_write_buffer_number(3)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(cache_bytes))
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    return options
