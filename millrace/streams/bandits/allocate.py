"""From exact sums per arm to the weights that are published: Thompson sampling, upper confidence bounds, epsilon-greedy.

Each method is a function of its arms' posterior means and standard deviations. The unit of analysis is the request, its value the reward,
and more of it is better. An arm with fewer requests than ``minimal`` is given an equal share, 1 / k; the others divide what is left by the
method. So a new experiment begins uniform, and an arm that is added later neither starves nor stops what the others have learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import Kind, Moments
from millrace.streams.bandits.best_arm import best_arm_probabilities, best_beta
from millrace.streams.bandits.floor import floored
from millrace.streams.stats.summary import Summary, of_moments

MINIMAL = 30
"""Requests after which the mean of an arm is taken for normal."""


class Prior(Struct, frozen=True, kw_only=True):
    """What is believed of every arm before its first request, weak so that a few requests outweigh it.

    ``successes`` and ``failures`` are a proportion's Beta; ``requests`` is how many requests the prior of a mean counts for, with the arms'
    pooled mean and variance where ``mean`` and ``variance`` are not stated: an arm whose rewards were all equal keeps an uncertainty.
    """

    requests: float = 1.0
    mean: float | None = None
    variance: float | None = None
    successes: float = 1.0
    failures: float = 1.0


class Settings(Struct, frozen=True, kw_only=True):
    """How rewards are read, and what every method keeps to. ``resolution`` is the reward's step, ``floor`` the least share of an arm."""

    kind: Kind = Kind.MEAN
    resolution: float = 1e-6
    floor: float = 0.01
    minimal: int = MINIMAL
    prior: Prior = Prior()


class Posterior(Struct, frozen=True):
    """What is believed of one arm's mean reward. ``successes`` and ``failures`` are its Beta, of a proportion only."""

    n: int
    mean: float
    std: float
    successes: float = 0.0
    failures: float = 0.0


def thompson(arms: Sequence[Moments], settings: Settings) -> list[float]:
    """Each arm's probability of being the best (Thompson 1933; Chapelle & Li 2011), floored. Raises UsageError for what cannot be a reward.

    >>> no, yes = Moments.of(0), Moments.of(1)
    >>> weights = thompson([no + no, no + yes, yes + yes], Settings(kind=Kind.PROPORTION, resolution=1, minimal=2, floor=0.0))
    >>> [round(weight, 6) for weight in weights]
    [0.029762, 0.190476, 0.779762]
    """

    def weigh(held: Sequence[Posterior]) -> list[float]:
        if settings.kind is Kind.PROPORTION:
            return best_beta([arm.successes for arm in held], [arm.failures for arm in held])
        return best_arm_probabilities([arm.mean for arm in held], [arm.std for arm in held])

    return _weights(arms, settings, weigh)


def ucb(arms: Sequence[Moments], settings: Settings, width: float = 1.0) -> list[float]:
    """Everything above the floor to the arm with the highest mean + width std sqrt(2 ln N), std of the mean, N all arms' requests.

    UCB1's bound scaled by the arm's own spread (Auer, Cesa-Bianchi & Fischer 2002, UCB1-NORMAL, whose width is sqrt(8)).
    Raises UsageError for what cannot be a reward, or a width that is negative or not finite.
    """
    if not (math.isfinite(width) and width >= 0):
        raise UsageError(f"the width of an upper confidence bound must be finite and at least 0, not {width}")

    def weigh(held: Sequence[Posterior]) -> list[float]:
        reach = width * math.sqrt(2 * math.log(max(2, sum(arm.n for arm in held))))
        return _largest([arm.mean + reach * arm.std for arm in held])

    return _weights(arms, settings, weigh)


def epsilon_greedy(arms: Sequence[Moments], settings: Settings, epsilon: float = 0.1) -> list[float]:
    """``epsilon`` evenly to all, the rest to the best mean (Sutton & Barto 2018, section 2.2), floored.

    Raises UsageError for what cannot be a reward, or an epsilon outside 0 to 1.
    """
    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon must be from 0 to 1, not {epsilon}")

    def weigh(held: Sequence[Posterior]) -> list[float]:
        return [epsilon / len(held) + (1 - epsilon) * share for share in _largest([arm.mean for arm in held])]

    return _weights(arms, settings, weigh)


def posteriors(arms: Sequence[Moments], settings: Settings) -> list[Posterior]:
    """Each arm's posterior: a proportion's is Beta, a mean's normal. Raises UsageError for another kind, or a prior that is none."""
    _check(settings.prior)
    summaries = [of_moments(arm, settings.resolution) for arm in arms]
    if settings.kind is Kind.PROPORTION:
        return [_beta(arm, settings.prior) for arm in summaries]
    if settings.kind is Kind.MEAN:
        mean, variance = _pooled(summaries, settings.prior)
        return [_normal(arm, settings.prior.requests, mean, variance) for arm in summaries]
    raise UsageError(f"a bandit's reward is a mean or a proportion over requests, not a {settings.kind.value}: choose such a metric")


def _weights(arms: Sequence[Moments], settings: Settings, weigh: Callable[[Sequence[Posterior]], list[float]]) -> list[float]:
    believed = posteriors(arms, settings)
    held = [i for i, arm in enumerate(arms) if arm.n >= settings.minimal]
    weights = [1 / len(arms)] * len(arms)
    if held:
        for i, share in zip(held, weigh([believed[i] for i in held]), strict=True):
            weights[i] = share * len(held) / len(arms)
    return floored(weights, settings.floor)


def _largest(values: list[float]) -> list[float]:
    """All to the largest; equal ones share it."""
    best = max(values)
    return [1 / values.count(best) if value == best else 0.0 for value in values]


def _check(prior: Prior) -> None:
    known = [value for value in (prior.requests, prior.mean, prior.variance) if value is not None]
    if not all(map(math.isfinite, known)) or prior.requests <= 0 or (prior.variance or 0.0) < 0:
        raise UsageError("a bandit's prior needs finite numbers, requests above 0 and a variance of at least 0")


def _beta(arm: Summary, prior: Prior) -> Posterior:
    if not 0 <= arm.mean <= 1:
        raise UsageError(f"a proportion is from 0 to 1, and an arm's is {arm.mean:.6g}: give the metric the kind mean")
    a = prior.successes + arm.n * arm.mean
    b = prior.failures + arm.n * (1 - arm.mean)
    total = a + b
    return Posterior(arm.n, a / total, math.sqrt(a * b / (total + 1)) / total, a, b)


def _pooled(arms: Sequence[Summary], prior: Prior) -> tuple[float, float]:
    """The prior's mean and variance of one reward: as stated, or the arms' pooled ones (empirical Bayes)."""
    n = sum(arm.n for arm in arms)
    degrees = sum(max(0, arm.n - 1) for arm in arms)
    mean = math.fsum(arm.total for arm in arms) / n if n else 0.0
    variance = math.fsum((arm.n - 1) * arm.variance for arm in arms if arm.n > 1) / degrees if degrees else 0.0
    return prior.mean if prior.mean is not None else mean, prior.variance if prior.variance is not None else variance


def _normal(arm: Summary, requests: float, mean: float, variance: float) -> Posterior:
    """The normal-inverse-chi-squared posterior of a mean (Gelman et al., Bayesian Data Analysis, 3rd ed., eq. 3.7-3.8), taken as normal."""
    weight = requests + arm.n
    shift = arm.mean - mean
    spread = requests * variance + max(0, arm.n - 1) * arm.variance + requests * arm.n / weight * shift * shift
    return Posterior(arm.n, mean + arm.n / weight * shift, math.sqrt(spread) / weight)
