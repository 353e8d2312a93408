"""The judge as a step: when it looks, what it tells once, when it stops an experiment, and what weights it publishes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.schemas.errors import NotNow
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Allocation, Analysis, Plan, Policy, State, Unit, Variant
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.moments import FEATURES, gram_sums
from millrace.schemas.policy_state import ContextualState, Gram
from millrace.schemas.record import Emit
from millrace.schemas.signal import SignalKind
from millrace.schemas.topics import EXPERIMENTS, MOMENTS, POLICIES, RESULTS, SIGNALS
from millrace.streams.judge.merge import Folded, Sealed
from millrace.streams.judge.step import Judge
from tests.driver import START_MS, Driver, Log
from tests.judging import PAID, START, counted, experiment, published, sealed
from tests.models import control

ERRORS = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.1)
GUARDED = experiment(PAID, ERRORS, analysis=Analysis(stop_on_harm=True))


class Bench:
    """A judge on a log of one partition, that is polled after each thing that happens."""

    def __init__(self, *plans: Plan, installed: dict[str, Any] | None = None) -> None:
        self.log, self.judge = Log(partitions=1), Judge(installed)
        for plan in plans:
            assert self.judge.observe(control(plan))
        self.driver = Driver(self.log, self.judge, (MOMENTS,))
        self._read = 0

    def publish(self, *partitions: Sealed, version: int = 1) -> list[Any]:
        """Append what partitions say and poll; what came out."""
        for one in partitions:
            for event in published(one, version):
                self.log.append(MOMENTS.name, "e", event)
        return self.poll()

    def after(self, seconds: float) -> list[Any]:
        """Let time pass, and poll."""
        self.log.advance(round(seconds * 1_000))
        return self.poll()

    def poll(self) -> list[Any]:
        """All events that one poll brought."""
        self.driver.drain()
        facts = [fact for fact in self.driver.emitted[0] if isinstance(fact, Emit)]
        fresh, self._read = facts[self._read :], len(facts)
        return fresh


def on(topic: Any, facts: Iterable[Emit]) -> list[Any]:
    return [fact.event for fact in facts if fact.topic == topic.name]


def arms(a: int, b: int, n: int = 5_000, errors: int = 500) -> Sealed:
    return sealed(
        {"paid": {"a": counted(n, a), "b": counted(n, b)}, "errors": {"a": counted(n, n // 10), "b": counted(n, errors * n // 5_000)}}
    )


def test_a_seal_is_judged_at_once_and_then_once_a_second() -> None:
    bench = Bench(experiment())
    (first,) = on(RESULTS, bench.publish(arms(500, 510)))
    assert (first.time, first.units) == (from_ms(START_MS), 10_000)
    bench.log.advance(300)
    assert bench.publish(arms(500, 520)) == []
    bench.log.advance(300)
    assert bench.publish(arms(500, 530)) == []
    (second,) = on(RESULTS, bench.after(0.5))
    assert second.time == first.time + timedelta(seconds=1)
    assert second.metrics[0].arms["b"].mean == pytest.approx(0.106)
    assert bench.after(3_600) == []


def test_what_is_not_sealed_does_not_count() -> None:
    bench = Bench(experiment())
    bench.publish(arms(500, 510))
    bench.log.advance(2_000)
    metric, *_ = published(arms(500, 900))
    bench.log.append(MOMENTS.name, "e", metric)
    assert bench.poll() == []
    *_, seal = published(arms(500, 900))
    bench.log.append(MOMENTS.name, "e", replace(seal, offsets={"assignments": 99}))
    (result,) = on(RESULTS, bench.poll())
    assert result.metrics[0].arms["b"].mean == pytest.approx(0.18)
    assert result.offsets == {"0": {"assignments": 99}}


def test_a_seal_that_comes_again_changes_nothing() -> None:
    bench = Bench(experiment())
    bench.publish(arms(500, 510))
    bench.log.advance(2_000)
    assert bench.publish(arms(500, 510)) == []
    assert bench.after(5) == []


def test_sums_of_a_plan_that_is_on_its_way_wait() -> None:
    bench = Bench()
    with pytest.raises(NotNow, match="version 1 of experiment e"):
        bench.publish(arms(500, 510))
    late = Bench(experiment())
    with pytest.raises(NotNow, match="version 2"):
        late.publish(arms(500, 510), version=2)


def test_harm_stops_the_experiment_once_and_says_so_once() -> None:
    bench = Bench(GUARDED)
    facts = bench.publish(arms(500, 500, errors=900))
    assert [fact.topic for fact in facts] == [RESULTS.name, SIGNALS.name, SIGNALS.name, EXPERIMENTS.name]
    (plan,) = on(EXPERIMENTS, facts)
    assert (plan.version, plan.state) == (2, State.STOPPED)
    assert plan.conclusion.startswith("stopped by the rule guardrail: b harms errors by more than 0.1")
    harm, decision = on(SIGNALS, facts)
    assert (harm.kind, harm.rule, harm.firing, harm.severity) == (SignalKind.GUARDRAIL, "errors/b", True, "critical")
    assert harm.value > harm.threshold == 0.1
    assert (decision.kind, decision.message.split(":")[1]) == (SignalKind.DECISION, " reject b by the rule guardrail")
    bench.log.advance(2_000)
    assert [fact.topic for fact in bench.publish(arms(500, 500, errors=901))] == [RESULTS.name]


def test_harm_is_only_told_where_the_plan_does_not_stop() -> None:
    bench = Bench(experiment(PAID, ERRORS))
    assert on(EXPERIMENTS, bench.publish(arms(500, 500, errors=900))) == []


def test_an_edit_that_came_first_is_stopped_too() -> None:
    """A person's version 2 made the judge's void; the experiment still runs, so it is stopped again, from there."""
    bench = Bench(GUARDED)
    bench.publish(arms(500, 500, errors=900))
    assert bench.judge.observe(control(replace(GUARDED, version=2, owner="somebody")))
    facts = bench.after(1.5)
    (plan,) = on(EXPERIMENTS, facts)
    assert (plan.version, plan.owner, plan.state) == (3, "somebody", State.STOPPED)
    assert bench.judge.observe(control(plan))
    assert on(EXPERIMENTS, bench.after(1.5)) == []


def test_an_edit_is_judged_though_nothing_arrives() -> None:
    bench = Bench(experiment())
    (before,) = on(RESULTS, bench.publish(arms(500, 590)))
    assert bench.judge.observe(control(experiment(analysis=Analysis(alpha=0.3), version=2)))
    (after,) = on(RESULTS, bench.after(1.5))
    assert (before.plan_version, after.plan_version) == (1, 2)
    assert (before.decision.verdict, after.decision.verdict) == ("continue", "implement")


def test_time_alone_decides() -> None:
    plan = experiment(analysis=Analysis(minimal_seconds=100.0, maximal_seconds=200.0), started=from_ms(START_MS))
    bench = Bench(plan)
    (early,) = on(RESULTS, bench.publish(arms(500, 505)))
    (due,) = on(RESULTS, bench.after(101))
    (over,) = on(RESULTS, bench.after(100))
    assert [one.decision.rule for one in (early, due, over)] == ["minimal_seconds", "always_valid", "maximal_seconds"]
    assert (over.time - from_ms(START_MS)).total_seconds() == pytest.approx(200, abs=0.01)


def test_ill_health_is_told_when_it_comes_and_when_it_goes() -> None:
    bench = Bench(experiment())
    odd = sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, 500)}})
    spoilt = replace(odd, arms={name: replace(arm, multiple=0, exposed=arm.exposed) for name, arm in odd.arms.items()})
    bench.publish(
        replace(spoilt, arms={name: replace(arm, exposed=6_000, assigned=6_000, multiple=1_000) for name, arm in odd.arms.items()})
    )
    signals = [fact.event for fact in bench.driver.emitted[0] if isinstance(fact, Emit) and fact.topic == SIGNALS.name]
    assert [(one.kind, one.rule, one.firing) for one in signals] == [("health", "multiple_exposures", True), ("decision", "decision", True)]
    assert signals[0].evidence["share"] == pytest.approx(1_000 / 6_000)
    bench.log.advance(2_000)
    told = on(SIGNALS, bench.publish(odd))
    assert [(one.kind, one.rule, one.firing) for one in told] == [("health", "multiple_exposures", False), ("decision", "decision", False)]
    assert {one.fingerprint for one in told} == {one.fingerprint for one in signals}
    assert len({one.id for one in (*told, *signals)}) == 4


def learning(policy: Policy, **fields: Any) -> Plan:
    keys: dict[str, Any] = {"metric": "paid", "every_seconds": 10.0, "minimal_units": 50, "floor": 0.05} | fields
    return experiment(PAID, allocation=Allocation(policy=policy, **keys), unit=Unit.REQUEST)


@pytest.mark.parametrize("policy", [Policy.THOMPSON, Policy.UCB, Policy.EPSILON_GREEDY])
def test_weights_follow_the_reward(policy: Policy) -> None:
    (made,) = on(POLICIES, Bench(learning(policy)).publish(arms(500, 700)))
    assert (made.version, made.plan_version, made.offsets) == (1, 1, {"0": {"assignments": 10, "outcomes-by-unit": 20}})
    assert made.weights["b"] > 0.85
    assert made.weights["a"] >= 0.05
    assert sum(made.weights.values()) == 1.0
    worse = replace(learning(policy), metrics=(replace(PAID, direction=Direction.DECREASE),))
    (turned,) = on(POLICIES, Bench(worse).publish(arms(500, 700)))
    assert turned.weights["a"] == pytest.approx(made.weights["b"])


def test_keys_of_the_allocation_count() -> None:
    def weights(**fields: Any) -> dict[str, float]:
        policy = fields.pop("policy", Policy.EPSILON_GREEDY)
        (made,) = on(POLICIES, Bench(learning(policy, **fields)).publish(arms(50, 52, n=500)))
        return dict(made.weights)

    assert weights(epsilon=0.5)["b"] < weights(epsilon=0.1)["b"]
    assert weights(floor=0.2)["a"] > weights(floor=0.01)["a"]
    assert weights(minimal_units=600) == {"a": 0.5, "b": 0.5}
    assert weights(policy=Policy.UCB, exploration=100.0)["a"] > 0.0


def test_policies_come_at_their_pace_and_again_after_a_day() -> None:
    bench = Bench(learning(Policy.THOMPSON))
    assert [one.version for one in on(POLICIES, bench.publish(arms(500, 510)))] == [1]
    bench.log.advance(2_000)
    assert on(POLICIES, bench.publish(arms(500, 520))) == []
    (second,) = on(POLICIES, bench.after(9))
    assert (second.version, (second.time - from_ms(START_MS)).total_seconds()) == (2, 10.0)
    assert on(POLICIES, bench.after(3_600)) == []
    (daily,) = on(POLICIES, bench.after(86_400))
    assert (daily.version, daily.weights) == (3, second.weights)


def test_a_paused_experiment_learns_nothing() -> None:
    bench = Bench(replace(learning(Policy.THOMPSON), state=State.PAUSED))
    assert on(POLICIES, bench.publish(arms(500, 700))) == []


def test_an_arm_that_was_ended_is_given_nothing() -> None:
    plan = replace(learning(Policy.THOMPSON), variants=(Variant(name="a"), Variant(name="b"), Variant(name="c", weight=0.0)))
    (made,) = on(POLICIES, Bench(plan).publish(arms(500, 500)))
    assert made.weights["c"] == 0.0
    assert made.weights["a"] == pytest.approx(0.5, abs=0.01)


def test_a_custom_policy_is_asked_and_its_failure_told_once() -> None:
    plan = learning(Policy.CUSTOM, entry_point="mine")
    (made,) = on(POLICIES, Bench(plan, installed={"mine": lambda arms: [0.25, 0.75]}).publish(arms(500, 500)))
    assert made.weights == pytest.approx({"a": 0.05 + 0.9 * 0.25, "b": 0.05 + 0.9 * 0.75})

    def fails(arms: object) -> object:
        raise RuntimeError("no idea")

    for installed, reason in (({"mine": fails}, "RuntimeError: no idea"), ({}, "not installed")):
        bench = Bench(plan, installed=installed)
        facts = bench.publish(arms(500, 500))
        assert on(POLICIES, facts) == []
        (told,) = on(SIGNALS, facts)
        assert (told.rule, told.firing) == ("policy", True)
        assert reason in told.message
        bench.log.advance(11_000)
        assert on(SIGNALS, bench.publish(arms(500, 501))) == []


@pytest.mark.parametrize("policy", [Policy.LIN_TS, Policy.SQUARE_CB, Policy.CONTEXTUAL_EPSILON_GREEDY])
def test_a_contextual_policy_is_learnt_from_sums_over_features(policy: Policy) -> None:
    """b pays where the feature is high, a where it is low."""
    grams = {"a": Gram.zero(1), "b": Gram.zero(1)}
    for number in range(200):
        x = (number % 10) * 200_000 - 1_000_000
        grams["a"] += Gram.of([x], int(x < 0))
        grams["b"] += Gram.of([x], int(x >= 0))
    one = arms(500, 500)
    sums = one.metrics["paid"].moments | {f"{name}{FEATURES}": gram_sums(gram) for name, gram in grams.items()}
    with_features = replace(one, metrics=one.metrics | {"paid": Folded("d", 1, START, sums)})
    settings: dict[str, Any] = {} if policy is Policy.CONTEXTUAL_EPSILON_GREEDY else {"exploration": 10.0}
    (made,) = on(POLICIES, Bench(learning(policy, features={"amount": (0.0, 9.0)}, **settings)).publish(with_features))
    state = msgspec.json.decode(made.contextual, type=ContextualState)
    low, high = state.arms
    assert (low.n, low.ready) == (200, True)
    assert low.coefficients[1] < 0 < high.coefficients[1]
    assert sum(made.weights.values()) == pytest.approx(1.0)


def test_a_contextual_policy_without_sums_over_features_is_told_not_made() -> None:
    facts = Bench(learning(Policy.LIN_TS, features={"amount": (0.0, 9.0)})).publish(arms(500, 500))
    assert on(POLICIES, facts) == []
    (told,) = on(SIGNALS, facts)
    assert "without sums over features" in told.message
    assert "had all of amount as numbers in its context; send them" in told.message


def test_sums_over_features_are_no_arm() -> None:
    one = arms(500, 500)
    segment = one.metrics["paid"].moments["a"]
    sums = one.metrics["paid"].moments | {f"a{FEATURES}": gram_sums(Gram.of([1], 1)), f"a|tag=x{FEATURES}": segment}
    (result,) = on(RESULTS, Bench(experiment()).publish(replace(one, metrics={"paid": Folded("d", 1, START, sums)})))
    assert result.metrics[0].arms["a"].units == 5_000
    assert Moments() == Moments(0)
