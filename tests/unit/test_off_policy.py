"""Does the log say what another policy would have earned, and is poor overlap refused?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from millrace.schemas.evidence import CannotTell, Moments
from millrace.streams.off_policy.estimate import Estimate, Method, direct, doubly_robust, ips, snips, switch
from millrace.streams.off_policy.log import Logged, Predicted, of_arms, of_records, predicted
from millrace.streams.off_policy.overlap import Overlap, Terms, overlap
from millrace.streams.stats.sequence import half_width
from millrace.streams.stats.summary import of_moments

SMALL = Terms(least_effective=2.0, most_share=0.9)
"""Terms under which five records suffice, so that numbers can be worked out by hand."""

REWARDS = np.array([1.0, 0.0, 2.0, 1.0, 0.0])
PROPENSITIES = np.array([0.5, 0.5, 0.25, 0.25, 0.5])
TARGETS = np.array([0.25, 0.75, 0.5, 0.25, 0.25])
HAND = of_records(REWARDS, PROPENSITIES, TARGETS)
"""Weights 1/2, 3/2, 2, 1, 1/2: their sum is 5.5, of their squares 7.75, of w r 5.5."""
MODEL = Predicted(logged=np.array([0.5, 0.5, 1.0, 1.0, 0.5]), policy=np.array([0.6, 0.6, 0.8, 0.8, 0.7]))


def seen(log: Logged) -> Overlap:
    found = overlap(log)
    assert isinstance(found, Overlap)
    return found


def told(found: Estimate | CannotTell) -> Estimate:
    assert isinstance(found, Estimate), found
    return found


def refused(found: Any) -> str:
    assert isinstance(found, CannotTell)
    return found.reason


def uniform(seed: int, n: int, k: int = 3) -> tuple[Logged, Predicted]:
    """A log of n records of a skewed policy over k actions, for the uniform policy, with a model that is off by a constant."""
    draw = np.random.default_rng(seed)
    chances = draw.dirichlet(np.full(k, 4.0), n) * 0.85 + 0.05
    actions = (draw.random(n)[:, None] > chances.cumsum(axis=1)).sum(axis=1)
    truth = draw.random((n, k))
    rewards = (draw.random(n) < np.take_along_axis(truth, actions[:, None], 1)[:, 0]).astype(float)
    taken = np.take_along_axis(chances, actions[:, None], 1)[:, 0]
    model = predicted(truth + 0.1, np.full((n, k), 1.0 / k), actions)
    return of_records(rewards, taken, np.full(n, 1.0 / k)), model


def test_inverse_propensity_scoring_by_hand() -> None:
    found = told(ips(HAND, SMALL))
    values = [0.5, 0.0, 4.0, 1.0, 0.0]
    error = math.sqrt(sum((value - 1.1) ** 2 for value in values) / 4 / 5)
    assert found.value == pytest.approx(5.5 / 5)
    assert found.std_error == pytest.approx(error)
    half = half_width(error, 5, 0.05, 5000.0)
    assert found.interval == pytest.approx((1.1 - half, 1.1 + half))
    assert (found.method, found.n, found.model_share) == (Method.IPS, 5, 0.0)


def test_self_normalised_by_hand() -> None:
    found = told(snips(HAND, SMALL))
    influence = [w * (r - 1.0) / 1.1 for w, r in zip([0.5, 1.5, 2.0, 1.0, 0.5], REWARDS, strict=True)]
    middle = sum(influence) / 5
    assert found.value == pytest.approx(5.5 / 5.5)
    assert found.std_error == pytest.approx(math.sqrt(sum((one - middle) ** 2 for one in influence) / 4 / 5))


def test_the_direct_method_by_hand() -> None:
    found = told(direct(HAND, MODEL, SMALL))
    assert found.value == pytest.approx(0.7)
    assert found.std_error == pytest.approx(math.sqrt(0.04 / 4 / 5))
    assert found.model_share == 1.0


def test_doubly_robust_by_hand() -> None:
    # 0.6 + 0.5*0.5, 0.6 - 1.5*0.5, 0.8 + 2*1, 0.8 + 0, 0.7 - 0.5*0.5
    assert told(doubly_robust(HAND, MODEL, SMALL)).value == pytest.approx((0.85 - 0.15 + 2.8 + 0.8 + 0.45) / 5)


def test_switch_by_hand() -> None:
    # above 1 the model alone: 0.85, 0.6, 0.8, 0.8, 0.45; the kept weights are 0.5, 1, 0.5
    found = told(switch(HAND, MODEL, 1.0, SMALL))
    assert found.value == pytest.approx((0.85 + 0.6 + 0.8 + 0.8 + 0.45) / 5)
    assert found.model_share == pytest.approx(1.0 - 2.0 / 5)


def test_switch_is_doubly_robust_without_a_threshold_and_the_model_at_nought() -> None:
    log, model = uniform(1, 500)
    assert told(switch(log, model, math.inf)).value == told(doubly_robust(log, model)).value
    assert told(switch(log, model, 0.0)).value == told(direct(log, model)).value


def test_the_running_policy_itself_is_worth_its_mean_reward() -> None:
    rewards = np.random.default_rng(2).random(400)
    log = of_records(rewards, np.full(400, 0.3), np.full(400, 0.3))
    for found in (told(ips(log)), told(snips(log))):
        assert found.value == pytest.approx(rewards.mean())
        assert found.std_error == pytest.approx(rewards.std(ddof=1) / 20)
    assert seen(log).effective_size == pytest.approx(400)


def test_a_shift_of_all_rewards_shifts_the_self_normalised_value_alone_exactly() -> None:
    log, _ = uniform(3, 2000)
    moved = Logged(log.counts, log.means + 100.0, log.variances, log.weights)
    assert told(snips(moved)).value == pytest.approx(told(snips(log)).value + 100.0, rel=1e-12)
    assert abs(told(ips(moved)).value - told(ips(log)).value - 100.0) > 1e-3


def test_the_order_of_records_never_matters() -> None:
    log, model = uniform(4, 3000)
    order = np.random.default_rng(5).permutation(3000)
    other = Logged(*(one[order] for one in (log.counts, log.means, log.variances, log.weights)))
    turned = Predicted(model.logged[order], model.policy[order])
    assert ips(other) == ips(log)
    assert snips(other) == snips(log)
    assert doubly_robust(other, turned) == doubly_robust(log, model)
    assert switch(other, turned, 1.5) == switch(log, model, 1.5)


def test_exact_moments_of_each_arm_say_the_same_as_the_records() -> None:
    draw = np.random.default_rng(6)
    arms, targets = draw.choice(3, 900, p=[0.2, 0.5, 0.3]), np.array([0.4, 0.35, 0.25])
    steps = draw.integers(0, 50, 900)
    moments = [sum((Moments.of(int(step)) for step in steps[arms == arm]), Moments()) for arm in range(3)]
    records = of_records(steps * 0.01, np.array([0.2, 0.5, 0.3])[arms], targets[arms])
    cells = of_arms([of_moments(one, 0.01) for one in moments], [0.2, 0.5, 0.3], targets.tolist())
    assert cells.n == records.n == 900
    for method in (ips, snips):
        by_record, by_arm = told(method(records)), told(method(cells))
        assert by_arm.value == pytest.approx(by_record.value, rel=1e-12)
        assert by_arm.std_error == pytest.approx(by_record.std_error, rel=1e-12)
    assert seen(cells).effective_size == pytest.approx(seen(records).effective_size, rel=1e-12)


def test_a_model_that_knows_everything_leaves_no_noise_from_weights() -> None:
    draw = np.random.default_rng(7)
    means, actions = draw.random((1000, 2)), draw.integers(0, 2, 1000)
    targets = np.tile([0.2, 0.8], (1000, 1))
    log = of_records(means[np.arange(1000), actions], np.full(1000, 0.5), targets[np.arange(1000), actions])
    model = predicted(means, targets, actions)
    assert told(doubly_robust(log, model)).value == pytest.approx(told(direct(log, model)).value, rel=1e-12)
    assert told(doubly_robust(log, model)).std_error < told(ips(log)).std_error * 0.6


def test_the_overlap_by_hand() -> None:
    found = seen(HAND)
    assert (found.largest_weight, found.support_share) == (2.0, 1.0)
    assert (found.effective_size, found.largest_share, found.mean_weight) == pytest.approx((5.5**2 / 7.75, 2 / 5.5, 1.1))


def test_a_policy_that_the_log_never_followed_is_refused() -> None:
    log = of_records(np.ones(500), np.full(500, 0.5), np.zeros(500))
    for found in (overlap(log), ips(log), snips(log)):
        assert "no action that the policy would take" in refused(found)


def test_half_the_policy_outside_the_log_is_refused_with_its_share() -> None:
    # the log drew arms 0 and 1 evenly; the policy takes arm 2, which never ran, half of the time
    log = of_records(np.arange(1000) % 7 / 7, np.full(1000, 0.5), np.where(np.arange(1000) % 2, 0.3, 0.2))
    assert "no support for about 50.0% of the policy's actions" in refused(ips(log))
    assert "100.0% of records with support" in refused(ips(log))


def test_propensities_that_are_too_small_are_told() -> None:
    log = of_records(np.arange(1000) % 7 / 7, np.full(1000, 0.25), np.where(np.arange(1000) % 2, 0.6, 0.4))
    assert "propensities are too small" in refused(snips(log))


def test_one_record_with_a_tiny_propensity_is_refused_but_the_switch_stands() -> None:
    log, model = uniform(8, 5000)
    weights = log.weights.copy()
    weights[17] = 1e6 / 3
    spoilt = Logged(log.counts, log.means, log.variances, weights)
    reason = refused(ips(spoilt))
    assert "effective sample size is below 100" in reason
    assert "largest weight 3.333e+05" in reason
    assert refused(doubly_robust(spoilt, model)) == reason
    assert "one record has more than" in refused(ips(spoilt, Terms(least_effective=1.0)))
    found = told(switch(spoilt, model, 5.0))
    assert found.overlap == seen(spoilt)
    assert found.model_share < 0.3
    assert "lower tau" in refused(switch(spoilt, model, math.inf))


def test_few_records_and_rewards_that_do_not_vary_give_no_number() -> None:
    log, model = uniform(9, 99)
    for found in (ips(log), snips(log), direct(log, model), doubly_robust(log, model), switch(log, model, 2.0)):
        assert "99 records are too few" in refused(found)
    same = of_records(np.full(201, 0.1), np.full(201, 0.3), np.full(201, 0.3))
    for found in (ips(same), snips(same)):
        assert "does not vary" in refused(found)


@pytest.mark.parametrize(
    ("rewards", "propensities", "targets", "says"),
    [
        ([1.0], [0.5, 0.5], [0.5], "alike"),
        ([math.nan], [0.5], [0.5], "not finite"),
        ([1.0], [0.0], [0.5], "above 0"),
        ([1.0], [math.nan], [0.5], "above 0"),
        ([1.0], [1.5], [0.5], "at most 1"),
        ([1.0], [0.5], [-0.1], "between 0 and 1"),
    ],
)
def test_an_impossible_log_is_told(rewards: list[float], propensities: list[float], targets: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        of_records(np.array(rewards), np.array(propensities), np.array(targets))


@pytest.mark.parametrize(
    ("predictions", "targets", "actions", "says"),
    [
        ([[1.0, 2.0]], [[1.0]], [0], "alike"),
        ([[1.0, 2.0]], [[0.5, 0.5]], [2], "outside the 2"),
        ([[1.0, 2.0]], [[0.5, 0.4]], [0], "sum to 1"),
        ([[1.0, math.inf]], [[0.5, 0.5]], [0], "finite"),
    ],
)
def test_an_impossible_model_is_told(predictions: Any, targets: Any, actions: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        predicted(np.array(predictions), np.array(targets), np.array(actions))


def test_a_model_needs_the_log_record_by_record() -> None:
    cells = of_arms([of_moments(Moments.of(1) + Moments.of(0))], [0.5], [0.5])
    with pytest.raises(ValueError, match="record by record"):
        doubly_robust(cells, Predicted(np.ones(1), np.ones(1)))
    with pytest.raises(ValueError, match="tau"):
        switch(HAND, MODEL, math.nan, SMALL)
