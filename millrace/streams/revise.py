"""What may become of an experiment's plan: its states, and the edits that leave its randomisation and its counts whole."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Plan, Span, State, Unit
from millrace.schemas.metric import Metric
from millrace.streams.eligible import ramp_share
from millrace.streams.plan_check import BEGUN
from millrace.streams.spans import moved, of_plan

FROM: dict[State, frozenset[State]] = {
    State.DRAFT: frozenset(),
    State.RUNNING: frozenset({State.DRAFT, State.PAUSED}),
    State.PAUSED: frozenset({State.RUNNING}),
    State.STOPPED: frozenset({State.DRAFT, State.RUNNING, State.PAUSED}),
    State.COMPLETED: frozenset({State.RUNNING, State.PAUSED, State.STOPPED}),
}
"""The states from which each state can be reached. What was stopped or completed never runs again: its units are spent."""
OVER = frozenset({State.STOPPED, State.COMPLETED})
ANEW = "stop it and create a new experiment with another name and salt"
FIXED = {
    "salt": "every unit would be dealt a new variant",
    "unit": "every unit would be dealt a new variant",
    "layer": "other units would take part than those counted so far",
    "holdout": "other units would take part than those counted so far",
    "targeting": "other units would take part than those counted so far",
    "models": "other units would take part than those counted so far",
    "allocation": "what was learnt so far would not be what the new policy learns from",
    "segments": "units counted so far were not told apart so",
}
"""What never changes once an experiment has begun, and why."""
FREE = ("role", "direction", "minimal_effect", "limit", "quantile")
"""What of a metric may change: how its numbers are judged, not which numbers they are."""


def move(plan: Plan, state: State, now: datetime) -> Plan:
    """The plan's next version, in another state. Raises UsageError for a step that its life does not have."""
    if plan.state in FROM[state]:
        began = now if state is State.RUNNING and plan.started is None else plan.started
        return replace(plan, version=plan.version + 1, state=state, time=now, started=began, created=plan.created or plan.time)
    if plan.state is state:
        raise UsageError(f"experiment {plan.name} is {state} already")
    if plan.state in OVER:
        raise UsageError(f"experiment {plan.name} is {plan.state} and stays so: create a new one, with a name and a salt of its own")
    raise UsageError(f"experiment {plan.name} is {plan.state}, from which it cannot become {state}")


def resume(plan: Plan, now: datetime) -> Plan:
    """A paused experiment, running again. Raises UsageError for one that is not paused."""
    if plan.state is State.DRAFT:
        raise UsageError(f"experiment {plan.name} has not begun: `millrace experiments start {plan.name}` starts it")
    return move(plan, State.RUNNING, now)


def conclude(plan: Plan, variant: str, because: str, now: datetime) -> Plan:
    """The plan, completed: which variant it came out for, and why. Raises UsageError for a variant that is none of the plan's."""
    names = [one.name for one in plan.variants]
    if variant not in names:
        raise UsageError(f"experiment {plan.name} has no variant {variant!r}; it has {', '.join(names)}")
    if not because.strip():
        raise UsageError("say why: a conclusion without a reason helps nobody who reads it later")
    return replace(move(plan, State.COMPLETED, now), conclusion=f"{variant}: {because.strip()}")


def revise(old: Plan, new: Plan) -> Plan:
    """``new`` as the next version of ``old``, in its state. ``new.time`` is when it is written.

    Once it has begun, a unit that met one variant must not meet another for a reason that nobody can see afterwards. New weights
    move exactly the changed share, a larger sample adds units: both are known later, from the plan's versions. The rest is refused with
    UsageError naming the field.
    """
    if old.state in OVER:
        raise UsageError(f"experiment {old.name} is {old.state}: it can no longer be edited; create a new one")
    if old.state in BEGUN:
        _refuse_moving(old, new)
        _refuse_counting_otherwise(old, new)
    return replace(
        new,
        version=old.version + 1,
        state=old.state,
        spans=_spans(old, new) if old.state in BEGUN else (),
        created=old.created or old.time,
        started=old.started,
        conclusion=old.conclusion,
    )


def _spans(old: Plan, new: Plan) -> tuple[Span, ...]:
    """Requests keep no variant, so that for them, as for weights that are learnt, there is nothing to move."""
    if new.unit is Unit.REQUEST:
        return ()
    before, after = _weights(old), _weights(new)
    return old.spans if before == after else moved(of_plan(old), after)


def _weights(plan: Plan) -> dict[str, float]:
    return {variant.name: variant.weight for variant in plan.variants}


def _refuse_moving(old: Plan, new: Plan) -> None:
    for field, why in FIXED.items():
        if getattr(old, field) != getattr(new, field):
            raise _refused(old, field, f"{why}; {ANEW}")
    if new.sample < old.sample:
        raise _refused(old, "sample", f"units that take part would drop out; it may only grow (now {old.sample:g})")
    names, wanted = [variant.name for variant in old.variants], [variant.name for variant in new.variants]
    if wanted[: len(names)] != names:
        raise _refused(
            old, "variants", f"they must stay {', '.join(names)} in this order (give one weight 0 to end it); new ones come after them"
        )
    _refuse_dropping(old, new)


def _refuse_dropping(old: Plan, new: Plan) -> None:
    """Units that take part go on doing so."""
    before, after = set(old.target_units), set(new.target_units)
    if after and (not before or before - after):
        named = f"{min(before - after)!r} is missing" if before else "now all may take part"
        raise _refused(old, "target_units", f"units that take part would drop out; they may only be added ({named})")
    reached, left = ramp_share(old.ramp, new.time), ramp_share(new.ramp, new.time)
    if left < reached:
        raise _refused(old, "ramp", f"units that take part would drop out; it stands at {reached:g} now, and would fall to {left:g}")


def _refuse_counting_otherwise(old: Plan, new: Plan) -> None:
    """What was counted so far was counted by these metrics: a unit's sums cannot be computed anew from what a worker remembers."""
    before, after = {metric.name: metric for metric in old.metrics}, {metric.name: metric for metric in new.metrics}
    for name in sorted(after.keys() - before.keys()):
        why = f"{name!r} would lack all outcomes before now, which were not kept by unit"
        raise _refused(old, "metrics", f"{why}; compute it in ClickHouse from v_outcomes, or {ANEW}")
    for name in sorted(before.keys() - after.keys()):
        raise _refused(old, "metrics", f'{name!r} cannot be removed, for it would be lost with its counts; give it role = "secondary"')
    for name, metric in after.items():
        if (field := _changed(before[name], metric)) is not None:
            raise _refused(old, f"metrics.{name}.{field}", f"what was counted so far was counted otherwise; {ANEW}")
    if old.analysis.lateness_seconds != new.analysis.lateness_seconds:
        raise _refused(old, "analysis.lateness_seconds", f"outcomes were left out so far by the old one; {ANEW}")
    if old.analysis.looks != new.analysis.looks:
        why = "how many looks share alpha, and how, must be planned before the first, and with it whether the rule is group_sequential"
        raise _refused(old, "analysis.looks", f"{why}; {ANEW}")


def _changed(old: Metric, new: Metric) -> str | None:
    """The first field that says which numbers a metric is made of, and differs."""
    counted = (field for field in Metric.__struct_fields__ if field not in FREE)
    return next((field for field in counted if getattr(old, field) != getattr(new, field)), None)


def _refused(plan: Plan, field: str, why: str) -> UsageError:
    return UsageError(f"experiment {plan.name} is {plan.state}: its `{field}` cannot be changed so: {why}")
