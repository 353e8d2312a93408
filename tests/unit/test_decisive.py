"""Is the decisive record the first as of which the judge would find harm?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millrace.schemas.assignment import Assignment
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.result import Harm
from millrace.workers.bench.decisive import Event, decisive
from tests.folding import assigned, outcome
from tests.judging import counted, experiment, judged, sealed

FAILED = Metric(name="failed", outcome="failed", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE)
PLAN = experiment(FAILED, analysis=Analysis(difference="absolute", minimal_units=50))


def units(numbers: range, failing: Sequence[int], *, outcome_first: bool = False) -> list[Event]:
    """Even units are the control's, odd ones the treatment's; each failure is there twice."""
    found: list[Event] = []
    for number in numbers:
        unit = f"u{number}"
        failures = [outcome(f"o{number}", unit, 1.0, 0, "failed")] * 2 if number in failing else []
        met = assigned("e", unit, 0, "ab"[number % 2])
        found += [*failures, met] if outcome_first else [met, met, *failures]
    return found


def breached(events: Sequence[Event]) -> bool:
    """As the whole judge says of the same units."""
    arms = {event.unit_id: event.variant for event in events if isinstance(event, Assignment)}
    failed = {event.unit_id for event in events if not isinstance(event, Assignment)}
    sums = {arm: counted(list(arms.values()).count(arm), sum(arms.get(unit) == arm for unit in failed)) for arm in "ab"}
    harm = judged(PLAN, sealed({"failed": sums})).metrics[0].comparisons[0].harm
    return isinstance(harm, Harm) and harm.breached


@pytest.mark.parametrize("outcome_first", [False, True])
def test_the_decisive_record_is_the_first_at_which_the_judge_finds_harm(outcome_first: bool) -> None:
    healthy = units(range(200), range(0, 200, 15), outcome_first=outcome_first)
    events = healthy + units(range(200, 400), range(201, 400, 2), outcome_first=outcome_first)
    place = decisive(PLAN, events, len(healthy))
    assert place is not None
    assert len(healthy) < place < len(events) - 1
    assert [breached(events[: place + 1 + step]) for step in (-3, -2, -1, 0)] == [False, False, False, True]


def test_without_harm_no_record_decides() -> None:
    assert decisive(PLAN, units(range(300), range(0, 300, 7)), 0) is None
