"""When an experiment may be decided, and when it must be: its run time, and the moments at which time alone changes the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from millrace.schemas.event import to_ms
from millrace.schemas.experiment import Looks, State
from millrace.streams.experiment.plans import CLOSING_MS
from millrace.streams.judge.known import Known


def run_seconds(known: Known, now: datetime) -> float:
    """How long it has run: from its start until now, or until it was stopped or completed; a draft has not."""
    plan = known.plan
    if plan.state is State.DRAFT or plan.started is None:
        return 0.0
    until = now if known.ended is None else min(now, known.ended)
    return max(0.0, (until - plan.started).total_seconds())


def last_counted(known: Known) -> datetime | None:
    """When the last outcome may count of an experiment that is over: once it closes, as the fold has it."""
    if known.ended is None:
        return None
    window = max((metric.window_seconds for metric in known.plan.metrics), default=0.0)
    return known.ended + timedelta(seconds=window + known.plan.analysis.lateness_seconds, milliseconds=CLOSING_MS)


def out_of_time(known: Known, now: datetime) -> bool:
    """Whether it has run for its maximal time."""
    most = known.plan.analysis.maximal_seconds
    return most is not None and run_seconds(known, now) >= most


def thresholds(looks: Looks) -> tuple[int, ...]:
    """How many units must count for each of the planned looks.

    >>> thresholds(Looks(units=1001, fractions=(0.5, 1.0)))
    (501, 1001)
    """
    return tuple(math.ceil(fraction * looks.units - 1e-9 * looks.units) for fraction in looks.fractions)


def milestones(known: Known) -> Iterator[int]:
    """The times at which a result changes though nothing arrives: the first whole millisecond after each."""
    plan, closed = known.plan, last_counted(known)
    if closed is not None:
        yield to_ms(closed) + 1
    elif plan.started is not None:
        for seconds in (plan.analysis.minimal_seconds, plan.analysis.maximal_seconds):
            if seconds:
                yield to_ms(plan.started + timedelta(seconds=seconds)) + 1
