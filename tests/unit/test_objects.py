"""The folder store of objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.infra.objects import Damaged, Folder, Missing
from millrace.schemas.errors import Unavailable


def test_bytes_come_back_by_their_digest(tmp_path: Path) -> None:
    location = Folder(tmp_path).put(b"a model")
    assert location == "sha256:97ff8a35544dcf40ad84047074439dd6aa3a0be469ea578a1b1c017d939ec61c"
    assert Folder(tmp_path).get(location) == b"a model"


def test_putting_twice_keeps_one_file_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    assert store.put(b"x" * 1_000) == store.put(b"x" * 1_000)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_torn_file_is_written_again(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    location = store.put(b"whole")
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.write_bytes(b"who")
    with pytest.raises(Damaged, match="no longer holds"):
        store.get(location)
    assert store.get(store.put(b"whole")) == b"whole"


def test_what_is_missing_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"objects\.folder must be the folder"):
        Folder(tmp_path).get("sha256:" + "0" * 64)


def test_a_folder_that_is_not_there_yet_is_a_store_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"objects\.folder must be the folder"):
        Folder(tmp_path / "not-mounted").get("sha256:" + "0" * 64)


@pytest.mark.parametrize("location", ["", "sha256:../../etc/passwd", "sha256:" + "g" * 64, "s3://bucket/key"])
def test_a_location_is_a_digest_and_never_a_path(tmp_path: Path, location: str) -> None:
    with pytest.raises(Damaged, match="no location"):
        Folder(tmp_path).get(location)


def test_a_folder_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot keep 3 bytes"):
        Folder(tmp_path / "file").put(b"abc")
