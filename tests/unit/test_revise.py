"""The life of an experiment's plan, and which edits leave its randomisation whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import (
    Allocation,
    Analysis,
    Condition,
    Layer,
    Looks,
    Plan,
    Policy,
    RampStep,
    Rule,
    State,
    Test,
    Unit,
    Variant,
)
from millrace.schemas.metric import Aggregation, Direction, Metric, Role, Source
from millrace.streams.revise import FROM, conclude, move, resume, revise
from millrace.streams.spans import shares

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLAN = Plan(
    name="checkout",
    version=4,
    state=State.RUNNING,
    time=datetime(2026, 1, 1, tzinfo=UTC),
    salt="s",
    variants=(Variant(name="a"), Variant(name="b")),
    sample=0.5,
    created=datetime(2025, 12, 31, tzinfo=UTC),
    started=datetime(2026, 1, 1, tzinfo=UTC),
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
    ],
)
def test_other_edits_are_the_next_version_in_the_same_state(changed: Plan) -> None:
    assert revise(PLAN, replace(changed, version=1, state=State.DRAFT)) == replace(changed, version=5, state=State.RUNNING)


@pytest.mark.parametrize("state", [State.STOPPED, State.COMPLETED])
def test_what_is_over_is_not_edited(state: State) -> None:
    with pytest.raises(UsageError, match="can no longer be edited"):
        revise(replace(PLAN, state=state), PLAN)


PAID = Metric(name="paid", outcome="order", role=Role.PRIMARY, covariate_days=7)
WHOLE = replace(
    PLAN,
    metrics=(PAID, Metric(name="speed", outcome="seconds")),
    target_units=("u", "v"),
    ramp=(RampStep(at=NOW - timedelta(days=1), share=0.2), RampStep(at=NOW + timedelta(days=1), share=0.8)),
    time=NOW,
)


def metrics(**fields: Any) -> Plan:
    """The plan with another first metric."""
    return replace(WHOLE, metrics=(replace(PAID, **fields), *WHOLE.metrics[1:]))


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("unit", replace(WHOLE, unit=Unit.REQUEST)),
        ("layer", replace(WHOLE, layer=Layer(name="page"))),
        ("holdout", replace(WHOLE, holdout=0.1)),
        ("allocation", replace(WHOLE, allocation=Allocation(policy=Policy.UCB, metric="paid"))),
        ("segments", replace(WHOLE, segments={"country": ("DE",)})),
        ("target_units", replace(WHOLE, target_units=("u",))),
        ("ramp", replace(WHOLE, ramp=(RampStep(at=NOW - timedelta(days=1), share=0.1),))),
        ("ramp", replace(WHOLE, ramp=(RampStep(at=NOW + timedelta(days=1), share=1.0),))),
        ("metrics", replace(WHOLE, metrics=(*WHOLE.metrics, Metric(name="new", outcome="x")))),
        ("metrics", replace(WHOLE, metrics=(PAID,))),
        ("metrics.paid.outcome", metrics(outcome="x")),
        ("metrics.paid.kind", metrics(kind=Kind.PROPORTION)),
        ("metrics.paid.aggregation", metrics(aggregation=Aggregation.MAX)),
        ("metrics.paid.resolution", metrics(resolution=0.1)),
        ("metrics.paid.cap", metrics(cap=3.0)),
        ("metrics.paid.denominator", metrics(denominator=Source(outcome="x"))),
        ("metrics.paid.window_seconds", metrics(window_seconds=5.0)),
        ("metrics.paid.covariate_days", metrics(covariate_days=8)),
        ("analysis.looks", replace(WHOLE, analysis=Analysis(rule=Rule.GROUP_SEQUENTIAL, looks=Looks(units=20_000)))),
        ("analysis.lateness_seconds", replace(WHOLE, analysis=Analysis(lateness_seconds=1))),
    ],
)
def test_an_edit_that_would_move_units_or_count_otherwise_is_refused_by_field(field: str, changed: Plan) -> None:
    with pytest.raises(UsageError, match=f"`{field}` cannot be changed so: .+"):
        revise(WHOLE, changed)
    assert revise(replace(WHOLE, state=State.DRAFT), changed).version == 5


def test_another_range_of_a_feature_is_refused_and_another_order_is_none() -> None:
    learns = Allocation(policy=Policy.LIN_TS, metric="paid", features={"hour": (0.0, 24.0), "basket": (0.0, 500.0)})
    running = replace(WHOLE, unit=Unit.REQUEST, allocation=learns)
    wider = replace(learns, features=learns.features | {"hour": (0.0, 48.0)})
    with pytest.raises(UsageError, match="`allocation` cannot be changed so: what was learnt"):
        revise(running, replace(running, allocation=wider))
    assert (
        revise(running, replace(running, allocation=replace(learns, features=dict(reversed(learns.features.items()))))).version
        == running.version + 1
    )


@pytest.mark.parametrize(
    "changed",
    [
        replace(WHOLE, target_units=("u", "v", "w")),
        replace(WHOLE, target_units=()),
        replace(WHOLE, ramp=()),
        replace(WHOLE, ramp=(RampStep(at=NOW - timedelta(hours=1), share=0.2), RampStep(at=NOW + timedelta(days=9), share=0.3))),
        replace(WHOLE, metrics=WHOLE.metrics[::-1]),
        metrics(role=Role.SECONDARY, direction=Direction.DECREASE, minimal_effect=0.3),
        replace(WHOLE, analysis=Analysis(alpha=0.01)),
    ],
)
def test_what_adds_units_or_judges_otherwise_is_taken(changed: Plan) -> None:
    assert revise(WHOLE, changed) == replace(changed, version=5)


def test_adding_a_metric_says_what_to_do_instead() -> None:
    with pytest.raises(UsageError, match=r"'new' would lack all outcomes before now.*v_outcomes, or stop it and create a new experiment"):
        revise(WHOLE, replace(WHOLE, metrics=(*WHOLE.metrics, Metric(name="new", outcome="x"))))


def test_new_weights_are_stored_as_spans_once_it_has_begun() -> None:
    thirds = (Variant(name="a"), Variant(name="b"), Variant(name="c"))
    drafted = revise(replace(PLAN, state=State.DRAFT), replace(PLAN, variants=thirds))
    assert drafted.spans == ()
    second = revise(PLAN, replace(PLAN, variants=thirds))
    assert {name: round(share, 12) for name, share in shares(second.spans).items()} == dict.fromkeys("abc", round(1 / 3, 12))
    unchanged = revise(second, replace(second, hypothesis="another", spans=()))
    assert unchanged.spans == second.spans
    assert revise(replace(PLAN, unit=Unit.REQUEST), replace(PLAN, unit=Unit.REQUEST, variants=thirds)).spans == ()


def test_times_and_conclusion_are_kept_and_set_once() -> None:
    file = replace(PLAN, version=1, state=State.DRAFT, created=NOW, started=None, time=NOW)
    draft = replace(file, created=datetime(2025, 1, 1, tzinfo=UTC))
    edited = revise(draft, file)
    assert (edited.created, edited.started) == (draft.created, None)
    began = move(edited, State.RUNNING, NOW)
    again = move(move(began, State.PAUSED, NOW), State.RUNNING, NOW + timedelta(days=1))
    assert (began.started, again.started, revise(again, file).started) == (NOW, NOW, NOW)
    assert {plan.created for plan in (began, again, revise(again, file))} == {draft.created}


def test_only_a_paused_experiment_is_resumed() -> None:
    assert resume(replace(PLAN, state=State.PAUSED), NOW).state is State.RUNNING
    with pytest.raises(UsageError, match="has not begun: `millrace experiments start checkout`"):
        resume(replace(PLAN, state=State.DRAFT), NOW)
    with pytest.raises(UsageError, match="is running already"):
        resume(PLAN, NOW)


def test_a_conclusion_names_a_variant_and_says_why() -> None:
    done = conclude(PLAN, "b", " more orders ", NOW)
    assert (done.state, done.conclusion, done.version) == (State.COMPLETED, "b: more orders", 5)
    assert conclude(replace(PLAN, state=State.STOPPED), "a", "harm", NOW).state is State.COMPLETED
    with pytest.raises(UsageError, match="no variant 'c'; it has a, b"):
        conclude(PLAN, "c", "more orders", NOW)
    with pytest.raises(UsageError, match="say why"):
        conclude(PLAN, "b", " ", NOW)
    with pytest.raises(UsageError, match="from which it cannot become completed"):
        conclude(replace(PLAN, state=State.DRAFT), "b", "more orders", NOW)
