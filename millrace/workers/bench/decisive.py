"""Which record decided: the first as of which a guardrail's own test says that there is harm, were it asked after every record."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.schemas.assignment import Assignment
from millrace.schemas.evidence import Moments
from millrace.schemas.experiment import Plan
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.result import Harm
from millrace.streams.judge.estimate import Pair, Terms
from millrace.streams.judge.guardrail import Tolerance, harm
from millrace.streams.stats.summary import of_moments

Event = Assignment | UnitOutcome


class Arms:
    """Units of a control and a treatment, and how many of each failed."""

    def __init__(self, plan: Plan) -> None:
        self._metric = plan.metrics[0]
        self._terms = Terms.of(plan.analysis)
        self._bears = Tolerance(limit=self._metric.limit, level=plan.analysis.alpha, minimal_units=plan.analysis.minimal_units)
        self._arm = {variant.name: number for number, variant in enumerate(plan.variants)}
        self._units: dict[str, int] = {}
        self._failed: set[str] = set()
        self._counts = [[0, 0], [0, 0]]

    def take(self, event: Event) -> None:
        """Count a unit, and that it failed, once; the two may come in either order."""
        unit, failed, known = event.unit_id, event.unit_id in self._failed, event.unit_id in self._units
        if isinstance(event, Assignment):
            arm = self._units.setdefault(unit, self._arm[event.variant])
            self._counts[arm][0] += not known
            self._counts[arm][1] += failed and not known
        else:
            self._failed.add(unit)
            if known:
                self._counts[self._units[unit]][1] += not failed

    @property
    def harmed(self) -> bool:
        """Whether the test says so now."""
        control, treatment = (of_moments(Moments(units, failed, failed), 1.0) for units, failed in self._counts)
        metric = self._metric
        pair = Pair(control=control, treatment=treatment, kind=metric.kind, direction=metric.direction)
        found = harm(pair, self._terms, self._bears)
        return isinstance(found, Harm) and found.breached


def decisive(plan: Plan, events: Sequence[Event], first: int) -> int | None:
    """The place of the first event from ``first`` on as of which there is harm; None where there is none by all of them.

    The plan's first metric is its one guardrail, a proportion, and it has two variants. Every event's time is within the window.
    """
    arms = Arms(plan)
    for event in events[:first]:
        arms.take(event)
    for place, event in enumerate(events[first:], first):
        arms.take(event)
        if arms.harmed:
            return place
    return None
