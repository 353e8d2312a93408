"""Whether a version that no worker can use, as another program than the commands may write it, stops anybody."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.schemas.experiment import Analysis, Looks, Plan, Rule, Span, State, Variant
from millrace.schemas.metric import Direction, Role
from millrace.schemas.record import Emit
from millrace.schemas.topics import EXPERIMENTS, MOMENTS, RESULTS
from millrace.streams.assign import Assigner
from millrace.streams.experiment.fold import Fold
from millrace.streams.judge.step import Judge
from millrace.streams.plan_versions import PlanVersions
from tests.driver import Driver, Log
from tests.judging import PAID, counted, experiment, published, sealed
from tests.models import control

UNUSABLE: tuple[dict[str, Any], ...] = (
    {"variants": (Variant(name="a", weight=0.0), Variant(name="b", weight=0.0))},
    {"spans": (Span(low=0.0, high=0.5, variant="a"),)},
    {"analysis": Analysis(rule=Rule.GROUP_SEQUENTIAL, looks=Looks(units=100, fractions=()))},
)


def test_an_unusable_version_takes_its_number_and_the_one_before_goes_on() -> None:
    plans, good = PlanVersions(), experiment()
    bad, mended = replace(good, version=2, holdout=1.0), replace(good, version=3, state=State.PAUSED)
    assert [plans.offer(plan) for plan in (good, bad, replace(good, version=2))] == [True, False, False]
    assert (plans.newest("e"), plans.reaches("e", 2), plans.reaches("e", 3), list(plans)) == (good, True, False, [good])
    assert plans.offer(mended)
    assert plans.newest("e") == mended


def test_an_experiment_of_which_no_version_is_usable_is_not_known() -> None:
    plans = PlanVersions()
    assert not plans.offer(experiment(holdout=1.0))
    assert (plans.newest("e"), plans.reaches("e", 1), list(plans)) == (None, False, [])


@pytest.mark.parametrize("fields", UNUSABLE, ids=lambda fields: next(iter(fields)))
def test_who_assigns_folds_and_judges_goes_on_by_the_version_before(fields: dict[str, Any]) -> None:
    good = experiment()
    bad: Plan = replace(good, version=2, **fields)
    assigner, fold, judge = Assigner(), Fold(), Judge()
    assert assigner.observe(good)
    assert not assigner.observe(bad)
    assert len(assigner.running) == 1
    for step in (fold, judge):
        assert step.observe(control(good))
        assert not step.observe(control(bad))
    log = Log(partitions=1)
    for event in published(sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, 510)}}), 2):
        log.append(MOMENTS.name, "e", event)
    driver = Driver(log, judge, (MOMENTS,))
    driver.drain()
    (result,) = [fact.event for fact in driver.emitted[0] if isinstance(fact, Emit) and fact.topic == RESULTS.name]
    assert (result.plan_version, result.units) == (1, 10_000)


def test_harm_stops_the_version_before_under_the_next_number() -> None:
    errors = replace(PAID, name="errors", role=Role.GUARDRAIL, direction=Direction.DECREASE)
    good = experiment(PAID, errors, analysis=Analysis(stop_on_harm=True))
    judge, log = Judge(), Log(partitions=1)
    assert [judge.observe(control(plan)) for plan in (good, replace(good, version=2, holdout=1.0))] == [True, False]
    driver = Driver(log, judge, (MOMENTS,))
    sums = {"a": counted(5_000, 500), "b": counted(5_000, 900)}
    for event in published(sealed({"paid": sums, "errors": sums})):
        log.append(MOMENTS.name, "e", event)
    driver.drain()
    (stopped,) = [fact.event for fact in driver.emitted[0] if isinstance(fact, Emit) and fact.topic == EXPERIMENTS.name]
    assert (stopped.version, stopped.state, stopped.holdout) == (3, State.STOPPED, 0.0)
