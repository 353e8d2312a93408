"""Are an arm's weights what its posterior says, exactly and for any scale?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.special import ndtr

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import Kind, Moments
from millrace.streams.bandits.allocate import Prior, Settings, epsilon_greedy, posteriors, thompson, ucb
from millrace.streams.bandits.best_arm import FINE, QUICK, best_arm_probabilities, best_beta, best_normal
from millrace.streams.bandits.custom import allocate, checked
from millrace.streams.bandits.floor import UNITS, floored
from millrace.streams.stats.summary import Summary, of_moments

PROPORTION = Settings(kind=Kind.PROPORTION, resolution=1, minimal=0, floor=0.0)
MEAN = Settings(kind=Kind.MEAN, resolution=0.01, minimal=0, floor=0.0)


def rewards(*values: int) -> Moments:
    return sum((Moments.of(value) for value in values), Moments())


def successes(n: int, total: int) -> Moments:
    return Moments(n, total, total)


def test_of_two_normal_arms_it_is_the_closed_form() -> None:
    """Phi((m1 - m2) / sqrt(s1^2 + s2^2)), for scales that differ by up to a million."""
    rng = np.random.default_rng(7)
    means, stds = rng.normal(size=(2000, 2)), 10 ** rng.uniform(-6, 0, size=(2000, 2))
    expected = ndtr((means[:, 0] - means[:, 1]) / np.hypot(stds[:, 0], stds[:, 1]))
    for rule, tolerance in ((FINE, 1e-9), (QUICK, 2e-6)):
        assert np.abs(best_normal(means, stds, rule)[:, 0] - expected).max() < tolerance
    fine = best_arm_probabilities([0.3, 0.0], [0.5, 0.25])
    assert fine[0] == pytest.approx(float(ndtr(0.3 / math.hypot(0.5, 0.25))), abs=1e-14)


def test_of_five_normal_arms_it_is_what_draws_say() -> None:
    means, stds = [0.0, 0.4, 0.5, -1.0, 0.45], [1.0, 0.3, 0.05, 2.0, 0.2]
    draws = np.random.default_rng(8).normal(means, stds, size=(1_000_000, 5)).argmax(axis=1)
    drawn = np.bincount(draws, minlength=5) / len(draws)
    given = np.array(best_arm_probabilities(means, stds))
    assert np.all(np.abs(given - drawn) < 4.5 * np.sqrt(given * (1 - given) / len(draws)))
    assert np.abs(best_normal(np.array([means]), np.array([stds]), QUICK)[0] - given).max() < 1e-6


def test_three_equal_arms_and_a_point_between_have_known_shares() -> None:
    assert best_arm_probabilities([5.0] * 3, [2.0] * 3) == pytest.approx([1 / 3] * 3, abs=1e-14)
    below = float(ndtr(1.0))
    assert best_arm_probabilities([0.0, 1.0, 1.0], [1.0, 0.0, 0.0]) == pytest.approx([1 - below, below / 2, below / 2], abs=1e-8)
    assert best_arm_probabilities([3.0], [0.0]) == [1.0]


def test_points_alone_are_shared_by_the_largest() -> None:
    assert best_arm_probabilities([1.0, 4.0, 4.0, 2.0], [0.0] * 4) == pytest.approx([0.0, 0.5, 0.5, 0.0], abs=1e-15)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e9, 1e200])
def test_the_unit_of_the_reward_plays_no_part(scale: float) -> None:
    given = best_arm_probabilities([0.1 * scale, 0.3 * scale, 0.2 * scale], [0.1 * scale, 0.2 * scale, 0.0])
    assert given == pytest.approx(best_arm_probabilities([0.1, 0.3, 0.2], [0.1, 0.2, 0.0]), abs=1e-9)


@pytest.mark.parametrize(("means", "stds"), [([1.0], [1.0, 2.0]), ([], []), ([math.nan], [1.0]), ([1.0], [-1.0]), ([1.0], [math.inf])])
def test_what_is_no_posterior_is_refused(means: list[float], stds: list[float]) -> None:
    with pytest.raises(UsageError, match="one finite mean"):
        best_arm_probabilities(means, stds)


def second_beats_first(a1: int, b1: int, a2: int, b2: int) -> float:
    """P(Beta(a2, b2) > Beta(a1, b1)), the finite sum of Miller 2015, Formulas for Bayesian A/B Testing, eq. 6, by log-gamma."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return math.fsum(math.exp(log_beta(a1 + i, b1 + b2) - math.log(b2 + i) - log_beta(1 + i, b2) - log_beta(a1, b1)) for i in range(a2))


@pytest.mark.parametrize("counts", [(1, 1, 2, 1), (1, 40, 1, 1), (5, 100, 9, 90), (50, 1000, 60, 1000)])
def test_of_two_proportions_it_is_the_closed_form(counts: tuple[int, int, int, int]) -> None:
    a1, b1, a2, b2 = counts
    assert best_beta([a1, a2], [b1, b2])[1] == pytest.approx(second_beats_first(*counts), abs=1e-11)


def test_of_a_large_proportion_it_is_the_normals() -> None:
    """At 1e12 requests the normal is exact to 1e-6, and densities computed as a log x would be all rounding."""
    a, b, n = 5e11, 5e11 + 3e5, 1.5e12
    std = math.sqrt((1 / 3) * (2 / 3) / n)
    assert best_beta([a, b], [1e12, 1e12])[1] == pytest.approx(float(ndtr((b / (b + 1e12) - a / n) / (std * math.sqrt(2)))), abs=1e-5)


