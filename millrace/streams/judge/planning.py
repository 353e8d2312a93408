"""How many units an experiment needs, or what it can find with those it has: over all of its arms, as it will be judged."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Correction, Looks, Plan, Rule, Spending
from millrace.schemas.metric import Direction, Metric, Role
from millrace.streams.judge.estimate import Terms
from millrace.streams.judge.known import shares
from millrace.streams.stats.effect import Difference
from millrace.streams.stats.power import Baseline, Design, SampleSize, detectable, planned_looks, power, sample_size


class Asked(Struct, frozen=True, kw_only=True):
    """How an experiment will be judged: the arms' shares, the control's first, and the level of each single test."""

    kind: Kind = Kind.MEAN
    difference: Difference = Difference.RELATIVE
    alpha: float = 0.05
    power: float = 0.8
    shares: dict[str, float]
    tuning: float | None = None
    """Looked at any time: narrowest at so many units."""
    tau: float | None = None
    """Looked at any time: the mixture SPRT's plausible effects."""
    looks: tuple[float, ...] = ()
    """Looked at planned times: the share of the units at each. Without any of these, a fixed horizon."""
    spending: Spending = Spending.OBRIEN_FLEMING
    decrease: bool = False


class Planned(Struct, frozen=True, kw_only=True):
    """Units of each arm, the effect, and the power with which the hardest comparison finds it; each as asked for or as found."""

    units: dict[str, int] | CannotTell
    total: int | CannotTell
    effect: float | CannotTell
    power: float | CannotTell
    alpha: float
    sequential: bool
    looks: tuple[LookAt, ...] | None = None
    """Of planned looks: each, with the chance that the hardest comparison's effect is found by then."""


class LookAt(Struct, frozen=True):
    """A planned look: units of all arms that count then, the boundary of z, and how likely the effect is found by then."""

    units: int
    boundary: float
    found: float


def asked_by(plan: Plan, metric: Metric, wanted_power: float) -> Asked:
    """As a plan says: alpha is shared by the tests of the metric's family, where the plan corrects for them."""
    family = [one for one in plan.metrics if (one.role is Role.GUARDRAIL) == (metric.role is Role.GUARDRAIL)]
    analysis, tested = plan.analysis, sum(one.kind is not Kind.QUANTILE for one in family)
    tests = 1 if analysis.correction is Correction.NONE else tested * (len(plan.variants) - 1)
    tau = Terms.of(analysis, metric).tau if analysis.rule is Rule.MSPRT else None
    anytime = analysis.rule is Rule.ALWAYS_VALID or (analysis.rule is Rule.MSPRT and tau is None)
    looks = analysis.looks or Looks(units=1, fractions=())
    return Asked(
        kind=metric.kind,
        difference=Difference(analysis.difference),
        alpha=analysis.alpha / max(1, tests),
        power=wanted_power,
        shares=shares(plan),
        tuning=analysis.tuning if anytime else None,
        tau=tau,
        looks=looks.fractions,
        spending=looks.spending,
        decrease=metric.direction is Direction.DECREASE,
    )


def metric_of(plan: Plan, name: str) -> Metric:
    """The plan's metric of this name, its first primary one without a name. Raises UsageError that says which there are."""
    wanted = [one for one in plan.metrics if (one.name == name if name else one.role is Role.PRIMARY)]
    if not wanted:
        known = ", ".join(one.name for one in plan.metrics) or "none"
        raise UsageError(f"experiment {plan.name} has no {f'metric {name!r}' if name else 'primary metric'}; its metrics are: {known}")
    return wanted[0]


def planned(asked: Asked, before: Baseline, effect: float | None, units: int | None) -> Planned:
    """Units for an effect, the effect for units, or for both the power. Raises UsageError where neither is given."""
    pairs = _pairs(asked)
    if effect is not None and units is not None:
        found = _least([power(before, design, effect, _of_pair(units, share)) for design, share in pairs])
        return _planned(asked, before, (units, effect, found))
    if units is not None:
        sizes = [detectable(before, design, _of_pair(units, share), decrease=asked.decrease) for design, share in pairs]
        return _planned(asked, before, (units, _largest(sizes), asked.power))
    if effect is None:
        raise UsageError("give the effect to be found, the units there are, or both")
    total = _total([(sample_size(before, design, effect), design, share) for design, share in pairs])
    return _planned(asked, before, (total, effect, asked.power))


def _pairs(asked: Asked) -> list[tuple[Design, float]]:
    """For each treatment that is given units: how it is compared with the control, and the share of all units that the two have."""
    (_, control), *treatments = asked.shares.items()
    given = [share for _, share in treatments if share > 0.0]
    if control <= 0.0 or not given:
        raise UsageError("a comparison needs a control, which comes first, and a treatment with weights above 0")
    return [
        (
            Design(
                difference=asked.difference,
                alpha=asked.alpha,
                power=asked.power,
                share=share / (share + control),
                tuning=asked.tuning,
                tau=asked.tau,
                looks=asked.looks,
                spending=asked.spending,
            ),
            share + control,
        )
        for share in given
    ]


def _of_pair(units: int, share: float) -> int:
    return math.floor(units * share + 1e-9)


def _total(sizes: list[tuple[SampleSize | CannotTell, Design, float]]) -> int | CannotTell:
    """Units of all arms such that each pair has what it needs."""
    needed = 0
    for size, design, share in sizes:
        if isinstance(size, CannotTell):
            return size
        needed = max(needed, math.ceil(max(size.treatment / design.share, size.control / (1.0 - design.share)) / share - 1e-9))
    return needed


def _least(found: list[float | CannotTell]) -> float | CannotTell:
    return next((one for one in found if isinstance(one, CannotTell)), None) or min(one for one in found if isinstance(one, float))


def _largest(found: list[float | CannotTell]) -> float | CannotTell:
    """The effect that every comparison finds: that of the hardest one."""
    told = [one for one in found if isinstance(one, float)]
    return max(told, key=abs) if len(told) == len(found) else next(one for one in found if isinstance(one, CannotTell))


Told = tuple[int | CannotTell, float | CannotTell, float | CannotTell]
"""Units of all arms, the effect, and the power."""


def _planned(asked: Asked, before: Baseline, found: Told) -> Planned:
    total, effect, chance = found
    return Planned(
        units=total if isinstance(total, CannotTell) else _dealt(total, asked.shares),
        total=total,
        effect=effect,
        power=chance,
        alpha=asked.alpha,
        sequential=asked.tuning is not None or asked.tau is not None or bool(asked.looks),
        looks=_looks(asked, before, found) if asked.looks else None,
    )


def _looks(asked: Asked, before: Baseline, found: Told) -> tuple[LookAt, ...] | None:
    """When each look is, and what it adds; None where units, effect or power cannot be told."""
    total, effect, chance = found
    if isinstance(total, CannotTell) or isinstance(effect, CannotTell) or isinstance(chance, CannotTell):
        return None
    each = [planned_looks(before, design, effect, _of_pair(total, share)) for design, share in _pairs(asked)]
    hardest = min(each, key=lambda looks: looks[-1].found)
    return tuple(LookAt(math.ceil(look.fraction * total - 1e-9 * total), look.boundary, look.found) for look in hardest)


def _dealt(total: int, of: Mapping[str, float]) -> dict[str, int]:
    return {name: math.ceil(total * share - 1e-9) for name, share in of.items()}
