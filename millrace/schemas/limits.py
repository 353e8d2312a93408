"""What a public record may measure at most. Each limit is a setting and is checked at the door."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of a public record. A value at the limit passes, one past it is dead-lettered with the reason."""

    record_bytes: Positive = 900_000
    features: Positive = 10_000
    string_characters: Positive = 1_024
    nesting: Positive = 8
    past_seconds: Annotated[float, Meta(ge=0)] = 7 * 86_400.0
    future_seconds: Annotated[float, Meta(ge=0)] = 300.0