def test_of_five_proportions_it_is_what_draws_say() -> None:
    a, b = np.array([0.5, 3, 30, 2, 31]), np.array([0.5, 5, 50, 9, 49])
    draws = np.random.default_rng(9).beta(a, b, size=(500_000, 5)).argmax(axis=1)
    given = np.array(best_beta(a.tolist(), b.tolist()))
    assert np.all(np.abs(given - np.bincount(draws, minlength=5) / len(draws)) < 4.5 * np.sqrt(given * (1 - given) / len(draws)))
    with pytest.raises(UsageError, match=r"at least 0\.05"):
        best_beta([1.0, 0.0], [1.0, 1.0])


def test_thompson_is_the_best_arm_of_the_posteriors() -> None:
    assert thompson([successes(100, 10), successes(90, 12)], PROPORTION) == floored(best_beta([11, 13], [91, 79]), 0.0)
    arms = [rewards(100, 200, 400), rewards(300, 350, 500)]
    believed = posteriors(arms, MEAN)
    assert thompson(arms, MEAN) == floored(best_arm_probabilities([p.mean for p in believed], [p.std for p in believed]), 0.0)


def test_a_mean_is_shrunk_by_its_prior_and_no_more() -> None:
    """Numbers by hand: requests 2, mean 1, variance 4; rewards 2, 4: mean (2 + 6) / 4, spread 2 x 4 + 2 + (2 x 2 / 4) x (3 - 1)^2."""
    (believed,) = posteriors([rewards(2, 4)], Settings(resolution=1, prior=Prior(requests=2, mean=1, variance=4)))
    assert believed.mean == 2.0
    assert believed.std == pytest.approx(math.sqrt(14) / 4, abs=1e-15)


def test_an_arm_whose_rewards_were_all_equal_is_still_uncertain() -> None:
    never, sometimes = Moments(50, 0, 0), Moments(50, 500, 50_000)
    assert posteriors([never, sometimes], MEAN)[0].std > 0
    assert thompson([never, never], MEAN) == [0.5, 0.5]


def test_ucb_gives_all_above_the_floor_to_the_highest_bound() -> None:
    little, much = successes(10, 4), successes(1000, 450)
    assert ucb([little, much], PROPORTION, width=2.0)[0] > 0.99
    assert ucb([little, much], PROPORTION, width=0.0)[0] < 0.01
    with pytest.raises(UsageError, match="width"):
        ucb([little, much], PROPORTION, width=-1.0)


def test_epsilon_greedy_gives_all_an_even_share_of_epsilon() -> None:
    given = epsilon_greedy([successes(10, 1), successes(10, 5), successes(10, 5), successes(10, 0)], PROPORTION, epsilon=0.2)
    assert given == pytest.approx([0.05, 0.45, 0.45, 0.05], abs=1e-11)
    with pytest.raises(UsageError, match="epsilon"):
        epsilon_greedy([successes(10, 1)], PROPORTION, epsilon=1.5)


def test_arms_with_too_few_requests_have_an_equal_share_and_the_others_divide_the_rest() -> None:
    settings = Settings(kind=Kind.PROPORTION, resolution=1, minimal=20, floor=0.0)
    assert thompson([successes(19, 0), successes(3, 3), Moments()], settings) == pytest.approx([1 / 3] * 3, abs=1e-11)
    given = thompson([successes(20, 0), successes(1000, 999), successes(5, 0)], settings)
    assert given == pytest.approx([0.0, 2 / 3, 1 / 3], abs=1e-9)


def test_what_cannot_be_a_reward_is_refused() -> None:
    with pytest.raises(UsageError, match="not a ratio"):
        thompson([Moments.of(1)], Settings(kind=Kind.RATIO))
    with pytest.raises(UsageError, match="from 0 to 1"):
        thompson([Moments.of(2)], PROPORTION)
    with pytest.raises(UsageError, match="prior"):
        thompson([Moments.of(1)], Settings(prior=Prior(requests=0)))


def test_a_floor_is_added_and_the_sum_is_exactly_one() -> None:
    given = floored([0.7, 0.2, 0.1], 0.1)
    assert given == pytest.approx([0.59, 0.24, 0.17], abs=1e-11)
    assert math.fsum(given) == sum(given) == 1.0
    assert min(floored([1.0, 0.0, 0.0], 0.0)) == 1 / UNITS
    assert floored([1.0, 0.0, 0.0], 1 / 3) == pytest.approx([1 / 3] * 3, abs=1e-11)


@pytest.mark.parametrize("floor", [0.34, -0.1, math.nan])
def test_a_floor_that_cannot_be_given_is_refused(floor: float) -> None:
    with pytest.raises(UsageError, match="cannot be given to 3 arms"):
        floored([0.5, 0.25, 0.25], floor)


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (None, "returned NoneType"),
        ("01", "returned str"),
        ([0.5, "x"], "could not convert"),
        ([1.0], "returned 1"),
        ([0.5, math.nan], "returned nan"),
        ([1.5, -0.5], "returned -0.5"),
        ([0.5, 0.4], "sum to 0.9"),
    ],
)
def test_what_a_custom_policy_returns_is_checked(vector: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        checked(vector, 2)


def test_a_custom_policy_sees_its_arms_in_order_and_is_floored() -> None:
    seen: list[tuple[str, int]] = []

    def policy(arms: Mapping[str, Summary]) -> object:
        seen.extend((name, arm.n) for name, arm in arms.items())
        return np.array([0.0, 1.0])

    arms = {"b": of_moments(successes(3, 1)), "a": of_moments(successes(5, 1))}
    assert allocate(policy, arms, 0.25) == [0.25, 0.75]
    assert seen == [("b", 3), ("a", 5)]
