"""Do the folder of objects and the store in memory, by which the place of models is proven, keep the same rules?"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from millrace.infra.objects import Damaged, Folder, Missing, Objects
from millrace.schemas.errors import Unavailable
from tests.objects import MemoryObjects

NOWHERE = "sha256:" + "0" * 64


class Bench(Protocol):
    """A store, and what can become of it and of its objects."""

    @property
    def store(self) -> Objects: ...

    def damage(self, location: str, data: bytes) -> None: ...

    def lose(self, location: str) -> None: ...

    def go_away(self) -> None: ...


class InMemory:
    """The twin."""

    def __init__(self) -> None:
        self.store = MemoryObjects()

    def damage(self, location: str, data: bytes) -> None:
        self.store.objects[location] = data

    def lose(self, location: str) -> None:
        del self.store.objects[location]

    def go_away(self) -> None:
        self.store.away = True


class Real:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self._root, self.store = root, Folder(root)
        root.mkdir()

    def damage(self, location: str, data: bytes) -> None:
        self._file(location).write_bytes(data)

    def lose(self, location: str) -> None:
        self._file(location).unlink()

    def go_away(self) -> None:
        self._root.rename(self._root.with_name("elsewhere"))
        self._root.write_text("what is mounted here is none")

    def _file(self, location: str) -> Path:
        (found,) = self._root.rglob(location.removeprefix("sha256:"))
        return found


@pytest.fixture(params=["memory", "real"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return InMemory() if request.param == "memory" else Real(tmp_path / "objects")


def test_a_location_is_the_digest_and_brings_the_bytes_back(bench: Bench) -> None:
    locations = {data: bench.store.put(data) for data in (b"", b"a model", b"\x00" * 100_000)}
    assert locations[b"a model"] == "sha256:97ff8a35544dcf40ad84047074439dd6aa3a0be469ea578a1b1c017d939ec61c"
    assert {data: bench.store.get(location) for data, location in locations.items()} == {data: data for data in locations}


def test_putting_it_again_changes_nothing(bench: Bench) -> None:
    assert bench.store.put(b"once") == bench.store.put(b"once")
    assert bench.store.get(bench.store.put(b"once")) == b"once"


def test_what_is_not_there_is_missing_until_it_is_put(bench: Bench) -> None:
    location = bench.store.put(b"soon gone")
    bench.lose(location)
    for absent in (location, NOWHERE):
        with pytest.raises(Missing):
            bench.store.get(absent)
    assert bench.store.get(bench.store.put(b"soon gone")) == b"soon gone"


@pytest.mark.parametrize("data", [b"who", b"whose", b""])
def test_changed_bytes_are_never_given_out(bench: Bench, data: bytes) -> None:
    location = bench.store.put(b"whole")
    bench.damage(location, data)
    with pytest.raises(Damaged):
        bench.store.get(location)


@pytest.mark.parametrize("location", ["", "sha256:../../etc/passwd", "sha256:" + "g" * 64, "s3://bucket/key"])
def test_a_location_is_a_digest_and_nothing_else(bench: Bench, location: str) -> None:
    with pytest.raises(Damaged):
        bench.store.get(location)


def test_a_store_that_does_not_answer_is_not_one_without_the_object(bench: Bench) -> None:
    location = bench.store.put(b"there")
    bench.go_away()
    with pytest.raises(Unavailable):
        bench.store.get(location)
    with pytest.raises(Unavailable):
        bench.store.put(b"more")
