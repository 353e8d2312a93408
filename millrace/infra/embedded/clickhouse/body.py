"""A request's body: chunked or counted, decompressed as it comes, and spooled to a memfd under one budget of bytes."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedIOBase
from typing import Protocol

import lz4.frame

from millrace.infra.embedded.clickhouse.errors import BAD_BODY, MEMORY_LIMIT, NOT_IMPLEMENTED, TOO_LARGE, QueryError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 1 << 20
FIRST_BYTES = 32 << 10
ENCODINGS = ("gzip", "deflate", "lz4", "zstd")


class Headers(Protocol):
    """What a request's headers can do: found by name, whatever its case."""

    def get(self, name: str, /) -> str | None: ...


class Decompressor(Protocol):
    """What every streaming decompressor has in common, bounded in what one call gives."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Budget:
    """How many bytes all bodies together may hold in memory at one moment."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._used, self._lock = limit_bytes, 0, threading.Lock()

    def take(self, size: int) -> None:
        """Count ``size`` more bytes. Raises QueryError 241 when that is too many."""
        with self._lock:
            if self._used + size > self._limit:
                raise QueryError(MEMORY_LIMIT, f"bodies in memory would exceed {self._limit} bytes (spool_bytes); send it again later")
            self._used += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size

    @property
    def used_bytes(self) -> int:
        return self._used


class Spool:
    """Bytes in a memfd, which the engine reads by its path in /proc."""

    def __init__(self, budget: Budget, limit_bytes: int) -> None:
        self._budget, self._limit, self.size = budget, limit_bytes, 0
        self._file = os.memfd_create("millrace-insert", os.MFD_CLOEXEC)

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._file}"

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises QueryError 307 past the limit of one body and 241 past that of all."""
        if self.size + len(data) > self._limit:
            raise too_large(self._limit)
        self._budget.take(len(data))
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        os.close(self._file)
        self._budget.give_back(self.size)
        self.size = 0


def too_large(limit_bytes: int) -> QueryError:
    return QueryError(TOO_LARGE, f"the body is larger than {limit_bytes} bytes; send smaller blocks or statements")


class Incoming:
    """One request's body, read once, a chunk at a time, as the client meant it (decompressed)."""

    def __init__(self, stream: BufferedIOBase, headers: Headers) -> None:
        """Nothing is read yet. Raises QueryError for a length or an encoding that cannot be."""
        chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self._raw = _chunks(stream) if chunked else _counted(stream, _length(headers))
        self._encoding = (headers.get("Content-Encoding") or "identity").lower().strip()
        self._pieces = self._raw if self._encoding == "identity" else _decompressed(self._raw, _maker(self._encoding), self._encoding)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def read(self, limit_bytes: int) -> bytes:
        """All of it. Raises QueryError 307 past the limit."""
        out = bytearray()
        for piece in self._pieces:
            out += piece
            if len(out) > limit_bytes:
                raise too_large(limit_bytes)
        return bytes(out)

    def discard(self, limit_bytes: int) -> bool:
        """Read what is left of a refused body, so that the connection can be used again; False when it cannot."""
        with suppress(QueryError, OSError):
            for piece in self._raw:
                limit_bytes -= len(piece)
                if limit_bytes < 0:
                    return False
            return True
        return False


def _length(headers: Headers) -> int:
    text = headers.get("Content-Length") or "0"
    if not text.isdigit():
        raise QueryError(BAD_BODY, f"Content-Length {text!r} is not a number")
    return int(text)


def _counted(stream: BufferedIOBase, left: int) -> Iterator[bytes]:
    # The first piece is small: the head of an insert is looked for in it, and only the rest goes straight to the spool.
    size = FIRST_BYTES
    while left:
        data = stream.read1(min(left, size))  # what has come, rather than waiting for all: the budget sees it at once
        if not data:
            raise ConnectionResetError("the client went away before the end of its body")
        left -= len(data)
        size = CHUNK_BYTES
        yield data


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while size := _chunk_size(stream):
        yield from _counted(stream, size)
        stream.readline(8)
    while stream.readline(65536) not in (b"\r\n", b"\n", b""):
        pass


def _chunk_size(stream: BufferedIOBase) -> int:
    line = stream.readline(1024)
    if not line:
        raise ConnectionResetError("the client went away before the end of its body")
    try:
        return int(line.split(b";")[0].strip(), 16)
    except ValueError:
        raise QueryError(BAD_BODY, "the chunked body is malformed") from None


def _decompressed(raw: Iterator[bytes], make: Callable[[], Decompressor], encoding: str) -> Iterator[bytes]:
    """Decompress piece by piece, never more than a chunk at once, over any number of frames one after another."""
    engine, begun = make(), False
    for data in raw:
        while data or (begun and not engine.needs_input and not engine.eof):
            out = _step(engine, data, encoding)
            begun = True
            yield out
            data = b""
            if engine.eof:
                data, engine, begun = engine.unused_data, make(), False
    if begun:
        raise QueryError(BAD_BODY, f"the {encoding} body ends too early")


def _step(engine: Decompressor, data: bytes, encoding: str) -> bytes:
    try:
        return engine.decompress(data, CHUNK_BYTES)
    except Exception as error:  # noqa: BLE001  every library has an error of its own
        raise QueryError(BAD_BODY, f"the body is not valid {encoding}: {error}") from None


class Inflate:
    """zlib's decompressor (gzip or zlib frame, told apart by its header) in the shape of the others."""

    def __init__(self) -> None:
        self._engine = zlib.decompressobj(wbits=47)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        out = self._engine.decompress(self._engine.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length
        return out


def _maker(encoding: str) -> Callable[[], Decompressor]:
    match encoding:
        case "gzip" | "deflate":
            return Inflate
        case "lz4":
            return lz4.frame.LZ4FrameDecompressor  # type: ignore[no-any-return]
        case "zstd":
            return zstd.ZstdDecompressor
        case _:
            raise QueryError(NOT_IMPLEMENTED, f"Content-Encoding {encoding!r} is not supported; use one of {', '.join(ENCODINGS)}")
