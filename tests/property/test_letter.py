"""Does a dead letter always fit its topic, whatever was refused and for however long a reason?"""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.schemas.dead_letter import DeadLetter
from millrace.schemas.samples import DEAD_LETTER
from millrace.schemas.topics import DEAD_LETTERS
from millrace.schemas.wire import REASON_CHARACTERS, codec
from millrace.streams.letter import LETTER_BYTES, ROOM_BYTES, VALUE_BYTES, fitted

sizes = st.one_of(st.integers(0, 3_000), st.integers(0, 6_000_000))
pieces = st.sampled_from(["a", "\x01", '"', "é", "€", "😀", "\x7f", "\u2028"])
binaries = st.builds(lambda piece, size: piece * size, st.sampled_from([b"\x00", b"x", b"\xff"]), sizes)
texts = st.builds(lambda piece, size: piece * (size // 4), pieces, sizes)
some_headers = st.builds(
    lambda names, times: tuple(names) * times, st.lists(st.tuples(texts, binaries), max_size=2), st.sampled_from([1, 1, 100])
)


def size(letter: DeadLetter) -> int:
    return len(codec(DEAD_LETTERS).encode(letter))


@given(reason=texts, key=st.none() | binaries, value=st.none() | binaries, headers=some_headers)
def test_a_letter_always_fits_and_is_changed_only_where_it_must_be(
    reason: str, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...]
) -> None:
    short = reason if len(reason) <= REASON_CHARACTERS else reason[: REASON_CHARACTERS - 1] + "…"
    whole = replace(DEAD_LETTER, reason=short, key=key, value=value, headers=headers)
    found = fitted(replace(whole, reason=reason))
    fits = sum(len(name) + len(part) for name, part in headers) < 20_000_000 and size(whole) <= LETTER_BYTES
    assert size(found) <= LETTER_BYTES < DEAD_LETTERS.record_bytes
    assert (found == whole) == fits
    assert found.reason.startswith(short)
    assert fits or "truncated" in found.reason
    assert (value or b"").startswith(found.value or b"")


@pytest.mark.parametrize(("more", "cut"), [(0, False), (1, True)])
def test_a_letter_at_the_limit_is_whole_and_one_past_it_is_not(more: int, cut: bool) -> None:
    one = replace(DEAD_LETTER, value=b"", headers=(("h", b""),))
    exact = replace(one, headers=(("h" * (1 + LETTER_BYTES - size(one) + more), b""),))
    assert size(exact) == LETTER_BYTES + more
    assert (fitted(exact) != exact) == cut


def test_a_value_is_kept_by_its_beginning_and_told_apart_by_its_digest() -> None:
    value = b"v" * 5_000_000
    found = fitted(replace(DEAD_LETTER, value=value))
    assert found.value == value[:VALUE_BYTES]
    assert (found.key, found.headers) == (DEAD_LETTER.key, DEAD_LETTER.headers)
    digest = hashlib.sha256(value).hexdigest()
    told = f"[truncated: the first {VALUE_BYTES} of 5000000 bytes of its value are kept, sha256 of the whole {digest}]"
    assert found.reason == f"{DEAD_LETTER.reason} {told}"
    assert msgspec.json.decode(codec(DEAD_LETTERS).encode(found))["offset"] == DEAD_LETTER.offset


def test_what_stands_beside_the_value_of_a_letter_has_its_room() -> None:
    beside = codec(DEAD_LETTERS).headers(DEAD_LETTER.id)
    assert sum(len(name) + len(value) for name, value in beside) + 249 < ROOM_BYTES // 2
