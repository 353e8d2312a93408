"""Checks of what was counted: too few units, units in two arms, lost exposures, underived assignments, late and double outcomes."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.schemas.experiment import Plan
from millrace.schemas.moments import Arm
from millrace.schemas.result import Finding, Severity
from millrace.streams.judge.health import rates
from millrace.streams.judge.known import shares
from millrace.streams.judge.merge import Merged

MULTIPLE = (0.01, 0.1)
"""Shares of units that met two variants: a warning from the first on, nothing to conclude from the second on."""
LATE = 0.05
DUPLICATES = 0.1


def findings(plan: Plan, sums: Merged) -> Iterator[Finding]:
    """What the counts of the arms speak of."""
    arms = [(variant.name, sums.arm(variant.name)) for variant in plan.variants]
    yield from _too_few(plan, arms)
    yield from _multiple(arms)
    yield from _underived(arms)
    yield from _share(arms, "late", rates.late, LATE, Severity.WARNING, "outcomes came too late and do not count; allow more lateness")
    yield from _share(arms, "duplicates", rates.duplicates, DUPLICATES, Severity.NOTE, "outcomes were there before and count once")
    alpha, tuning = plan.analysis.ratio_alpha, plan.analysis.tuning
    for check, counted, what in (
        ("exposure_loss", rates.exposed, "of the units assigned to {} were exposed"),
        ("late_unevenly", rates.late, "of the outcomes of {} came too late"),
        ("multiple_unevenly", rates.multiple, "of the units of {} met another variant"),
    ):
        for one in rates.unlike(arms, counted, alpha, tuning):
            cause = f"{one.rate:.2%} {what.format(one.variant)}, and {one.control_rate:.2%} for {arms[0][0]}: the arms no longer compare"
            yield Finding(check=check, severity=Severity.WARNING, cause=cause, variant=one.variant, numbers=one.numbers)
    for name, partitions in sums.lagging.items():
        told = ", ".join(map(str, partitions))
        cause = f"source partition{'s' * (len(partitions) > 1)} {told} still fold by an older definition, whose sums do not add: left out"
        yield Finding(
            check="definition", severity=Severity.WARNING, cause=cause, metric=name, numbers={"partitions": float(len(partitions))}
        )


def _too_few(plan: Plan, arms: list[tuple[str, Arm]]) -> Iterator[Finding]:
    given = shares(plan)
    for name, arm in arms:
        if given[name] > 0.0 and arm.units < plan.analysis.minimal_units:
            cause = f"{name} has {arm.units} of the {plan.analysis.minimal_units} units from which on anything is decided"
            numbers = {"units": float(arm.units), "minimal_units": float(plan.analysis.minimal_units)}
            yield Finding(check="too_few_units", severity=Severity.NOTE, cause=cause, variant=name, numbers=numbers)


def _multiple(arms: list[tuple[str, Arm]]) -> Iterator[Finding]:
    met, exposed = sum(arm.multiple for _, arm in arms), sum(arm.exposed for _, arm in arms)
    if exposed and met / exposed > MULTIPLE[0]:
        severity = Severity.INVALID if met / exposed > MULTIPLE[1] else Severity.WARNING
        cause = f"{met} of {exposed} units met more than one variant and are left out: is the unit's id stable, were weights changed?"
        yield Finding(check="multiple_exposures", severity=severity, cause=cause, numbers={"share": met / exposed, "units": float(met)})


def _underived(arms: list[tuple[str, Arm]]) -> Iterator[Finding]:
    for name, arm in arms:
        if arm.underived:
            cause = f"{arm.underived} of {arm.assignments} assignments to {name} do not follow from the plan and the hash"
            numbers = {"underived": float(arm.underived), "assignments": float(arm.assignments)}
            yield Finding(check="underived", severity=Severity.WARNING, cause=cause, variant=name, numbers=numbers)


def _share(
    arms: list[tuple[str, Arm]], check: str, counted: rates.Counted, most: float, severity: Severity, what: str
) -> Iterator[Finding]:
    some, all_ = (sum(counts) for counts in zip(*(counted(arm) for _, arm in arms), strict=True))
    if all_ and some / all_ > most:
        yield Finding(check=check, severity=severity, cause=f"{some} of {all_} {what}", numbers={"share": some / all_})
