"""Are the sums over features that ClickHouse computes those that the stream folds: the same doubles, clipped, scaled and rounded alike?"""

from __future__ import annotations

import random

from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.grams import grams, grams_sql
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Allocation, Policy, Unit
from millrace.schemas.metric import Role
from millrace.schemas.moments import from_gram_sums, over_features
from millrace.schemas.policy_state import Gram
from millrace.schemas.topics import ASSIGNMENTS, OUTCOMES_BY_UNIT
from millrace.streams.experiment.fold import Fold
from millrace.streams.experiment.tally import moments_of
from tests.contract.experiments.scenario import EXPERIMENT, SECOND_US, Scenario, metric, plan
from tests.driver import Driver, Log
from tests.models import control

RANGES = {"hour": (0.0, 24.0), "o'clock": (-0.1, 0.7), "basket.value": (1 / 3, 1e9), "tiny": (-1e-300, 3e-300)}
LEARNS = Allocation(policy=Policy.LIN_TS, metric="m", features=RANGES)


def folded(s: Scenario) -> dict[tuple[int, str], Gram]:
    """What the stream makes of it."""
    log = Log(partitions=1)
    log.load(s.records)
    log.now_ms = log.last_ms
    fold = Fold()
    assert fold.observe(control(s.plan))
    driver = Driver(log, fold, (ASSIGNMENTS, OUTCOMES_BY_UNIT))
    driver.drain()
    sums = moments_of(EXPERIMENT, "m", driver.stores[0])
    return {(0, variant): from_gram_sums(told) for key, told in sums.items() if (variant := over_features(key)) is not None}


def test_the_batch_sums_over_features_are_those_of_the_stream(client: Client, analyst: Client) -> None:
    chance = random.Random(5)
    s = Scenario(client, plan(metric(role=Role.PRIMARY, resolution=0.01), unit=Unit.REQUEST, allocation=LEARNS))
    for number in range(400):
        features = {name: chance.uniform(2 * low - high, 2 * high - low) for name, (low, high) in RANGES.items()}
        if number % 10 == 0:
            features = {name: chance.choice((low, high, (low + high) / 2, -0.0, 1e308, -1e308)) for name, (low, high) in RANGES.items()}
        if number % 20 == 1:
            del features[chance.choice(sorted(features))]
        request = {"request_id": f"q{number}", "features": features}
        s.meets("u", chance.choice("ab"), number * SECOND_US, **request, override=number % 40 == 3, exposed=number % 40 != 4)
        if number % 30 == 5:
            s.meets("u", chance.choice("ab"), number * SECOND_US, request_id=f"q{number}", features={})
        if number % 3:
            s.happens("u", chance.gauss(0, 100), number * SECOND_US, request_id=f"q{number}")
    found = grams(client, s.as_of(), s.plan.metrics[0])
    assert found == folded(s)
    assert {key: one.n > 100 for key, one in found.items()} == {(0, "a"): True, (0, "b"): True}
    assert len(analyst.rows(grams_sql(s.as_of(), s.plan.metrics[0]))) == 2


def test_sums_over_features_are_of_a_contextual_policys_reward_alone(client: Client) -> None:
    s = Scenario(client, plan(metric(role=Role.PRIMARY), metric("other", kind=Kind.PROPORTION), unit=Unit.REQUEST, allocation=LEARNS))
    s.meets("u", features={name: high for name, (_, high) in RANGES.items()})
    as_of = s.as_of()
    assert grams(client, as_of, s.plan.metrics[0]) == {(0, "a"): Gram.of([1_000_000] * 4, 0)}
    assert grams(client, as_of, s.plan.metrics[1]) == {}
    by_all = replace(s.plan, allocation=replace(LEARNS, policy=Policy.THOMPSON))
    assert grams(client, replace(as_of, plan=by_all), s.plan.metrics[0]) == {}
