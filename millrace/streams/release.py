"""The order of software versions: 1.9 is below 1.10, and 2.0-beta below 2.0."""

from __future__ import annotations

import re

WORDS = r"[0-9A-Za-z-]{1,64}(?:\.[0-9A-Za-z-]{1,64}){0,7}"
PATTERN = re.compile(rf"v?([0-9]{{1,18}}(?:\.[0-9]{{1,18}}){{0,7}})(?:-({WORDS}))?(?:\+{WORDS})?")

Part = tuple[int, int, str]
Release = tuple[tuple[int, ...], int, tuple[Part, ...]]
"""The numbers, whether it is a release (1) or comes before one (0), and the parts of what comes before."""


def release(value: object) -> Release | None:
    """A version as what it is ordered by; None for what is no text, or no version.

    Precedence as in Semantic Versioning 2.0.0, section 11, of any number of dotted numbers: 1.9 is 1.9.0, what follows a `-` comes before
    the release, and what follows a `+` plays no part. A number is refused: JSON's 1.10 is 1.1.

    >>> release("1.9") == release("v1.9.0+build5"), release("1.9") < release("1.10-rc.2") < release("1.10-rc.10") < release("1.10")
    (True, True)
    >>> release("latest"), release(1.1)
    (None, None)
    """
    found = PATTERN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    numbers = list(map(int, found[1].split(".")))
    while numbers and not numbers[-1]:
        numbers.pop()
    before = found[2]
    return tuple(numbers), int(before is None), tuple(map(_part, before.split("."))) if before else ()


def _part(text: str) -> Part:
    """Numbers come before words, and compare as numbers."""
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)
