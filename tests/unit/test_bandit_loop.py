"""Does a bandit learn when its parts are put together: requests, assignments, rewards, sums, policies, and requests again?"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.schemas.assignment import Assignment
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import CONTEXTUAL, Allocation, Plan, Policy, State, Unit, Variant
from millrace.schemas.metric import Metric, Role
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.policy_state import ContextualState
from millrace.schemas.record import Format
from millrace.schemas.request import Request
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, MOMENTS, OUTCOMES_BY_UNIT, POLICIES, REQUESTS
from millrace.streams.assign import Derivation
from millrace.streams.bandits.contextual import Contextual
from millrace.streams.experiment.fold import Fold
from millrace.streams.judge.step import Judge
from millrace.streams.stats.summary import Summary
from tests.driver import START_MS, Driver, Log
from tests.folding import outcome
from tests.models import control, decide, manifest, route

ROUNDS, EACH = 8, 300
ROUND_MS = 11_000
FLOOR = 0.05
PAID = Metric(name="paid", outcome="paid", kind=Kind.PROPORTION, role=Role.PRIMARY, window_seconds=3_600.0)
RANGES = {"hour": (0.0, 24.0), "basket.value": (0.0, 400.0)}
EXPLORATION = {Policy.LIN_TS: 0.5, Policy.SQUARE_CB: 4.0}
Reward = Callable[[Request, str], float]


def learning(policy: Policy) -> Plan:
    allocation = Allocation(
        policy=policy,
        metric="paid",
        floor=FLOOR,
        minimal_units=60,
        exploration=EXPLORATION.get(policy, 1.0),
        features=RANGES if policy in CONTEXTUAL else {},
        entry_point="mine" if policy is Policy.CUSTOM else "",
    )
    return Plan(
        name="offer",
        version=1,
        state=State.RUNNING,
        time=from_ms(START_MS - 1),
        salt="offers",
        unit=Unit.REQUEST,
        variants=(Variant(name="a"), Variant(name="b")),
        metrics=(PAID,),
        allocation=allocation,
    )


def squared(arms: Mapping[str, Summary]) -> list[float]:
    """A custom policy: by the square of the mean."""
    weights = [max(arm.mean, 0.01) ** 2 for arm in arms.values()]
    return [weight / sum(weights) for weight in weights]


def by_hour(request: Request, variant: str) -> float:
    """a pays in the morning, b in the evening; the basket plays no part."""
    share = request.context["hour"] / 23 if "hour" in request.context else 0.5
    return 0.7 - 0.5 * share if variant == "a" else 0.2 + 0.5 * share


def by_arm(request: Request, variant: str) -> float:
    return 0.25 if variant == "a" else 0.6


class Loop:
    """All steps on one log of two partitions, and the rewards that the world gives."""

    def __init__(self, plan: Plan, log: Log | None = None) -> None:
        self.plan, self.log = plan, log or Log()
        fold, judge = Fold(), Judge({"mine": squared})
        self.decide = decide(None, None, manifest(), route(), plan)
        assert fold.observe(control(plan))
        assert judge.observe(control(plan))
        self.drivers = [
            Driver(self.log, self.decide, (REQUESTS,), stateless=True, sink=self.log),
            Driver(self.log, fold, (ASSIGNMENTS, OUTCOMES_BY_UNIT), sink=self.log),
            Driver(self.log, judge, (MOMENTS,), sink=self.log),
        ]
        self.known = 0

    def run(self) -> None:
        """Let every step read what there is, and inference learn of new policies."""
        for driver in self.drivers:
            driver.clock_ms = self.log.now_ms
            driver.drain()
        self.log.advance(ROUND_MS)
        for driver in self.drivers[1:]:
            driver.clock_ms = self.log.now_ms
            driver.poll()
        for policy in self.policies[self.known :]:
            assert self.decide.observe(control(policy))
        self.known = len(self.policies)

    def ask(self, requests: Sequence[Request]) -> list[Assignment]:
        """Requests, and what became of them."""
        seen = {one.id for one in self.assignments}
        for request in requests:
            self.log.append(REQUESTS.name, request.unit_id, request)
        self.drivers[0].clock_ms = self.log.now_ms
        self.drivers[0].drain()
        return [one for one in self.assignments if one.id not in seen]

    @property
    def assignments(self) -> list[Assignment]:
        found: list[Assignment] = self.log.events(ASSIGNMENTS.name)
        return found

    @property
    def policies(self) -> list[PolicyVersion]:
        found: list[PolicyVersion] = self.log.events(POLICIES.name)
        return sorted(found, key=lambda policy: policy.version)


def requests_of(number: int, chance: random.Random) -> list[Request]:
    """A round's requests; some do not say the hour."""
    made = []
    for i in range(EACH):
        context: dict[str, Any] = {"hour": chance.randrange(24), "basket": {"value": chance.randrange(500)}}
        if i % 15 == 0:
            del context["hour"]
        made.append(Request(id=f"q-{number}-{i}", unit_id=f"u-{chance.randrange(50)}", context=context))
    return made


def played(plan: Plan, reward: Reward) -> tuple[Loop, list[list[Assignment]], list[UnitOutcome]]:
    """Some rounds: each round's rewards come before the next."""
    chance, loop, rounds, rewards = random.Random(7), Loop(plan), [], []
    for number in range(ROUNDS):
        requests = {one.id: one for one in requests_of(number, chance)}
        made = loop.ask(list(requests.values()))
        assert len(made) == EACH
        rounds.append(made)
        now_ms = loop.log.now_ms
        for one in made:
            if chance.random() < reward(requests[one.request_id], one.variant):
                paid = outcome(f"o-{one.request_id}", one.unit_id, 1.0, now_ms + 1, request_id=one.request_id)
                rewards.append(paid)
                loop.log.append(OUTCOMES_BY_UNIT.name, one.unit_id, paid)
        loop.run()
    return loop, rounds, rewards


