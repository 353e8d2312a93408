"""Do bandits earn more than an even split, and do their logged propensities undo the selection that they made?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.policy_state import Feature, Gram, Method
from millrace.streams.bandits.allocate import Settings, epsilon_greedy, thompson, ucb
from millrace.streams.bandits.contextual import Contextual
from millrace.streams.bandits.ranges import Ranges
from millrace.streams.bandits.ridge import ContextualSettings, learnt

RATES = np.array([0.10, 0.12, 0.16])
ROUNDS, REQUESTS = 100, 200
SETTINGS = Settings(kind=Kind.PROPORTION, resolution=1, floor=0.02)
COEFFICIENTS = np.array([[0.2, 1.0, 0.0], [0.2, -1.0, 0.0], [0.3, 0.0, 0.6]])
FEATURES = (Feature(name="a", low=-3, high=3), Feature(name="b", low=-3, high=3))


def play(
    method: Callable[[list[Moments], Settings], list[float]], seed: int
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Regret per request of one run in rounds, and each arm's IPS estimate with its standard error."""
    rng = np.random.default_rng(seed)
    arms, regret = [Moments()] * len(RATES), 0.0
    totals, squares = np.zeros(len(RATES)), np.zeros(len(RATES))
    for _ in range(ROUNDS):
        weights = np.array(method(arms, SETTINGS))
        given = rng.multinomial(REQUESTS, weights)
        won = rng.binomial(given, RATES)
        arms = [arm + Moments(n, y, y) for arm, n, y in zip(arms, given.tolist(), won.tolist(), strict=True)]
        regret += float(given @ (RATES.max() - RATES))
        totals += won / weights
        squares += won / weights**2
    n = ROUNDS * REQUESTS
    estimates = totals / n
    return regret / n, estimates, np.sqrt(squares / n - estimates**2) / np.sqrt(n)


@pytest.mark.parametrize("method", [thompson, ucb, epsilon_greedy])
def test_a_bandit_regrets_less_than_a_third_of_an_even_split(method: Callable[[list[Moments], Settings], list[float]]) -> None:
    """The mean of 8 seeded runs; an even split regrets (0.06 + 0.04 + 0) / 3 of each request."""
    even = float((RATES.max() - RATES).mean())
    assert np.mean([play(method, seed)[0] for seed in range(8)]) < even / 3


def test_propensities_recover_the_true_means_that_the_bandit_hid() -> None:
    """IPS per arm over 12 runs: unbiased (within 4 standard errors of the whole), whichever arm was starved; raw arm means are not used."""
    runs = [play(thompson, 100 + seed) for seed in range(12)]
    estimates = np.mean([run[1] for run in runs], axis=0)
    errors = np.sqrt(np.sum([run[2] ** 2 for run in runs], axis=0)) / len(runs)
    assert np.all(np.abs(estimates - RATES) < 4 * errors)
    assert np.all(errors < 0.01)


def play_context(method: Method, exploration: float, seed: int) -> tuple[float, npt.NDArray[np.float64]]:
    """Regret per request of one run, and how far IPS puts each arm's mean from the truth, COEFFICIENTS[:, 0], in standard errors."""
    rng = np.random.default_rng(seed)
    ranges = Ranges(FEATURES)
    arms, regret, terms = [Gram.zero(2)] * 3, 0.0, []
    chosen = ContextualSettings(method=method, features=FEATURES, exploration=exploration, resolution=0.001, floor=0.02)
    for _ in range(25):
        values = rng.uniform(-1, 1, size=(REQUESTS, 2))
        shares = Contextual(learnt(arms, chosen)).probabilities(values)
        given = (rng.random((REQUESTS, 1)) > np.cumsum(shares, axis=1)).sum(axis=1)
        means = np.column_stack([np.ones(REQUESTS), values]) @ COEFFICIENTS.T
        rewards = means[np.arange(REQUESTS), given] + rng.normal(scale=0.5, size=REQUESTS)
        regret += float((means.max(axis=1) - means[np.arange(REQUESTS), given]).sum())
        terms.append(np.eye(3)[given] * (rewards / shares[np.arange(REQUESTS), given])[:, None])
        for arm, x, reward in zip(given.tolist(), ranges.whole_steps(values), np.rint(rewards * 1000).astype(int).tolist(), strict=True):
            arms[arm] = arms[arm] + Gram.of(x, reward)
    every = np.concatenate(terms)
    return regret / len(every), (every.mean(axis=0) - COEFFICIENTS[:, 0]) / (every.std(axis=0) / np.sqrt(len(every)))


@pytest.mark.parametrize(("method", "exploration"), [(Method.LIN_TS, 0.5), (Method.SQUARE_CB, 1.0), (Method.EPSILON_GREEDY, 0.1)])
def test_a_contextual_policy_regrets_less_than_a_fifth_of_an_even_split(method: Method, exploration: float) -> None:
    """An even split regrets E[max_a x'theta_a - mean_a x'theta_a], here by a million draws; the exact propensities undo the selection."""
    x = np.column_stack([np.ones(1_000_000), np.random.default_rng(1).uniform(-1, 1, size=(1_000_000, 2))]) @ COEFFICIENTS.T
    even = float((x.max(axis=1) - x.mean(axis=1)).mean())
    runs = [play_context(method, exploration, seed) for seed in range(3)]
    assert np.mean([regret for regret, _ in runs]) < even / 5
    assert max(np.abs(off).max() for _, off in runs) < 4.5
