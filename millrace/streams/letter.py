"""A dead letter as its topic takes it: whole where that is possible, else the beginning of the original and what tells it from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec.structs import replace

from millrace.schemas.dead_letter import DeadLetter
from millrace.schemas.topics import DEAD_LETTERS, MEBIBYTE
from millrace.schemas.wire import REASON_CHARACTERS, codec

ROOM_BYTES = 4 << 10
"""What a record takes beside its value: its key, its own headers, its batch."""
LETTER_BYTES = DEAD_LETTERS.record_bytes - ROOM_BYTES
"""The largest value of a dead letter."""
VALUE_BYTES, KEY_BYTES = MEBIBYTE, 128 << 10
"""What is kept of a value and of a key where a letter is too large: in base64, with the rest, well below what a letter may have."""
HEADERS, NAME_CHARACTERS, HEADER_BYTES = 64, 256, 2 << 10
"""What is kept of headers: so many, so much of each name, so much of each value."""
WORST_NAME = 6
"""JSON writes a control character as six."""

_encode = codec(DEAD_LETTERS).json.encode


def fitted(letter: DeadLetter) -> DeadLetter:
    """The letter, if its topic takes it; else one that keeps the beginning of each part that is too long.

    Its reason then says how much is kept of what, and the sha256 of the whole: the original stands where it stood, for as long as its
    own topic keeps it. A reason is clipped in any case, because it may quote what it is about.
    """
    letter = letter if len(letter.reason) <= REASON_CHARACTERS else replace(letter, reason=letter.reason[: REASON_CHARACTERS - 1] + "…")
    return letter if _at_most_bytes(letter) <= LETTER_BYTES or len(_encode(letter)) <= LETTER_BYTES else _shortened(letter)


def _at_most_bytes(letter: DeadLetter) -> int:
    """What the letter's bytes can come to, without encoding it."""
    binary = len(letter.key or b"") + len(letter.value or b"") + sum(len(value) for _, value in letter.headers)
    names = sum(len(name) for name, _ in letter.headers)
    return ROOM_BYTES + binary * 4 // 3 + WORST_NAME * (names + len(letter.reason)) + 16 * len(letter.headers)


def _shortened(letter: DeadLetter) -> DeadLetter:
    key, value = _beginning(letter.key, KEY_BYTES), _beginning(letter.value, VALUE_BYTES)
    headers = tuple((name[:NAME_CHARACTERS], content[:HEADER_BYTES]) for name, content in letter.headers[:HEADERS])
    short = replace(letter, key=key, value=value, headers=headers)
    return replace(short, reason=f"{letter.reason} [truncated: {'; '.join(_told(letter, short))}]")


def _beginning(part: bytes | None, limit_bytes: int) -> bytes | None:
    return None if part is None else part[:limit_bytes]


def _told(whole: DeadLetter, short: DeadLetter) -> Iterator[str]:
    """What was shortened, to what, and what the whole of it hashes to."""
    for name, all_of_it, kept in (("value", whole.value, short.value), ("key", whole.key, short.key)):
        if all_of_it is not None and kept != all_of_it:
            digest = hashlib.sha256(all_of_it).hexdigest()
            yield f"the first {len(kept or b'')} of {len(all_of_it)} bytes of its {name} are kept, sha256 of the whole {digest}"
    if short.headers != whole.headers:
        all_of_it, kept = _joined(whole), _joined(short)
        digest = hashlib.sha256(all_of_it).hexdigest()
        yield f"{len(kept)} of {len(all_of_it)} bytes of its headers are kept, sha256 of all names and values in order {digest}"


def _joined(letter: DeadLetter) -> bytes:
    return b"".join(part for name, value in letter.headers for part in (name.encode(), value))
