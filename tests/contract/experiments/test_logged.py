"""What an off-policy evaluation reads of ClickHouse: is it what was logged, with the chances that the decisions had?"""

from __future__ import annotations

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.logged import FOLDS, Decision, logged, logged_sql
from millrace.schemas.experiment import Unit
from tests.contract.experiments.scenario import SECOND_US, Scenario, metric, plan


def decided(decisions: list[Decision]) -> set[tuple[str, float, float]]:
    return {(one.variant, one.propensity, one.reward) for one in decisions}


def test_each_decision_has_its_chance_and_its_reward(client: Client, analyst: Client) -> None:
    s = Scenario(client, plan(metric(resolution=0.5), unit=Unit.REQUEST))
    for number, (variant, propensity) in enumerate((("a", 0.25), ("b", 0.75), ("b", 0.6), ("a", 0.4))):
        s.meets("u1", variant, number * SECOND_US, request_id=f"q{number}", propensity=propensity)
    s.happens("u1", 2.5, 2 * SECOND_US, request_id="q1")
    s.happens("u1", 1.0, 3 * SECOND_US, request_id="q2")
    found = logged(client, s.as_of(), s.plan.metrics[0])
    assert decided(found) == {("a", 0.25, 0.0), ("b", 0.75, 2.5), ("b", 0.6, 1.0), ("a", 0.4, 0.0)}
    assert {one.fold for one in found} <= set(range(FOLDS))
    assert found == logged(client, s.as_of(), s.plan.metrics[0])
    assert len(analyst.rows(logged_sql(s.as_of(), s.plan.metrics[0]))) == 4


def test_the_chance_is_that_of_the_record_that_exposed(client: Client) -> None:
    s = Scenario(client, plan(metric()))
    s.meets("u1", "a", exposed=False, propensity=0.1)
    s.meets("u1", "a", SECOND_US, propensity=0.2)
    s.meets("u1", "a", 2 * SECOND_US, propensity=0.3)
    s.meets("u2", "b", override=True, propensity=1.0)
    s.meets("u3", "a", propensity=0.5)
    s.meets("u3", "b", SECOND_US, propensity=0.5)
    assert decided(logged(client, s.as_of(), s.plan.metrics[0])) == {("a", 0.2, 0.0)}
