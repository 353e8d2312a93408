"""Whether something befalls the units of a treatment more often than those of the control, at a level that holds at every look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.moments import Arm
from millrace.streams.stats.compare import difference
from millrace.streams.stats.effect import Difference
from millrace.streams.stats.sequence import always_valid
from millrace.streams.stats.summary import Totals, of_totals

Counted = Callable[[Arm], tuple[int, int]]
"""How many of how many: (3, 100) of an arm in which three in a hundred were lost."""


class Unlike(Struct, frozen=True, kw_only=True):
    """A variant whose rate differs from the control's."""

    variant: str
    rate: float
    control_rate: float
    p_value: float

    @property
    def numbers(self) -> dict[str, float]:
        """As a finding shows them."""
        return {"rate": self.rate, "control_rate": self.control_rate, "p_value": self.p_value}


def unlike(arms: Sequence[tuple[str, Arm]], counted: Counted, alpha: float, tuning: float) -> Iterator[Unlike]:
    """The treatments whose rate differs from the first arm's, by an always-valid test at ``alpha`` over all of them (Bonferroni)."""
    (_, control), *treatments = arms
    some, all_ = counted(control)
    before = of_totals(Totals(n=all_, total=float(some)))
    for name, arm in treatments:
        some, all_ = counted(arm)
        now = of_totals(Totals(n=all_, total=float(some)))
        effect = difference(before, now, Kind.PROPORTION, Difference.ABSOLUTE)
        test = effect if isinstance(effect, CannotTell) else always_valid(effect, alpha, tuning)
        if not isinstance(test, CannotTell) and test.p_value <= alpha / len(treatments):
            yield Unlike(variant=name, rate=now.mean, control_rate=before.mean, p_value=test.p_value)


def exposed(arm: Arm) -> tuple[int, int]:
    """Units that were exposed, of those assigned."""
    return min(arm.exposed, arm.assigned), arm.assigned


def multiple(arm: Arm) -> tuple[int, int]:
    """Units that met another variant, of those exposed."""
    return arm.multiple, arm.exposed


def late(arm: Arm) -> tuple[int, int]:
    """Outcomes that came too late, of all that were no duplicates."""
    return arm.late, arm.outcomes + arm.late


def duplicates(arm: Arm) -> tuple[int, int]:
    """Outcomes that were there before, of all."""
    return arm.duplicates, arm.outcomes + arm.late + arm.duplicates


def underived(arm: Arm) -> tuple[int, int]:
    """Assignment records that do not follow from the plan, of all."""
    return arm.underived, arm.assignments