def taught_otherwise(loop: Loop, rewards: Sequence[UnitOutcome]) -> PolicyVersion:
    """The last policy, had no reward come before all were assigned, each then twice and in another order."""
    log = Log()
    log.load(record for number in range(log.partitions) for record in loop.log.read(ASSIGNMENTS.name, number))
    log.now_ms = loop.log.now_ms
    again = Loop(loop.plan, log)
    again.run()
    twice = [*rewards, *rewards]
    random.Random(8).shuffle(twice)
    for start in range(0, len(twice), 400):
        for one in twice[start : start + 400]:
            log.append(OUTCOMES_BY_UNIT.name, one.unit_id, one)
        again.run()
    return again.policies[-1]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def check_log(plan: Plan, loop: Loop) -> None:
    """Each assignment follows from its own propensities, and these from the policy that it names."""
    derivation, policies = Derivation(plan), {policy.version: policy for policy in loop.policies}
    for one in loop.assignments:
        assert derivation.follows(one)
        assert one.propensity == (one.propensities[one.variant] if one.policy_version else 0.5)
        if one.policy_version:
            assert sum(one.propensities.values()) == 1.0
            assert min(one.propensities.values()) >= FLOOR - 2**-40
    assert len({one.policy_version for one in loop.assignments}) == ROUNDS
    for version, policy in policies.items():
        check_propensities([one for one in loop.assignments if one.policy_version == version], policy)


def check_propensities(assignments: Sequence[Assignment], policy: PolicyVersion) -> None:
    known = [one for one in assignments if one.features]
    assert all(one.propensities == policy.weights for one in assignments if not one.features)
    if known:
        ready = Contextual(msgspec.json.decode(policy.contextual, type=ContextualState))
        shares = ready.probabilities([[one.features[name] for name in sorted(RANGES)] for one in known]).tolist()
        assert [[one.propensities["a"], one.propensities["b"]] for one in known] == shares


@pytest.mark.parametrize("policy", sorted(CONTEXTUAL))
def test_a_contextual_policy_learns_which_arm_is_better_where(policy: Policy) -> None:
    plan = learning(policy)
    loop, rounds, rewards = played(plan, by_hour)
    check_log(plan, loop)
    assert all(one.policy_version == 0 and one.propensities == {} for one in rounds[0])
    for better, inside in (("a", range(7)), ("b", range(17, 24))):
        there = [[one for one in made if one.features and one.features["hour"] in inside] for made in rounds]
        chances = [mean([one.propensities.get(better, 0.5) for one in made]) for made in there]
        taken = [mean([one.variant == better for one in made]) for made in there]
        assert chances[0] == 0.5 < chances[1] <= chances[-1]
        assert chances[-1] > 0.9
        assert taken[-1] > 0.75 > taken[0]
    last = loop.policies[-1]
    state = msgspec.json.decode(last.contextual, type=ContextualState)
    assert sum(arm.n for arm in state.arms) == sum(bool(one.features) for made in rounds for one in made) == ROUNDS * EACH * 14 // 15
    assert [feature.name for feature in state.features] == ["basket.value", "hour"]
    again = taught_otherwise(loop, rewards)
    assert (again.weights, bytes(again.contextual)) == (last.weights, bytes(last.contextual))


@pytest.mark.parametrize("policy", [Policy.THOMPSON, Policy.UCB, Policy.EPSILON_GREEDY, Policy.CUSTOM])
def test_a_policy_learns_which_arm_is_better(policy: Policy) -> None:
    plan = learning(policy)
    loop, rounds, rewards = played(plan, by_arm)
    check_log(plan, loop)
    assert mean([one.variant == "b" for one in rounds[0]]) < 0.6
    assert mean([one.variant == "b" for one in rounds[-1]]) > 0.7
    assert all(one.features == {} for made in rounds for one in made)
    last, again = loop.policies[-1], taught_otherwise(loop, rewards)
    assert (again.weights, bytes(again.contextual)) == (last.weights, b"")


def test_a_policy_that_read_hours_as_ten_units_would_not_learn_the_evening() -> None:
    """What a range is for: cut at 10, noon and midnight are one, and the better arm of the morning is not told from that of noon."""
    plan = learning(Policy.CONTEXTUAL_EPSILON_GREEDY)
    assert plan.allocation is not None
    narrow = replace(plan, allocation=replace(plan.allocation, features=RANGES | {"hour": (-10.0, 10.0)}))
    noon = [[200.0, 10.0], [200.0, 23.0]]
    told = []
    for one in (narrow, plan):
        loop, _, _ = played(one, by_hour)
        ready = Contextual(msgspec.json.decode(loop.policies[-1].contextual, type=ContextualState))
        told.append(ready.probabilities(noon).tolist())
    assert told[0][0] == told[0][1]
    assert told[1][0] != told[1][1]


def test_the_control_topic_carries_a_plans_ranges_as_they_were() -> None:
    """JSON and MessagePack keep them, whatever the order: what inference reads is what the judge read."""
    plan, log = learning(Policy.LIN_TS), Log(partitions=1)
    assert plan.allocation is not None
    turned = replace(plan, allocation=replace(plan.allocation, features=dict(reversed(RANGES.items()))))
    for one, form in ((plan, Format.JSON), (turned, Format.JSON), (turned, Format.MSGPACK)):
        log.append(EXPERIMENTS.name, "offer", one, form)
    assert [one.learnt_over("paid") for one in log.events(EXPERIMENTS.name)] == [plan.learnt_over("paid")] * 3
