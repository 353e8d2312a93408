"""Which of a plan's segments a request falls into, by its context."""

from __future__ import annotations

from collections.abc import Mapping

from millrace.streams.target import at

OTHER = "other"
"""Values that the plan does not tell apart."""
NONE = "none"
"""No value: absent, null or empty."""
LARGEST = 10**18


class Segments:
    """A plan's segments, made ready: each field, a dotted path into the context, with the values that are told apart."""

    def __init__(self, segments: Mapping[str, tuple[str, ...]]) -> None:
        self._fields = [(field, tuple(field.split(".")), {value: value for value in values}) for field, values in segments.items()]

    def of(self, context: Mapping[str, object]) -> dict[str, str]:
        """Field to value, of all of the plan's fields.

        >>> Segments({"country": ("DE", "FR"), "paid": ("true",)}).of({"country": "CH", "paid": True})
        {'country': 'other', 'paid': 'true'}
        """
        found = {}
        for field, path, values in self._fields:
            value = at(context, path)
            known = value if type(value) is str else text(value)
            found[field] = values.get(known, OTHER) if known else NONE
        return found


def text(value: object) -> str:
    """A value of the context as a plan writes it: numbers and truth values as in JSON, whole numbers without a fraction.

    Containers, and integers that no plan would name, are none of its values.

    >>> text(True), text(3.0), text(2.5), text(None), text([1])
    ('true', '3', '2.5', '', 'other')
    """
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float() if abs(value) < LARGEST:
            return str(int(value)) if value == int(value) else repr(value)
        case _:
            return OTHER
