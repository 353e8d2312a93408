"""Model bytes at hand, on disk and not in memory, for as long as the process lives."""

from __future__ import annotations

import os
import tempfile
import threading


class Spool:
    """Bytes by digest in one file that has no name: gone with the process, however it ends."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._lock = threading.Lock()

    def put(self, digest: str, data: bytes) -> None:
        """Keep the bytes, once."""
        with self._lock:
            if digest in self._places:
                return
            os.pwrite(self._file.fileno(), data, self._end)
            self._places[digest] = (self._end, len(data))
            self._end += len(data)

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None where they were never put."""
        place = self._places.get(digest)
        return None if place is None else os.pread(self._file.fileno(), place[1], place[0])

    def close(self) -> None:
        """Forget everything."""
        self._file.close()
