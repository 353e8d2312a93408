"""Whether a request's context meets a condition of an experiment's plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millrace.schemas.errors import Never
from millrace.schemas.experiment import Condition, Test
from millrace.streams.release import Release, release

Holds = Callable[[Mapping[str, object]], bool]


def predicate(condition: Condition) -> Holds:
    """A condition as a function of the context. Raises Never for a value that its test cannot use.

    A field may be a dotted path into nested objects. An absent field counts as null, and no range holds for what is not a number, or no
    version. ``negate`` turns the answer around, that of an absent field too.

    >>> from millrace.schemas.experiment import Condition, Test
    >>> adult = predicate(Condition(field="user.age", test=Test.RANGE, value=[18, None]))
    >>> adult({"user": {"age": 18}}), adult({"user": {"age": 17.9}}), adult({})
    (True, False, False)
    """
    holds = _plain(condition)
    return (lambda context: not holds(context)) if condition.negate else holds


def _plain(condition: Condition) -> Holds:
    path = tuple(condition.field.split("."))
    match condition.test:
        case Test.EQUALS:
            return lambda context: same(at(context, path), condition.value)
        case Test.NOT_EQUALS:
            return lambda context: not same(at(context, path), condition.value)
        case Test.IN:
            return _among(path, _values(condition), wanted=True)
        case Test.NOT_IN:
            return _among(path, _values(condition), wanted=False)
        case Test.RANGE:
            return _between(path, *_ends(condition))
        case Test.VERSION:
            return _released_between(path, *_releases(condition))


def same(left: object, right: object) -> bool:
    """Equality as in JSON: 1 and 1.0 are the same number, true is none.

    >>> same(1, 1.0), same(1, True), same([1], [1])
    (True, False, True)
    """
    return isinstance(left, bool) is isinstance(right, bool) and left == right


def at(context: Mapping[str, object], path: tuple[str, ...]) -> object:
    """What a path leads to in a context; None where it leads nowhere.

    >>> at({"user": {"tier": "gold"}}, ("user", "tier")), at({"user": 1}, ("user", "tier"))
    ('gold', None)
    """
    value: object = context
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _among(path: tuple[str, ...], values: list[object], *, wanted: bool) -> Holds:
    return lambda context: any(same(at(context, path), value) for value in values) is wanted


def _values(condition: Condition) -> list[object]:
    if not isinstance(condition.value, list | tuple):
        raise Never(f"the condition on {condition.field!r} needs a list of values for the test `{condition.test}`")
    if not condition.value:
        raise Never(f"the condition on {condition.field!r} names no value for the test `{condition.test}`: name one, or leave it out")
    return list(condition.value)


def _ends(condition: Condition) -> tuple[float | None, float | None]:
    value: Any = condition.value
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(end is None or is_number(end) for end in value):
        raise Never(f"the condition on {condition.field!r} needs [low, high) for the test `range`: two numbers, or null for no bound")
    if value[0] is not None and value[1] is not None and value[0] >= value[1]:
        raise Never(f"the condition on {condition.field!r} holds for nobody: low, {value[0]}, must be below high, {value[1]}")
    return value[0], value[1]


def _between(path: tuple[str, ...], low: float | None, high: float | None) -> Holds:
    def holds(context: Mapping[str, object]) -> bool:
        value: Any = at(context, path)
        return is_number(value) and (low is None or value >= low) and (high is None or value < high)

    return holds


def _releases(condition: Condition) -> tuple[Release | None, Release | None]:
    value = condition.value
    ends = [None if end is None else release(end) for end in value] if isinstance(value, list | tuple) and len(value) == 2 else []
    if not ends or any(known is None and end is not None for known, end in zip(ends, value, strict=True)):
        raise Never(
            f"the condition on {condition.field!r} needs [low, high) for the test `version`:"
            ' two versions such as "1.10.2" or "2.0-beta.1" as text, or null for no bound'
        )
    low, high = ends
    if low is not None and high is not None and low >= high:
        raise Never(f"the condition on {condition.field!r} holds for nobody: low, {value[0]}, must be below high, {value[1]}")
    return low, high


def _released_between(path: tuple[str, ...], low: Release | None, high: Release | None) -> Holds:
    def holds(context: Mapping[str, object]) -> bool:
        found = release(at(context, path))
        return found is not None and (low is None or found >= low) and (high is None or found < high)

    return holds


def is_number(value: object) -> bool:
    """Whether a value is a number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
