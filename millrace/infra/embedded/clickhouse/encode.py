"""Compress an answer as it goes out, in the first encoding that the client accepts and we know."""

from __future__ import annotations

import re
import sys
import zlib
from typing import Protocol

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Encoder(Protocol):
    """A streaming compressor: what it gives for a piece may be empty; ``finish`` gives the rest."""

    name: str

    def encode(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class Plain:
    """No compression."""

    name = ""

    def encode(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class Gzip:
    """gzip, or zlib's own frame under the name ``deflate``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._engine = zlib.compressobj(level=1, wbits=31 if name == "gzip" else 15)

    def encode(self, data: bytes) -> bytes:
        return self._engine.compress(data)

    def finish(self) -> bytes:
        return self._engine.flush()


class Zstd:
    """Zstandard, one frame."""

    name = "zstd"

    def __init__(self) -> None:
        self._engine = zstd.ZstdCompressor(level=1)

    def encode(self, data: bytes) -> bytes:
        return self._engine.compress(data)

    def finish(self) -> bytes:
        return self._engine.flush()


class Lz4:
    """LZ4's frame format (not ClickHouse's native blocks)."""

    name = "lz4"

    def __init__(self) -> None:
        self._engine = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def encode(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._engine.begin()
        self._begun = True
        return bytes(head + self._engine.compress(data))

    def finish(self) -> bytes:
        return bytes(self._engine.flush()) if self._begun else b""


def choose(accepted: str) -> Encoder:
    """The encoder for an Accept-Encoding header, by the client's order; Plain when it names none of ours."""
    for part in accepted.lower().split(","):
        name, *rest = (piece.strip() for piece in part.split(";"))
        if any(re.fullmatch(r"q=0(\.0*)?", piece) for piece in rest):
            continue
        match name:
            case "lz4":
                return Lz4()
            case "zstd":
                return Zstd()
            case "gzip" | "deflate":
                return Gzip(name)
    return Plain()
