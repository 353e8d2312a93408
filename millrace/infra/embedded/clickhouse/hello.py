"""The one Native block that clickhouse-go reads at its own protocol revision.

Over HTTP that client reads its first query's answer at the newest revision it knows (a block-info prefix and a byte for
each column, which the engine cannot write) and everything later at the revision that the answer names. So the endpoint
writes this one block by hand and names revision 0, where Native is what the engine writes.
"""

from __future__ import annotations

import re
import struct

QUERY = re.compile(rb"\s*SELECT\s+displayName\(\)\s*,\s*version\(\)\s*,\s*revision\(\)\s*,\s*timezone\(\)\s*;?\s*\Z", re.IGNORECASE)
BLOCK_INFO = b"\x01\x00\x02" + struct.pack("<i", -1) + b"\x00"
NO_CUSTOM_SERIALIZATION = b"\x00"


def is_hello(sql: bytes, client_protocol_version: str, format_name: str) -> bool:
    """Whether this is that first query: in Native, by a client that speaks a protocol revision."""
    return client_protocol_version not in ("", "0") and format_name == "Native" and QUERY.match(sql) is not None


def block(display_name: str, version: str, timezone: str) -> bytes:
    """Its answer: one row of display name, version, revision 0 and time zone."""
    columns = (
        _column("displayName()", "String", _text(display_name)),
        _column("version()", "String", _text(version)),
        _column("revision()", "UInt32", struct.pack("<I", 0)),
        _column("timezone()", "String", _text(timezone)),
    )
    return BLOCK_INFO + bytes((len(columns), 1)) + b"".join(columns)


def _column(name: str, kind: str, data: bytes) -> bytes:
    return _text(name) + _text(kind) + NO_CUSTOM_SERIALIZATION + data


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 127:
        raise ValueError(f"a hello block's text is at most 127 bytes: {value!r}")
    return bytes((len(raw),)) + raw
