"""What the judge knows of plans: the newest version of each, and whether its weights stayed as they were since it began."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from millrace.schemas.experiment import Plan, State
from millrace.streams.plan_versions import PlanVersions
from millrace.streams.revise import OVER


class Known(Struct, frozen=True, kw_only=True):
    """A plan, and what its versions say together."""

    plan: Plan
    reweighted: bool = False
    """Whether units were dealt by other weights before: then their counts follow no single ratio."""
    ended: datetime | None = None
    """When it was first stopped or completed."""
    number: int = 0
    """The newest version's number that is taken; it is the plan's own, unless that version cannot assign."""


class Plans:
    """The control topic ``experiments``, folded. ``edits`` counts the valid versions taken in."""

    def __init__(self) -> None:
        self._versions = PlanVersions()
        self._reweighted: set[str] = set()
        self._ended: dict[str, datetime] = {}
        self.edits = 0

    def observe(self, plan: Plan) -> bool:
        """Take in a plan's next version; False where it is not the next one, or none to go by."""
        before = self._versions.newest(plan.name)
        if not self._versions.offer(plan):
            return False
        self.edits += 1
        if before is not None and before.state is not State.DRAFT and shares(before) != shares(plan):
            self._reweighted.add(plan.name)
        if plan.state in OVER:
            self._ended.setdefault(plan.name, plan.time)
        return True

    def get(self, name: str) -> Known | None:
        """The newest version of a plan."""
        plan = self._versions.newest(name)
        if plan is None:
            return None
        return Known(plan=plan, reweighted=name in self._reweighted, ended=self._ended.get(name), number=self._versions.number(name))

    def __iter__(self) -> Iterator[Plan]:
        return iter(self._versions)


def shares(plan: Plan) -> dict[str, float]:
    """The share of the units that each variant is to have: of the buckets, where spans give them, else by weight.

    >>> from millrace.schemas.event import from_ms
    >>> from millrace.schemas.experiment import Span, Variant
    >>> two = (Variant(name="a"), Variant(name="b", weight=3.0))
    >>> shares(Plan(name="e", version=1, state=State.DRAFT, time=from_ms(0), salt="s", variants=two))
    {'a': 0.25, 'b': 0.75}
    """
    if plan.spans:
        given = {variant.name: 0.0 for variant in plan.variants}
        for span in plan.spans:
            given[span.variant] = given.get(span.variant, 0.0) + span.high - span.low
    else:
        given = {variant.name: variant.weight for variant in plan.variants}
    total = sum(given.values())
    return {name: weight / total for name, weight in given.items()} if total > 0.0 else given
