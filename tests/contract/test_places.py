"""Places that have an in-memory twin behave as it does: the group store, under any sequence of calls."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from millrace.infra.state import GroupStore, Mark
from millrace.schemas.errors import PathInUse
from tests.driver import MemoryStore

KEYS = st.sampled_from([b"", b"a", b"aa", b"ab", b"b", b"\x00", b"\xff", b"\xff\xff"])
VALUES = st.binary(max_size=4)


class StoreAgainstTwin(RuleBasedStateMachine):
    """Writes, deletes, commits, discards, scans and re-opens: both stores always show the same."""

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.store, self.twin, self.offset = GroupStore(Path(self._folder.name) / "0", 1 << 20), MemoryStore(), 0

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.store.put(key, value)
        self.twin.put(key, value)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        self.store.delete(key)
        self.twin.delete(key)

    @rule()
    def commit(self) -> None:
        self.offset += 1
        self.store.apply(self.store.take(), Mark("id", self.offset, 1.0))
        self.twin.commit()

    @rule()
    def discard(self) -> None:
        self.store.discard()
        self.twin.discard()

    @rule()
    def open_again(self) -> None:
        """What was not committed is gone, as after a crash."""
        self.store.close()
        self.store = GroupStore(Path(self._folder.name) / "0", 1 << 20)
        self.twin.discard()

    @rule()
    def wipe(self) -> None:
        self.store.wipe()
        self.twin, self.offset = MemoryStore(), 0

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.store.get(key) == self.twin.get(key)

    @rule(start=KEYS, end=KEYS)
    def scan(self, start: bytes, end: bytes) -> None:
        assert list(self.store.scan(start, end)) == list(self.twin.scan(start, end))

    @rule(start=KEYS, end=KEYS, value=VALUES)
    def scan_while_writing(self, start: bytes, end: bytes, value: bytes) -> None:
        """A scan shows what stood there when it began, whatever is written meanwhile."""
        expected = list(self.twin.scan(start, end))
        seen = []
        for key, found in self.store.scan(start, end):
            seen.append((key, found))
            self.store.delete(key)
            self.twin.delete(key)
            self.store.put(key + b"~", value)
            self.twin.put(key + b"~", value)
        assert seen == expected

    @invariant()
    def same(self) -> None:
        assert list(self.store.scan(b"", b"\xff" * 8)) == list(self.twin.scan(b"", b"\xff" * 8))
        assert (self.store.mark.offset if self.store.mark is not None else 0) == self.offset

    def teardown(self) -> None:
        self.store.close()
        self._folder.cleanup()


TestStoreAgainstTwin = StoreAgainstTwin.TestCase
TestStoreAgainstTwin.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_a_store_that_is_open_says_so(tmp_path: Path) -> None:
    store = GroupStore(tmp_path / "0")
    with pytest.raises(PathInUse, match="another process has the state"):
        GroupStore(tmp_path / "0")
    store.close()
    GroupStore(tmp_path / "0").close()


def test_keys_beside_the_mark_are_only_ours(tmp_path: Path) -> None:
    """A key of any bytes is a key: none reaches the mark, and the mark is in no scan."""
    store = GroupStore(tmp_path / "0")
    for key in (b"", b"m", b"k", b"\x00", b"\xff\xff"):
        store.put(key, b"v" + key)
    store.apply(store.take(), Mark("id", 7, 1.0))
    assert [key for key, _ in store.scan(b"", b"\xff" * 8)] == [b"", b"\x00", b"k", b"m", b"\xff\xff"]
    assert store.mark == Mark("id", 7, 1.0)
    store.close()


def test_many_keys_written_between_two_scans_are_in_order(tmp_path: Path) -> None:
    """Few new keys are put in their places, many are sorted in: before and after that a scan shows the same."""
    store, twin = GroupStore(tmp_path / "0"), MemoryStore()
    keys = [bytes([number * 37 % 256]) for number in range(256)]
    for few in (keys[:3], keys[3:120], keys[120:130], keys[130:]):
        for key in few:
            store.put(key, key)
            twin.put(key, key)
        assert list(store.scan(b"\x05", b"\xf0")) == list(twin.scan(b"\x05", b"\xf0"))
    store.close()
