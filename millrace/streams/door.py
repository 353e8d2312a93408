"""What a request must be to come in. Features are judged where they are read (``features``), all else here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from millrace.schemas.event import from_ms
from millrace.schemas.limits import Limits
from millrace.schemas.record import Record
from millrace.schemas.request import Request
from millrace.streams.feature_values import NULLS

ABSENT = (b"", *NULLS)
SCALARS = (str, int, float, bool, type(None))
PLAIN = frozenset({str, int, bool, type(None)})


class Window:
    """The event times that the records of one poll may have, each relative to its own append time.

    Times inside the window that is common to all records of the poll need no arithmetic.
    """

    def __init__(self, limits: Limits, records: Sequence[Record]) -> None:
        self._past = timedelta(seconds=limits.past_seconds)
        self._future = timedelta(seconds=limits.future_seconds)
        appended = [record.appended_ms for record in records]
        self.common_start = from_ms(max(appended)) - self._past
        self.common_end = from_ms(min(appended)) + self._future

    def refusal(self, time: datetime, appended_ms: int) -> str | None:
        """Why this event time is refused, or None."""
        appended = from_ms(appended_ms)
        if time < appended - self._past:
            return f"$.time: {time.isoformat()} is more than {self._past} before the record was appended ({appended.isoformat()})"
        if time > appended + self._future:
            return f"$.time: {time.isoformat()} is more than {self._future} after the record was appended ({appended.isoformat()})"
        return None


def too_many_bytes(record: Record, limits: Limits) -> str | None:
    """Why a record of this size is refused, or None."""
    size = len(record.value or b"")
    return f"$: the record has {size} bytes, the limit is {limits.record_bytes}" if size > limits.record_bytes else None


def too_long(text: str, path: str, limits: Limits) -> str | None:
    """Why a string of this length is refused, or None."""
    limit = limits.string_characters
    return f"{path}: a string of {len(text)} characters, the limit is {limit}" if len(text) > limit else None


class Door:
    """Name what is wrong with each request of a poll that may not come in: size, strings, nesting, finite numbers, event time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def refusals(self, records: Sequence[Record]) -> dict[int, str]:
        """The reasons, by position in ``records``. A record that no cheap proof clears is looked at in full."""
        if not records:
            return {}
        window = Window(self._limits, records)
        reasons: dict[int, str] = {}
        for i, record in enumerate(records):
            if self._clear(record, window):
                continue
            if reason := self._refusal(record, window):
                reasons[i] = reason
        return reasons

    def _clear(self, record: Record, window: Window) -> bool:
        """Whether lengths alone prove that nothing is wrong: a string is never longer than the bytes that hold it."""
        request: Request = record.event
        size = len(record.value or b"")
        features, vector = len(request.features), len(request.vector)
        time = request.time
        return bool(
            size <= self._limits.record_bytes
            and size - features - vector <= self._limits.string_characters
            and not (features and vector)
            and request.id
            and request.unit_id
            and _plain(request.context)
            and (time is None or window.common_start <= time <= window.common_end)
        )

    def _refusal(self, record: Record, window: Window) -> str | None:
        request: Request = record.event
        if reason := too_many_bytes(record, self._limits):
            return reason
        if request.time is not None and (reason := window.refusal(request.time, record.appended_ms)):
            return reason
        return _both_forms(request) or self._strings(request) or self._context(request.context)

    def _strings(self, request: Request) -> str | None:
        if not request.id or not request.unit_id:
            return f"$.{'unit_id' if request.id else 'id'}: it is empty"
        named = [("$.id", request.id), ("$.unit_id", request.unit_id), ("$.model", request.model or "")]
        for kind, entity in request.entities.items():
            named += [(f"$.entities[{kind[:80]!r}]", text) for text in (kind, entity)]
        return next((reason for path, text in named if (reason := self._long(text, path))), None)

    def _context(self, context: Mapping[str, object]) -> str | None:
        for key, value in context.items():
            path = f"$.context[{key[:80]!r}]"
            if reason := self._long(key, path) or self._value(value, path, 2):
                return reason
        return None

    def _value(self, value: object, path: str, depth: int) -> str | None:
        """Judge one value of the context; ``depth`` is the nesting that it would have as a container (the context itself has 1)."""
        if isinstance(value, str):
            return self._long(value, path)
        if isinstance(value, float) and not math.isfinite(value):
            return f"{path}: {value} is not a finite number"
        if isinstance(value, dict | list | tuple):
            return self._container(value, path, depth)
        return None if isinstance(value, SCALARS) else f"{path}: {type(value).__name__} is not a type that a context may hold"

    def _container(self, value: Mapping[object, object] | Sequence[object], path: str, depth: int) -> str | None:
        if depth > self._limits.nesting:
            return f"{path}: nested deeper than {self._limits.nesting}, the limit"
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            if isinstance(value, Mapping) and not isinstance(key, str):
                return f"{path}: the key {str(key)[:80]} is not a string"
            inner = f"{path}[{str(key)[:80]!r}]" if isinstance(key, str) else f"{path}[{key}]"
            if reason := (self._long(key, inner) if isinstance(key, str) else None) or self._value(item, inner, depth + 1):
                return reason
        return None

    def _long(self, text: str, path: str) -> str | None:
        return too_long(text, path, self._limits)


def _plain(context: Mapping[str, object]) -> bool:
    """Whether the context holds nothing that nests or could be infinite."""
    return not context or PLAIN.issuperset(map(type, context.values()))


def _both_forms(request: Request) -> str | None:
    if bytes(request.features) not in ABSENT and bytes(request.vector) not in ABSENT:
        return "$.vector: `features` stand beside it; send one of the two"
    return None
