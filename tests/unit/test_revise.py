"""The life of an experiment's plan, and which edits leave its randomisation whole."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Condition, Plan, State, Test, Variant
from millrace.streams.revise import FROM, move, revise

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLAN = Plan(
    name="checkout",
    version=4,
    state=State.RUNNING,
    time=datetime(2026, 1, 1, tzinfo=UTC),
    salt="s",
    variants=(Variant(name="a"), Variant(name="b")),
    sample=0.5,
)


@pytest.mark.parametrize("old", list(State))
@pytest.mark.parametrize("new", list(State))
def test_every_step_is_taken_or_refused(old: State, new: State) -> None:
    plan = replace(PLAN, state=old)
    if old in FROM[new]:
        assert move(plan, new, NOW) == replace(plan, state=new, version=5, time=NOW)
    else:
        with pytest.raises(UsageError, match="experiment checkout is"):
            move(plan, new, NOW)


def test_what_was_stopped_never_runs_again() -> None:
    with pytest.raises(UsageError, match="create a new one, with a name and a salt of its own"):
        move(replace(PLAN, state=State.STOPPED), State.RUNNING, NOW)


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("salt", replace(PLAN, salt="t")),
        ("targeting", replace(PLAN, targeting=(Condition(field="x", test=Test.EQUALS, value=1),))),
        ("models", replace(PLAN, models=("m",))),
        ("sample", replace(PLAN, sample=0.4)),
        ("variants", replace(PLAN, variants=(Variant(name="b"), Variant(name="a")))),
        ("variants", replace(PLAN, variants=(Variant(name="a"),))),
        ("variants", replace(PLAN, variants=(Variant(name="new"), Variant(name="a"), Variant(name="b")))),
    ],
)
@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_an_edit_that_would_move_units_unseen_is_refused_by_field(field: str, changed: Plan, state: State) -> None:
    with pytest.raises(UsageError, match=f"`{field}` cannot be changed so"):
        revise(replace(PLAN, state=state), changed)
    assert revise(replace(PLAN, state=State.DRAFT), changed).version == 5


@pytest.mark.parametrize(
    "changed",
    [
        replace(PLAN, sample=0.9),
        replace(PLAN, overrides={"u": "a"}),
        replace(PLAN, hypothesis="another"),
        replace(PLAN, variants=(Variant(name="a", weight=9), Variant(name="b", weight=0), Variant(name="c"))),
    ],
)
def test_other_edits_are_the_next_version_in_the_same_state(changed: Plan) -> None:
    assert revise(PLAN, replace(changed, version=1, state=State.DRAFT)) == replace(changed, version=5, state=State.RUNNING)


@pytest.mark.parametrize("state", [State.STOPPED, State.COMPLETED])
def test_what_is_over_is_not_edited(state: State) -> None:
    with pytest.raises(UsageError, match="can no longer be edited"):
        revise(replace(PLAN, state=state), PLAN)
