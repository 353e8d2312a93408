"""What may become of an experiment's plan: its states, and the edits that leave its randomisation whole."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Plan, State

FROM: dict[State, frozenset[State]] = {
    State.DRAFT: frozenset(),
    State.RUNNING: frozenset({State.DRAFT, State.PAUSED}),
    State.PAUSED: frozenset({State.RUNNING}),
    State.STOPPED: frozenset({State.DRAFT, State.RUNNING, State.PAUSED}),
    State.COMPLETED: frozenset({State.RUNNING, State.PAUSED}),
}
"""The states from which each state can be reached. What was stopped or completed never runs again: its units are spent."""
BEGUN = frozenset({State.RUNNING, State.PAUSED})
OVER = frozenset({State.STOPPED, State.COMPLETED})


def move(plan: Plan, state: State, now: datetime) -> Plan:
    """The plan's next version, in another state. Raises UsageError for a step that its life does not have."""
    if plan.state in FROM[state]:
        return replace(plan, version=plan.version + 1, state=state, time=now)
    if plan.state is state:
        raise UsageError(f"experiment {plan.name} is {state} already")
    if plan.state in OVER:
        raise UsageError(f"experiment {plan.name} is {plan.state} and stays so: create a new one, with a name and a salt of its own")
    raise UsageError(f"experiment {plan.name} is {plan.state}, from which it cannot become {state}")


def revise(old: Plan, new: Plan) -> Plan:
    """``new`` as the next version of ``old``, in its state.

    Once it has begun, a unit that met one variant must not meet another for a reason that nobody can see afterwards. New weights
    move exactly the changed share, a larger sample adds units: both are known later, from the plan's versions. The rest is refused with
    UsageError naming the field.
    """
    if old.state in OVER:
        raise UsageError(f"experiment {old.name} is {old.state}: it can no longer be edited; create a new one")
    if old.state in BEGUN:
        _refuse_moving(old, new)
    return replace(new, version=old.version + 1, state=old.state)


def _refuse_moving(old: Plan, new: Plan) -> None:
    for field in ("salt", "targeting", "models"):
        if getattr(old, field) != getattr(new, field):
            raise _moves(old, field, f"{_why(field)}; stop it and create a new experiment with another salt")
    if new.sample < old.sample:
        raise _moves(old, "sample", f"units that take part would drop out; it may only grow (now {old.sample:g})")
    names, wanted = [variant.name for variant in old.variants], [variant.name for variant in new.variants]
    if wanted[: len(names)] != names:
        raise _moves(
            old, "variants", f"they must stay {', '.join(names)} in this order (give one weight 0 to end it); new ones come after them"
        )


def _why(field: str) -> str:
    return "every unit would be dealt a new variant" if field == "salt" else "other units would take part than those counted so far"


def _moves(plan: Plan, field: str, why: str) -> UsageError:
    return UsageError(f"experiment {plan.name} is {plan.state}: its `{field}` cannot be changed so: {why}")
