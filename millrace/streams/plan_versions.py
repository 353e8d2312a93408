"""The control topic ``experiments``, folded: of each experiment the newest version that workers go by."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.schemas.experiment import Plan
from millrace.schemas.versions import Versions
from millrace.streams.plan_check import can_assign


class PlanVersions:
    """A version that cannot assign takes its number and no more: the one before goes on, with whoever assigns, folds and judges alike.

    The commands record no such version; any other program that writes to the topic may.
    """

    def __init__(self) -> None:
        self._told: Versions[Plan] = Versions()
        self._able: dict[str, Plan] = {}

    def offer(self, plan: Plan) -> bool:
        """Take in a plan's next version; False where it is not the next one, or cannot assign."""
        if not self._told.offer(plan) or not can_assign(plan):
            return False
        self._able[plan.name] = plan
        return True

    def newest(self, name: str) -> Plan | None:
        """The newest version of a plan that can assign."""
        return self._able.get(name)

    def reaches(self, name: str, version: int) -> bool:
        """Whether an experiment is known, and its versions as far as this one."""
        return name in self._able and version <= self.number(name)

    def number(self, name: str) -> int:
        """The newest number that is taken: the next version has the one after it. 0 where there is none."""
        return self._told.next_version(name) - 1

    def __iter__(self) -> Iterator[Plan]:
        """The newest version of each experiment that can assign, in the order of names."""
        return iter([self._able[name] for name in sorted(self._able)])
