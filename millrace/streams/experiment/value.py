"""How a unit's outcomes become one integer: in whole steps of the resolution, folded one by one, read at any time.

A state is what is kept of the outcomes so far: None for none, a number, ``[time_us, offset, steps]`` for first and last, and for unique
the sorted list of different values, or their number once a store holds them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from millrace.schemas.metric import Aggregation

Update = Callable[[Any, int, int, int], Any]
"""``update(state, steps, time_us, offset)``: the state with one more outcome."""
Day = list[int]
"""The outcomes of one day: their sum, number and maximum in steps, and whether one was not 0."""
DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def steps(value: float, resolution: float) -> int:
    """A value in whole steps: one double division, then half to even, as ClickHouse's ``roundBankers``.

    >>> steps(0.25, 0.1), steps(2.5, 1.0), steps(-3.5, 1.0), steps(1e15, 1e-6) > 2**63
    (2, 2, -4, True)
    """
    return round(value / resolution)


def micros(time: datetime) -> int:
    """An aware time in microseconds since the epoch, exactly.

    >>> micros(datetime(1970, 1, 2, 0, 0, 0, 5, tzinfo=UTC))
    86400000005
    """
    delta = time - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class Aggregator(Struct, frozen=True):
    """One way of making a value of outcomes: ``update`` takes in one, ``read`` gives the value, ``of_days`` begins with whole days."""

    update: Update
    read: Callable[[Any], int]
    of_days: Callable[[Iterable[Day]], Any] | None = None


def _sum(state: Any, value: int, time_us: int, offset: int) -> Any:
    return value if state is None else state + value


def _count(state: Any, value: int, time_us: int, offset: int) -> Any:
    return 1 if state is None else state + 1


def _max(state: Any, value: int, time_us: int, offset: int) -> Any:
    return value if state is None or value > state else state


def _presence(state: Any, value: int, time_us: int, offset: int) -> Any:
    return 1 if value or state else 0


def _first(state: Any, value: int, time_us: int, offset: int) -> Any:
    return [time_us, offset, value] if state is None or (time_us, offset) < (state[0], state[1]) else state


def _last(state: Any, value: int, time_us: int, offset: int) -> Any:
    return [time_us, offset, value] if state is None or (time_us, offset) > (state[0], state[1]) else state


def _unique(state: Any, value: int, time_us: int, offset: int) -> Any:
    values: list[int] = [] if state is None else state
    at = bisect_left(values, value)
    return values if at < len(values) and values[at] == value else [*values[:at], value, *values[at:]]


def _itself(state: Any) -> int:
    return 0 if state is None else int(state)


def _third(state: Any) -> int:
    return 0 if state is None else int(state[2])


def _different(state: Any) -> int:
    return len(state) if isinstance(state, list) else _itself(state)


AGGREGATORS: dict[Aggregation, Aggregator] = {
    Aggregation.SUM: Aggregator(_sum, _itself, lambda days: sum(day[0] for day in days)),
    Aggregation.COUNT: Aggregator(_count, _itself, lambda days: sum(day[1] for day in days)),
    Aggregation.MAX: Aggregator(_max, _itself, lambda days: max((day[2] for day in days), default=None)),
    Aggregation.FIRST: Aggregator(_first, _third),
    Aggregation.LAST: Aggregator(_last, _third),
    Aggregation.UNIQUE: Aggregator(_unique, _different),
}
PRESENCE = Aggregator(_presence, _itself, lambda days: max((day[3] for day in days), default=0))
"""A proportion's: 1 where any outcome is not 0."""


def day_with(day: Day | None, value: int) -> Day:
    """A day with one more outcome.

    >>> day_with(day_with(None, 0), 5)
    [5, 2, 5, 1]
    """
    if day is None:
        return [value, 1, value, int(value != 0)]
    return [day[0] + value, day[1] + 1, max(day[2], value), day[3] or int(value != 0)]
