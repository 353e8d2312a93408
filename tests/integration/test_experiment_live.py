"""Do experiments come to the very integers that a simulation knows, on the live stack, while its workers are killed at random?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.answers import arms, moments
from millrace.infra.kafka.control import Control
from millrace.schemas.assignment import Assignment
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Allocation, Condition, Plan, Policy, State, Test, Unit, Variant
from millrace.schemas.metric import Metric, Role
from millrace.schemas.moments import Arm, to_sums
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.result import Estimate, Result
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, OUTCOMES, OUTCOMES_BY_UNIT, POLICIES, REQUESTS
from millrace.schemas.wire import codec
from millrace.streams.experiment.digest import digest
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known
from millrace.streams.judge.merge import Folded, Sealed, merged
from millrace.streams.judge.past import Past
from millrace.streams.judge.policy import weights as weights_of
from millrace.workers.experiments_verify import as_of, topics, verify_experiment
from millrace.workers.verify import verify
from tests.integration.harness.readback import in_order, letters
from tests.integration.simulation import Live, World, covers, live, truth
from tests.stack import Broker, ClickHouse

SMALL, FULL = 8_000, 200_000
SEED = 20
LEARNER = "learner"
RATES = {"worst": 0.1, "worse": 0.2, "best": 0.6}
FLOOR = 0.02
ROUNDS, EACH_ROUND = 4, 200
ANSWER_SECONDS = 600.0


@pytest.fixture(scope="module")
def stack(broker: Broker, clickhouse: ClickHouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(broker, clickhouse, tmp_path_factory.mktemp("live")) as found:
        yield found


def test_a_simulation_comes_to_the_numbers_that_it_knows_though_workers_are_killed(stack: Live) -> None:
    """It comes first: it sets the clock of the partitions, which pytest's order of a file's tests keeps."""
    proven(stack, SMALL, deaths=2, rate=3_000)


def test_a_bandit_moves_towards_the_better_arm_by_the_weights_that_it_publishes(stack: Live) -> None:
    """Rewards come a round late and some twice, and workers are killed; what a policy says is what the archive's sums say."""
    settings, shop = stack.settings, Shop(stack.settings.kafka.partitions)
    plan = Control[Plan](settings, EXPERIMENTS).append(LEARNER, learner)
    for number in range(ROUNDS):
        rewards = shop.rewards(assignments(stack, LEARNER))
        stack.send(REQUESTS, shop.requests(EACH_ROUND))
        stack.send(OUTCOMES, rewards)
        if number in (1, 2):
            stack.kill(("judge", "inference")[number - 1])
        stack.decided()
        stack.moved()
        learnt(stack)
    newest = learnt(stack)
    while not any(one.policy_version >= newest.version for one in assignments(stack, LEARNER)):
        stack.send(REQUESTS, shop.requests(10))
        stack.decided()
    result = stack.judged(LEARNER)

    given = assignments(stack, LEARNER)
    by_version = {one.version: one for one in policies(stack)}
    assert list(by_version) == list(range(1, len(by_version) + 1))
    for one in given:
        weights = by_version[one.policy_version].weights if one.policy_version else dict.fromkeys(RATES, 1 / 3)
        assert one.propensities == (weights if one.policy_version else {})
        assert one.propensity == pytest.approx(weights[one.variant], rel=1e-15)
        assert one.variant == dealt(weights, one.request_id)
    assert max(by_version[1].weights.values()) < 0.5
    assert newest.weights["best"] > 0.8
    assert min(newest.weights.values()) >= FLOOR
    assert min(one.propensities["best"] for one in given if one.policy_version >= newest.version) > 0.6

    assert {name: (arm.exposed, arm.duplicates) for name, arm in result.arms.items()} == shop.counted(given)
    assert {name: arm.mean for name, arm in result.metrics[0].arms.items()} == pytest.approx(shop.means(given), rel=1e-12)
    verified = verify_experiment(settings, LEARNER, 120.0)
    assert verified.unequal == []
    learnt_from = {int(number): ends for number, ends in newest.offsets.items()}
    assert weights_of(plan, merged(recomputed(stack, plan, learnt_from)), {}).weights == newest.weights
    assert_archived(stack)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_simulation_of_200_000_requests_does(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    with live(broker, clickhouse, tmp_path, partitions=4) as full:
        proven(full, FULL, deaths=8, rate=15_000)


def proven(stack: Live, requests: int, deaths: int, rate: float) -> None:
    """Let a world happen, and hold all that came of it against what it knows, and against the batch answer."""
    world = World("checkout", requests, stack.settings.kafka.partitions, SEED)
    plan = Control[Plan](stack.settings, EXPERIMENTS).append(world.name, world.plan)
    stack.send(OUTCOMES, world.days_before())
    stack.moved()
    stack.send(OUTCOMES, world.clock())
    stack.moved()
    stack.stream(world, deaths, SEED, rate)
    stack.decided()
    stack.moved()
    stack.send(OUTCOMES, world.closing())
    stack.moved()
    result = stack.judged(world.name)

    assert len(stack.kills) == deaths
    assert len(letters(stack.settings)) == world.refused
    assert max(one.time for one in assignments(stack, world.name)) < world.began + timedelta(seconds=120), "too slow to know what is late"
    assert_is_the_truth(result, world)
    assert_is_the_batch_answer(stack, plan, result, world)
    assert_archived(stack)


def learner(version: int) -> Plan:
    """Each request by itself, by Thompson sampling."""
    now = datetime.now(UTC)
    return Plan(
        name=LEARNER,
        version=version,
        state=State.RUNNING,
        time=now,
        created=now,
        started=now,
        salt=LEARNER,
        unit=Unit.REQUEST,
        variants=tuple(Variant(name=name) for name in RATES),
        targeting=(Condition(field="world", test=Test.EQUALS, value=LEARNER),),
        metrics=(Metric(name="reward", outcome="reward", kind=Kind.PROPORTION, role=Role.PRIMARY, window_seconds=3_600.0),),
        allocation=Allocation(policy=Policy.THOMPSON, metric="reward", floor=FLOOR, every_seconds=1, minimal_units=20),
    )


def learnt(stack: Live) -> PolicyVersion:
    """Wait for a policy that covers all rewards that stand now."""
    ends = {OUTCOMES_BY_UNIT.name: stack.ends(OUTCOMES_BY_UNIT, LEARNER), ASSIGNMENTS.name: stack.ends(ASSIGNMENTS, LEARNER)}
    stack.wait(lambda: any(covers(one.offsets, ends) for one in policies(stack)), f"a policy up to {ends}")
    return policies(stack)[-1]


def policies(stack: Live) -> list[PolicyVersion]:
    decode = codec(POLICIES).decode
    return [decode(record.value, record.headers) for record in in_order(stack.settings, POLICIES)]


def dealt(weights: dict[str, float], request_id: str) -> str:
    """The variant of a request's place in [0, 1), by the shares that were logged."""
    place = (xxhash.xxh64_intdigest(f"{LEARNER}:variant:{request_id}".encode()) >> 11) / 2**53
    uppers = list(accumulate(weights[name] for name in RATES))
    return next(name for name, upper in zip(RATES, uppers, strict=True) if place < upper / uppers[-1])


class Shop:
    """Asks, and rewards what it was given: whether a request succeeds depends on its number and its variant alone."""

    def __init__(self, partitions: int) -> None:
        self._luck = np.random.default_rng(SEED).random(ROUNDS * EACH_ROUND * 4)
        self._asked, self._partitions = 0, partitions
        self._rewarded: set[str] = set()

    def requests(self, number: int) -> list[bytes]:
        """The next requests, of a few units."""
        first, self._asked = self._asked, self._asked + number
        context = {"world": LEARNER}
        said = [{"id": f"{LEARNER}-{i}", "unit_id": f"{LEARNER}-u{i % 40}", "context": context} for i in range(first, self._asked)]
        return [msgspec.json.encode(one) for one in said]

    def rewards(self, given: list[Assignment]) -> list[bytes]:
        """An outcome of each request that has none yet; of one in ten there are two records."""
        found = []
        for one in given:
            if one.request_id not in self._rewarded:
                self._rewarded.add(one.request_id)
                value = {"unit_id": one.unit_id, "request_id": one.request_id, "id": one.request_id, "metric": "reward"}
                raw = msgspec.json.encode({**value, "value": float(self._wins(one)), "time": datetime.now(UTC)})
                found.extend([raw] * (2 if self._twice(one) else 1))
        return found

    def counted(self, given: list[Assignment]) -> dict[str, tuple[int, int]]:
        """By variant: requests, and repeated rewards."""
        twice = Counter(one.variant for one in given if one.request_id in self._rewarded and self._twice(one))
        return {name: (number, twice[name]) for name, number in Counter(one.variant for one in given).items()}

    def means(self, given: list[Assignment]) -> dict[str, float]:
        """By variant: the share of requests that were rewarded."""
        won = Counter(one.variant for one in given if one.request_id in self._rewarded and self._wins(one))
        return {name: won[name] / number for name, number in Counter(one.variant for one in given).items()}

    def _wins(self, one: Assignment) -> bool:
        return bool(self._luck[self._number(one)] < RATES[one.variant])

    def _twice(self, one: Assignment) -> bool:
        return self._number(one) % 10 == 0

    def _number(self, one: Assignment) -> int:
        return int(one.request_id.rpartition("-")[2])


def assignments(stack: Live, experiment: str) -> list[Assignment]:
    decode = codec(ASSIGNMENTS).decode
    events = (decode(record.value, record.headers) for record in in_order(stack.settings, ASSIGNMENTS))
    return [event for event in events if event.experiment == experiment]


def assert_is_the_truth(result: Result, world: World) -> None:
    """Counts, means and effects are those of the units that the world made up."""
    assert {name: nonzero(arm) for name, arm in result.arms.items()} == {
        name: {key: count for key, count in told.items() if count} for name, told in world.arms().items()
    }
    effects = truth.effects(world)
    for metric in result.metrics:
        for number, name in enumerate(("control", "treatment")):
            y, z, _ = world.values(number)[metric.name]
            step = truth.STEP[metric.name]
            assert metric.arms[name].units == len(y)
            assert metric.arms[name].mean == pytest.approx(step * y.sum() / z.sum() if z.any() else step * y.mean(), rel=1e-12)
        (comparison,) = metric.comparisons
        assert isinstance(comparison.estimate, Estimate), comparison.estimate
        assert (comparison.estimate.effect, comparison.estimate.std_error) == pytest.approx(effects[metric.name], rel=1e-8)
        assert comparison.estimate.adjusted is (metric.name == "revenue")


def assert_is_the_batch_answer(stack: Live, plan: Plan, result: Result, world: World) -> None:
    """The sums of ClickHouse are the world's and the stream's, integer by integer, and judging them gives the result."""
    verified = verify_experiment(stack.settings, plan.name, 120.0)
    assert verified.unequal == []
    assert verified.compared >= len(plan.metrics) * 2 * 9
    assert {str(number): offsets for number, offsets in verified.offsets.items()} == result.offsets
    sealed = recomputed(stack, plan, verified.offsets)
    told: dict[str, dict[str, Any]] = {}
    for one in sealed:
        for metric, folded in one.metrics.items():
            for arm, sums in folded.moments.items():
                known = told.setdefault(metric, {}).get(arm, (0,) * 9)
                told[metric][arm] = tuple(before + int(more) for before, more in zip(known, sums, strict=True))
    assert told == truth.sums(world)
    again = judge(Known(plan=plan), sealed, Past(), result.time).result
    for name in ("offsets", "arms", "metrics", "units", "late"):
        assert as_of_now(getattr(again, name)) == as_of_now(getattr(result, name)), name


def recomputed(stack: Live, plan: Plan, offsets: dict[int, dict[str, int]]) -> list[Sealed]:
    """What each partition should have said, from ClickHouse."""
    client = Client(stack.settings.clickhouse, ANSWER_SECONDS)
    client.use_database()
    question = as_of([plan], topics(stack.settings), offsets)
    seen = arms(client, question, [plan])
    sums = {metric.name: moments(client, question, metric) for metric in plan.metrics}
    client.close()
    return [
        Sealed(
            partition=number,
            offsets=ends,
            arms={arm: one for (at, arm), one in seen.items() if at == number},
            metrics={
                metric.name: Folded(
                    digest(plan, metric),
                    plan.version,
                    plan.time,
                    {arm: to_sums(one) for (at, arm), one in sums[metric.name].items() if at == number},
                )
                for metric in plan.metrics
            },
        )
        for number, ends in offsets.items()
    ]


def as_of_now(part: Any) -> Any:
    """A part of a result without what looks back at earlier looks, and says so."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in ("smallest_p_value", "so_far")}
        return [without(item) for item in value] if isinstance(value, list | tuple) else value

    return without(msgspec.to_builtins(part))


def nonzero(arm: Arm) -> dict[str, int]:
    return {name: getattr(arm, name) for name in Arm.__struct_fields__ if name != "segments" and getattr(arm, name)}


def assert_archived(stack: Live) -> None:
    """Every record is one row, and every assignment can be derived again."""
    report = verify(stack.settings, 120.0)
    assert report.behind == 0
    assert report.clean, [checked for checked in report.partitions if not checked.clean]
    decisions = {(one.request_id, one.experiment) for name in ("checkout", "learner") for one in assignments(stack, name)}
    assert stack.rows("SELECT count(), countIf(agrees) FROM v_assignments") == [(len(decisions), len(decisions))]
