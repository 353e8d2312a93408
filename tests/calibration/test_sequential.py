"""Looking often: do the sequential tests keep their level, and does the naive one lose it?

The rates that are held against alpha have a Monte-Carlo error (three standard deviations) of at most ``ERROR``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from millrace.streams.off_policy.estimate import Estimate, direct, doubly_robust, ips, snips, switch
from millrace.streams.off_policy.log import Logged, Predicted, of_records, predicted
from millrace.streams.stats import msprt, sequence, sequential_ratio
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.group_sequential import Spending, boundaries, classical, crossing

RUNS, LOOKS, A_DAY = 2000, 30, 500
ERROR = 3.0 * math.sqrt(0.05 * 0.95 / RUNS)
"""0.0146."""
Floats = npt.NDArray[np.float64]


def unit(effect: float, std_error: float, n: int) -> Effect:
    return Effect(
        effect=effect,
        std_error=std_error,
        n=n,
        degrees=n - 2.0,
        control_mean=0.0,
        treatment_mean=effect,
        difference=Difference.ABSOLUTE,
    )


def daily(seed: int, lift: float) -> tuple[Floats, Floats]:
    """Effects and standard errors (runs, looks) of a conversion rate of a tenth, looked at daily."""
    draw = np.random.default_rng(seed)
    n = A_DAY * np.arange(1, LOOKS + 1)
    control, treatment = (draw.binomial(A_DAY, p, (RUNS, LOOKS)).cumsum(axis=1) / n for p in (0.1, 0.1 + lift))
    error = np.sqrt((control * (1 - control) + treatment * (1 - treatment)) / (n - 1))
    return treatment - control, error


def looks(effects: Floats, errors: Floats) -> Iterator[list[Effect]]:
    """Each run's looks."""
    for row, column in zip(effects.tolist(), errors.tolist(), strict=True):
        yield [unit(row[day], column[day], 2 * A_DAY * (day + 1)) for day in range(LOOKS)]


def always_valid(run: list[Effect]) -> float:
    found = [sequence.always_valid(one) for one in run]
    return min(one.p_value for one in found if isinstance(one, sequence.AlwaysValid))


def mixture(run: list[Effect]) -> float:
    found = [msprt.log_evalue(one, 0.01) for one in run]
    return msprt.p_value(max(one for one in found if isinstance(one, float)))


def rejected(seed: int, lift: float) -> tuple[float, float, float]:
    """The shares of runs that the naive test, the confidence sequence and the mixture test reject at some look."""
    effects, errors = daily(seed, lift)
    naive = (np.abs(effects / errors) > 1.959964).any(axis=1).mean()
    p = [(always_valid(run), mixture(run)) for run in looks(effects, errors)]
    return float(naive), float(np.mean([one < 0.05 for one, _ in p])), float(np.mean([one < 0.05 for _, one in p]))


def test_thirty_looks_at_nothing() -> None:
    naive, valid, mixed = rejected(1, 0.0)
    assert naive > 0.20
    assert valid <= 0.05
    assert mixed <= 0.05


def test_thirty_looks_at_something() -> None:
    # two points on a tenth: a level that was kept by never rejecting would show here
    _, valid, mixed = rejected(2, 0.02)
    assert valid > 0.9
    assert mixed > 0.9


def test_the_sequence_covers_the_effect_at_all_looks_together() -> None:
    effects, errors = daily(3, 0.02)
    halves = np.array([sequence.half_width(1.0, 2 * A_DAY * (day + 1), 0.05, 5000.0) for day in range(LOOKS)])
    missed = (np.abs(effects - 0.02) > halves * errors).any(axis=1).mean()
    assert missed <= 0.05


def guardrail(drift: float) -> float:
    """How many runs a guardrail with the limit -0.2 standard deviations stops, looked at after every one of 10,000 units."""
    n = np.arange(1, 10_001)
    bounds = np.array([guarded(int(one)) for one in n])
    draw = np.random.default_rng(4)
    stopped = 0
    for _ in range(10):
        sums = draw.standard_normal((200, n.size)).cumsum(axis=1)
        stopped += int(((sums / n + drift) * np.sqrt(n) < -0.2 * np.sqrt(n) - bounds).any(axis=1).sum())
    return stopped / RUNS


def guarded(n: int) -> float:
    """How many standard errors below the limit an estimate must lie to show harm."""
    found = sequence.one_sided(unit(0.0, 1.0, max(2, n)), sequence.Side.UPPER)
    assert isinstance(found, sequence.OneSided)
    return found.bound


def test_a_guardrail_at_its_limit_keeps_its_level_under_continuous_looking() -> None:
    at_limit = guardrail(-0.2)
    assert at_limit <= 0.05 + ERROR
    assert at_limit > 0.01


def test_a_guardrail_stops_harm_and_leaves_the_harmless() -> None:
    assert guardrail(-0.3) > 0.99
    assert guardrail(0.0) == 0.0


def walks(seed: int, fractions: list[float]) -> Floats:
    """z (100,000, looks) of a Brownian motion."""
    steps = np.sqrt(np.diff([0.0, *fractions]))
    z: Floats = (np.random.default_rng(seed).standard_normal((100_000, len(fractions))) * steps).cumsum(axis=1) / np.sqrt(fractions)
    return z


