"""What a plan may be and its author may not have meant."""

from __future__ import annotations

from datetime import datetime, timedelta

from millrace.schemas.experiment import Allocation, Correction, Plan, Rule, Unit
from millrace.schemas.metric import Role

SETTLING = timedelta(hours=1)
"""How long after the first version of a plan whoever folds outcomes may take to know of it."""


def warnings(plan: Plan) -> list[str]:
    """One sentence each, naming the field."""
    return [*_unjudged(plan), *_covariates(plan), *_chances(plan), *_rules(plan)]


def changed_analysis(old: Plan, new: Plan) -> list[str]:
    """What is said of an edit that changes how an experiment is judged that has been looked at."""
    return [
        f"`analysis.{field}`: changed after it began: error rates hold for a rule that was fixed before anybody looked"
        for field in old.analysis.__struct_fields__
        if getattr(old.analysis, field) != getattr(new.analysis, field)
    ]


def covered_from(created: datetime) -> datetime:
    """The first whole day (UTC) of which all outcomes are known to whoever folds them for covariates.

    >>> from datetime import UTC
    >>> covered_from(datetime(2026, 1, 1, 22, 59, tzinfo=UTC)).day, covered_from(datetime(2026, 1, 1, 23, 1, tzinfo=UTC)).day
    (2, 3)
    """
    after = created + SETTLING
    day = after.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if day == after else day + timedelta(days=1)


def _unjudged(plan: Plan) -> list[str]:
    return [] if plan.metrics else ["`metrics`: there are none: it assigns, and is never judged"]


def _covariates(plan: Plan) -> list[str]:
    """Outcomes from before a plan was known were not kept by unit."""
    if plan.created is None:
        return []
    first = covered_from(plan.created)
    return [
        f"`metrics[{i}].covariate_days`: the {metric.covariate_days} days before are complete for units exposed from"
        f" {first + timedelta(days=metric.covariate_days):%Y-%m-%d} on: outcomes are kept from {first:%Y-%m-%d} on"
        for i, metric in enumerate(plan.metrics)
        if metric.covariate_days
    ]


def _chances(plan: Plan) -> list[str]:
    said = [f"`variants`: {variant.name} has the weight 0 and is given to nobody" for variant in plan.variants if variant.weight == 0]
    if plan.sample == 0:
        said.append("`sample`: 0 lets nobody take part, until an edit makes it grow")
    if sum(variant.weight > 0 for variant in plan.variants) == 1:
        said.append("`variants`: all get the same one: there is nothing to compare")
    if plan.unit is Unit.REQUEST and plan.allocation is None:
        said.append("`unit`: each request is dealt a variant of its own, so that a unit with several requests may meet several")
    return said + (_learning(plan.allocation) if plan.allocation is not None else [])


def _learning(allocation: Allocation) -> list[str]:
    said = []
    if allocation.floor == 0:
        said.append("`allocation.floor`: with 0 a variant may come to have next to no chance, and nothing more is learnt of it")
    if len(allocation.features) >= max(1, allocation.minimal_units):
        said.append(
            f"`allocation.minimal_units`: {allocation.minimal_units} requests of a variant do not tell {len(allocation.features) + 1}"
            " coefficients: the prior decides until there are more"
        )
    return said


def _rules(plan: Plan) -> list[str]:
    said = []
    primary = [metric.name for metric in plan.metrics if metric.role is Role.PRIMARY]
    compared = len(primary) * (len(plan.variants) - 1)
    if plan.analysis.rule is Rule.FIXED and not plan.analysis.minimal_seconds:
        said.append("`analysis.minimal_seconds`: the rule `fixed` looks once, and 0 lets it look at the first moment: state the run time")
    if (looks := plan.analysis.looks) is not None:
        least = plan.analysis.minimal_units * sum(variant.weight > 0 for variant in plan.variants)
        if looks.fractions[0] * looks.units < least:
            said.append(
                f"`analysis.looks`: the first look, at {looks.fractions[0] * looks.units:g} units, waits until each variant has"
                f" {plan.analysis.minimal_units}: plan it at {least} or later"
            )
    if compared > 1 and plan.analysis.correction is Correction.NONE:
        said.append(f"`analysis.correction`: {compared} comparisons decide without one: one of them may look good by chance")
    return said
