"""What the fold knows of plans: every version, the metrics as they were when the experiment began, and when it closes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from msgspec.structs import replace

from millrace.schemas.assignment import Assignment
from millrace.schemas.experiment import Plan, State, Unit
from millrace.streams.buckets import bucket
from millrace.streams.experiment.definition import Definition, Wanted, define, wanted
from millrace.streams.experiment.digest import digest
from millrace.streams.experiment.folded import folded
from millrace.streams.experiment.value import micros
from millrace.streams.plan_versions import PlanVersions
from millrace.streams.spans import bounds, of_plan

ENDED = frozenset({State.STOPPED, State.COMPLETED})
CLOSING_MS = 86_400_000
"""How long after its last window and the lateness an ended experiment still folds what comes."""


def merge_wanted(found: dict[str, Wanted], more: Iterable[Wanted]) -> None:
    """Of those with one key, one for the most days, from the first on that any wants."""
    for one in more:
        other = found.get(one.key, one)
        found[one.key] = replace(one, days=max(one.days, other.days), first_day=min(one.first_day, other.first_day))


class Known:
    """All versions of one experiment's plan."""

    def __init__(self) -> None:
        self.versions: list[Plan] = []
        self.wanted: dict[str, Wanted] = {}
        """The day sums that some version wants, by their key."""
        self._known_us: dict[str, int] = {}
        self._ended_us: int | None = None
        self._begun = False

    @property
    def newest(self) -> Plan:
        """The newest version."""
        return self.versions[-1]

    def add(self, plan: Plan) -> None:
        """Take in the next version. What decides a metric's sums is that of the first version that runs, for ever."""
        self.versions.append(plan)
        for metric in folded(plan):
            self._known_us.setdefault(digest(plan, metric), micros(plan.time))
        merge_wanted(self.wanted, wanted(plan, self._known_us))
        if not self._begun:
            self.definition = define(plan, self._known_us)
            self.by_unit = plan.unit is Unit.UNIT
            self._begun = plan.state is State.RUNNING
        if plan.state not in ENDED:
            self._ended_us = None
        elif self._ended_us is None:
            self._ended_us = micros(plan.time)

    def closes_ms(self) -> int | None:
        """Records appended from then on do not count any more; None while it has not ended."""
        if self._ended_us is None:
            return None
        return -(-(self._ended_us + self.definition.longest_us + self.definition.lateness_us) // 1_000) + CLOSING_MS


class Derivation:
    """Which variant a version of a plan gives, derived again from the hash alone."""

    def __init__(self, plan: Plan) -> None:
        spans = of_plan(plan)
        self._lows, self._names = [span.low for span in spans], [span.variant for span in spans]
        self._highs = [span.high for span in spans]
        self._variants = [variant.name for variant in plan.variants]
        self._by_request = plan.unit is Unit.REQUEST
        self._prefix = f"{plan.salt}:variant:".encode()

    def gives(self, event: Assignment) -> bool:
        """Whether an assignment's variant is the one that follows from the hash, and the plan's weights or the policy's."""
        place = bucket(self._prefix + (event.request_id if self._by_request else event.unit_id).encode())
        if event.policy_version > 0:
            return self._by_policy(event, place)
        at = bisect_right(self._lows, place) - 1
        return at >= 0 and place < self._highs[at] and self._names[at] == event.variant

    def _by_policy(self, event: Assignment, place: float) -> bool:
        weights = [event.propensities.get(name, 0.0) for name in self._variants]
        if not sum(weights) > 0:
            return False
        return self._variants[bisect_right(bounds(weights), place)] == event.variant


class Plans:
    """Every experiment, by name."""

    def __init__(self) -> None:
        self._versions = PlanVersions()
        self._derivations: dict[tuple[str, int], Derivation] = {}
        self.known: dict[str, Known] = {}
        self.closes_ms: dict[str, int] = {}
        """The experiments that have ended."""
        self.by_request = False
        """Whether any experiment analyses requests."""
        self._wanted: tuple[int, int, dict[str, list[Wanted]]] = (0, 0, {})
        """The append times for which day sums were last asked for, from and to, and the answer."""

    def observe(self, plan: Plan) -> bool:
        """Take in a plan's next version; False where it is not the next one, or none to go by."""
        if not self._versions.offer(plan):
            return False
        known = self.known.setdefault(plan.name, Known())
        known.add(plan)
        self._derivations[(plan.name, plan.version)] = Derivation(plan)
        self.by_request = self.by_request or not known.by_unit
        closes_ms = known.closes_ms()
        self.closes_ms.pop(plan.name, None)
        if closes_ms is not None:
            self.closes_ms[plan.name] = closes_ms
        self._wanted = (0, 0, {})
        return True

    def definition(self, name: str) -> Definition | None:
        """What is folded of an experiment."""
        known = self.known.get(name)
        return known.definition if known is not None else None

    def knows(self, name: str, version: int) -> bool:
        """Whether an experiment is known as far as this version of its plan."""
        return self._versions.reaches(name, version)

    def closed(self, watermark_ms: int) -> list[str]:
        """The experiments of which nothing counts that is appended from this time on."""
        return [name for name, closes_ms in self.closes_ms.items() if closes_ms <= watermark_ms]

    def derives(self, event: Assignment) -> bool:
        """Whether an assignment follows from the version that it names, or from the policy's weights that it carries."""
        derivation = self._derivations.get((event.experiment, event.plan_version))
        return derivation is not None and derivation.gives(event)

    def wanted(self, appended_ms: int) -> dict[str, list[Wanted]]:
        """By outcome, the day sums that experiments want which are not closed for records of this append time.

        Asked once a poll, and the same until the next experiment closes: of hundreds it is worth keeping.
        """
        low, high, by_outcome = self._wanted
        if low <= appended_ms < high:
            return by_outcome
        found: dict[str, Wanted] = {}
        for name, known in self.known.items():
            if appended_ms < self.closes_ms.get(name, appended_ms + 1):
                merge_wanted(found, known.wanted.values())
        by_outcome = {}
        for one in found.values():
            by_outcome.setdefault(one.outcome, []).append(one)
        closings = self.closes_ms.values()
        low = max((at for at in closings if at <= appended_ms), default=0)
        self._wanted = (low, min((at for at in closings if at > appended_ms), default=1 << 63), by_outcome)
        return by_outcome