@pytest.mark.parametrize("spending", list(Spending))
@pytest.mark.parametrize("fractions", [[0.2, 0.4, 0.6, 0.8, 1.0], [0.1, 0.15, 0.7, 0.95, 1.0]], ids=["even", "uneven"])
def test_planned_looks_keep_their_level(spending: Spending, fractions: list[float]) -> None:
    z = np.abs(walks(5, fractions))
    for limits in (boundaries(fractions, 0.05, spending), classical(fractions, 0.05, spending)):
        # three standard deviations of 100,000 runs
        assert (z >= limits).any(axis=1).mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 1e5))


def test_planned_looks_have_the_power_that_the_recursion_says() -> None:
    fractions = [0.1, 0.15, 0.7, 0.95, 1.0]
    limits = boundaries(fractions, 0.05, Spending.OBRIEN_FLEMING)
    z = walks(6, fractions) + 3.0 * np.sqrt(fractions)
    expected = crossing(fractions, limits, 3.0).sum()
    assert (np.abs(z) >= limits).any(axis=1).mean() == pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / 1e5))


def mismatched(seed: int, drawn: list[float], concentration: float) -> float:
    """How many of 1,000 runs find another ratio than 5 : 3 : 2 at some of 100 looks, 200 units apart, at the level 0.05."""
    counts = np.random.default_rng(seed).multinomial(200, drawn, (1000, 100)).cumsum(axis=1).tolist()
    highest = [max(sequential_ratio.log_bayes_factor(look, [5, 3, 2], concentration) for look in run) for run in counts]
    return float(np.mean([sequential_ratio.p_value(one) < 0.05 for one in highest]))


def test_the_sequential_sample_ratio_keeps_its_level() -> None:
    assert mismatched(7, [0.5, 0.3, 0.2], sequential_ratio.CONCENTRATION) <= 0.05
    assert 0.001 < mismatched(8, [0.5, 0.3, 0.2], 100.0) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_the_sequential_sample_ratio_finds_a_mismatch() -> None:
    assert mismatched(9, [0.48, 0.31, 0.21], sequential_ratio.CONCENTRATION) > 0.9


CONTEXTS, ACTIONS, RECORDS, LOGS = 5, 4, 4000, 120
WORLD = np.random.default_rng(10)
REWARD = WORLD.uniform(0.05, 0.6, (CONTEXTS, ACTIONS))
LOGGING = WORLD.dirichlet(np.full(ACTIONS, 1.5), CONTEXTS) * 0.8 + 0.05
TARGET = WORLD.dirichlet(np.full(ACTIONS, 1.0), CONTEXTS)
TRUTH = float((REWARD * TARGET).sum(axis=1).mean())
WRONG = REWARD[:, ::-1] * 0.5
"""A model that has learnt nothing right."""


def log(draw: np.random.Generator) -> tuple[Logged, Predicted, Predicted]:
    """A log of known truth, with a right and a wrong model's predictions."""
    x = draw.integers(0, CONTEXTS, RECORDS)
    actions = (draw.random(RECORDS)[:, None] > LOGGING[x].cumsum(axis=1)).sum(axis=1)
    rewards = (draw.random(RECORDS) < REWARD[x, actions]).astype(float)
    logged = of_records(rewards, LOGGING[x, actions], TARGET[x, actions])
    return logged, predicted(REWARD[x], TARGET[x], actions), predicted(WRONG[x], TARGET[x], actions)


def first(given: Logged, model: Predicted, n: int) -> tuple[Logged, Predicted]:
    return (
        Logged(given.counts[:n], given.means[:n], given.variances[:n], given.weights[:n]),
        Predicted(model.logged[:n], model.policy[:n]),
    )


def misses(found: list[object]) -> list[bool]:
    """Which estimates' intervals leave out the truth; each must be an estimate."""
    estimates = [one for one in found if isinstance(one, Estimate)]
    assert len(estimates) == len(found)
    return [not one.interval[0] <= TRUTH <= one.interval[1] for one in estimates]


def test_off_policy_intervals_cover_at_all_looks_together() -> None:
    draw, missed, naive = np.random.default_rng(11), [], []
    for _ in range(LOGS):
        whole, right, wrong = log(draw)
        at = []
        for n in (500, 1000, 2000, RECORDS):
            given, model = first(whole, wrong, n)
            at.append(misses([ips(given), snips(given), doubly_robust(given, model), switch(given, model, math.inf)]))
        at.append([*misses([ips(whole), snips(whole), doubly_robust(whole, right), switch(whole, right, 2.0)])])
        missed.append(np.any(at, axis=0))
        naive.append((abs(whole.means.mean() - TRUTH) > 1.96 * whole.means.std() / math.sqrt(RECORDS), *misses([direct(whole, wrong)])))
    assert (np.mean(missed, axis=0) <= 0.05).all()
    # what does not weigh, or believes a wrong model, is wrong: the truth is far enough away for the test to see
    assert (np.mean(naive, axis=0) > 0.9).all()


def test_doubly_robust_is_narrower_where_the_model_is_right() -> None:
    whole, right, wrong = log(np.random.default_rng(12))
    widths = [
        found.std_error for found in (doubly_robust(whole, right), doubly_robust(whole, wrong), ips(whole)) if isinstance(found, Estimate)
    ]
    assert len(widths) == 3
    assert widths[0] < min(widths[1:])
