"""An object store in memory, for tests of what keeps or fetches objects."""

from __future__ import annotations

import hashlib

from millrace.infra.objects import SCHEME, Damaged, Missing
from millrace.schemas.errors import Unavailable


class MemoryObjects:
    """The in-memory twin of the folder of objects. While ``away`` it does not answer."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False

    def put(self, data: bytes) -> str:
        self._answer()
        location = SCHEME + hashlib.sha256(data).hexdigest()
        self.objects[location] = data
        return location

    def get(self, location: str) -> bytes:
        digest = location.removeprefix(SCHEME)
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise Damaged(f"{location!r} is no location of an object")
        self._answer()
        if location not in self.objects:
            raise Missing(f"there is no object {location}")
        data = self.objects[location]
        if hashlib.sha256(data).hexdigest() != digest:
            raise Damaged(f"object {location} is not what it was")
        return data

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("the store does not answer")
