"""Off-policy evaluation of fixed chances: the known value is found, and what the log cannot bear is refused."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.infra.clickhouse.experiments.logged import Decision
from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell
from millrace.streams.off_policy.estimate import Estimate
from millrace.streams.off_policy.evaluation import estimates, target_of
from millrace.streams.off_policy.overlap import Terms

NAMES = ("ips", "snips", "direct", "doubly_robust", "switch")


def decisions(n: int, chance_b: float, *, seed: int = 1) -> list[Decision]:
    """Decisions of a policy that takes b with this chance; a earns 1 in ten times, b in three."""
    chance = np.random.default_rng(seed)
    b, won = chance.random(n) < chance_b, chance.random(n)
    return [
        Decision("b" if taken else "a", chance_b if taken else 1 - chance_b, float(draw < (0.3 if taken else 0.1)), number % 5)
        for number, (taken, draw) in enumerate(zip(b, won, strict=True))
    ]


@pytest.mark.parametrize(("target", "value"), [({"a": 0.5, "b": 0.5}, 0.2), ({"a": 0.0, "b": 1.0}, 0.3), ({"a": 0.9, "b": 0.1}, 0.12)])
def test_every_estimator_finds_the_known_value(target: dict[str, float], value: float) -> None:
    found = estimates(decisions(20_000, 0.3), target, Terms())
    assert tuple(found) == NAMES
    for one in found.values():
        assert isinstance(one, Estimate)
        assert one.interval[0] < value < one.interval[1]
        assert one.value == pytest.approx(value, abs=0.02)


def test_poor_overlap_is_refused_with_the_reason() -> None:
    found = estimates(decisions(2_000, 0.005), {"a": 0.0, "b": 1.0}, Terms())
    for name in ("ips", "snips", "doubly_robust"):
        told = found[name]
        assert isinstance(told, CannotTell)
        assert "poor overlap" in told.reason


def by_context(n: int, floor: float) -> list[Decision]:
    """Decisions of a policy that gives each arm to those of whom it knows that they pay for it: 0.6 where it is better, 0.2 where not."""
    chance = np.random.default_rng(3)
    evening, draw, won = chance.random(n) < 0.3, chance.random(n), chance.random(n)
    b = draw < np.where(evening, 1 - floor, floor)
    given = np.where(b == evening, 1 - floor, floor)
    return [
        Decision("b" if taken else "a", float(share), float(pay < (0.6 if taken == late else 0.2)), number % 5)
        for number, (taken, share, pay, late) in enumerate(zip(b, given, won, evening, strict=True))
    ]


@pytest.mark.parametrize(
    ("target", "value"), [({"a": 0.5, "b": 0.5}, 0.4), ({"a": 0.0, "b": 1.0}, 0.2 + 0.3 * 0.4), ({"a": 1.0, "b": 0.0}, 0.2 + 0.7 * 0.4)]
)
def test_a_log_of_a_contextual_policy_is_undone_by_its_propensities(target: dict[str, float], value: float) -> None:
    log = by_context(20_000, 0.05)
    found = estimates(log, target, Terms(), tau=25.0, by_context=True)
    for name in ("ips", "snips", "doubly_robust", "switch"):
        one = found[name]
        assert isinstance(one, Estimate)
        assert one.interval[0] < value < one.interval[1]
        assert one.value == pytest.approx(value, abs=0.03)
    blind = estimates(log, target, Terms())["direct"]
    assert isinstance(blind, Estimate)
    assert blind.interval[0] > value + 0.05


def test_what_rests_on_the_arms_means_is_refused_of_a_contextual_policy() -> None:
    found = estimates(by_context(20_000, 0.05), {"a": 0.0, "b": 1.0}, Terms(), by_context=True)
    for name, said in (("direct", "the policy chose by context"), ("switch", "some records weigh more than tau, 10")):
        told = found[name]
        assert isinstance(told, CannotTell)
        assert said in told.reason
    narrow = estimates(by_context(2_000, 0.001), {"a": 0.5, "b": 0.5}, Terms(), by_context=True)
    for name in ("ips", "snips", "doubly_robust"):
        told = narrow[name]
        assert isinstance(told, CannotTell)
        assert "poor overlap" in told.reason


def test_an_arm_that_was_never_taken_has_no_model() -> None:
    found = estimates(decisions(2_000, 0.5), {"a": 0.5, "b": 0.25, "c": 0.25}, Terms())
    told = found["direct"]
    assert isinstance(told, CannotTell)
    assert "too few decisions" in told.reason
    unused = estimates(decisions(2_000, 0.5), {"a": 0.5, "b": 0.5, "c": 0.0}, Terms())
    assert isinstance(unused["direct"], Estimate)


def test_no_decision_is_no_estimate() -> None:
    (told,) = estimates([], {"a": 1.0}, Terms()).values()
    assert isinstance(told, CannotTell)


def test_targets_are_probabilities_of_the_plans_variants() -> None:
    assert target_of(["a", "b"], None) == {"a": 0.5, "b": 0.5}
    assert target_of(["a", "b"], {"b": 1.0}) == {"a": 0.0, "b": 1.0}
    with pytest.raises(UsageError, match="'c', which is none of a, b"):
        target_of(["a", "b"], {"c": 1.0})
    for wrong in ({"a": 0.4}, {"a": -0.5, "b": 1.5}):
        with pytest.raises(UsageError, match="sum to 1"):
            target_of(["a", "b"], wrong)
