"""Where bytes lie that do not fit into a record: a store of objects, each named by the sha256 of its bytes."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Protocol

from millrace.schemas.errors import MillraceError, Unavailable

SCHEME = "sha256:"


class Objects(Protocol):
    """Bytes by their digest. What is put is never changed; putting it again does nothing."""

    def put(self, data: bytes) -> str:
        """Keep the bytes and give their location, ``sha256:<hex>``. Durable when it returns. Raises Unavailable."""
        ...

    def get(self, location: str) -> bytes:
        """The bytes of a location. Raises Missing, Damaged where they changed, or Unavailable while the store does not answer."""
        ...


class Missing(MillraceError):
    """The store answers and has no such object."""


class Damaged(MillraceError):
    """An object's bytes no longer agree with its name."""


class Folder:
    """A store in a folder, which several machines may share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        """Written beside its place, synced and renamed: a reader finds all of it or nothing."""
        location = SCHEME + hashlib.sha256(data).hexdigest()
        path = self._path(location)
        if self._is_there(path, len(data)):
            return location
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_durably(path, data)
        except OSError as error:
            raise Unavailable(
                f"cannot keep {len(data)} bytes under {self._root}: {error.strerror}. Set objects.folder to another."
            ) from None
        return location

    def get(self, location: str) -> bytes:
        """Read and checked against the name. A folder that is not there is a store that does not answer: it may be mounted late."""
        path = self._path(location)
        try:
            data = path.read_bytes()
        except OSError as error:
            kind = Missing if isinstance(error, FileNotFoundError) and self._root.is_dir() else Unavailable
            raise kind(
                f"object {location} is not to be had from {self._root}: {error.strerror}."
                " objects.folder must be the folder that `millrace models add` wrote to, shared by all machines."
            ) from None
        if SCHEME + hashlib.sha256(data).hexdigest() != location:
            raise Damaged(f"{path} no longer holds what its name says: remove it and add the model's file again.")
        return data

    def _path(self, location: str) -> Path:
        digest = location.removeprefix(SCHEME)
        if len(digest) != 64 or not all(letter in "0123456789abcdef" for letter in digest):
            raise Damaged(f"{location!r} is no location of an object: it is sha256: and 64 hex digits")
        return self._root / digest[:2] / digest

    def _is_there(self, path: Path, size: int) -> bool:
        try:
            return path.stat().st_size == size
        except OSError:
            return False


def _write_durably(path: Path, data: bytes) -> None:
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        with new.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
