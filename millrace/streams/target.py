"""Whether a request's context meets a condition of an experiment's plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millrace.schemas.errors import Never
from millrace.schemas.experiment import Condition, Test

Holds = Callable[[Mapping[str, object]], bool]


def predicate(condition: Condition) -> Holds:
    """A condition as a function of the context. Raises Never for a value that its test cannot use.

    A field may be a dotted path into nested objects. An absent field counts as null, and no range holds for what is not a number.

    >>> from millrace.schemas.experiment import Condition, Test
    >>> adult = predicate(Condition(field="user.age", test=Test.RANGE, value=[18, None]))
    >>> adult({"user": {"age": 18}}), adult({"user": {"age": 17.9}}), adult({})
    (True, False, False)
    """
    path = tuple(condition.field.split("."))
    match condition.test:
        case Test.EQUALS:
            return lambda context: same(_at(context, path), condition.value)
        case Test.NOT_EQUALS:
            return lambda context: not same(_at(context, path), condition.value)
        case Test.IN:
            return _among(path, _values(condition), wanted=True)
        case Test.NOT_IN:
            return _among(path, _values(condition), wanted=False)
        case Test.RANGE:
            return _between(path, *_ends(condition))


def same(left: object, right: object) -> bool:
    """Equality as in JSON: 1 and 1.0 are the same number, true is none.

    >>> same(1, 1.0), same(1, True), same([1], [1])
    (True, False, True)
    """
    return isinstance(left, bool) is isinstance(right, bool) and left == right


def _at(context: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = context
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _among(path: tuple[str, ...], values: list[object], *, wanted: bool) -> Holds:
    return lambda context: any(same(_at(context, path), value) for value in values) is wanted


def _values(condition: Condition) -> list[object]:
    if not isinstance(condition.value, list | tuple):
        raise Never(f"the condition on {condition.field!r} needs a list of values for the test `{condition.test}`")
    return list(condition.value)


def _ends(condition: Condition) -> tuple[float | None, float | None]:
    value: Any = condition.value
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(end is None or _is_number(end) for end in value):
        raise Never(f"the condition on {condition.field!r} needs [low, high) for the test `range`: two numbers, or null for no bound")
    return value[0], value[1]


def _between(path: tuple[str, ...], low: float | None, high: float | None) -> Holds:
    def holds(context: Mapping[str, object]) -> bool:
        value: Any = _at(context, path)
        return _is_number(value) and (low is None or value >= low) and (high is None or value < high)

    return holds


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
