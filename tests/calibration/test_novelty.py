"""Does the trend of an effect over the days since the exposure reject no more often than it says where there is none, and find one?

Shares are of ``RUNS`` simulated experiments, whose Monte-Carlo error at 5 % is 0.003; a share may be off by four of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from millrace.streams.stats.novelty import Aged, Trend, trend

RUNS = 6_000
ERROR = 0.012
DAYS = 7
Floats = npt.NDArray[np.float64]


def rejected(effects: Floats, std_errors: Floats) -> float:
    """The share of runs, one a row, whose trend has a p-value of at most 5 %."""
    found = [trend([Aged(day, *one) for day, one in enumerate(zip(*run, strict=True))]) for run in zip(effects, std_errors, strict=True)]
    assert all(isinstance(one, Trend) for one in found)
    return float(np.mean([one.p_value <= 0.05 for one in found if isinstance(one, Trend)]))


def shrinking() -> Floats:
    """Fewer units reach each later day, so that its effect is less certain."""
    error: Floats = 1.0 / np.sqrt(np.linspace(1000.0, 100.0, DAYS))
    return error


def test_ages_of_different_units_reject_as_often_as_they_say() -> None:
    """And a constant effect is no trend, however large."""
    rng, errors = np.random.default_rng(1), np.tile(shrinking(), (RUNS, 1))
    assert rejected(5.0 + errors * rng.standard_normal(errors.shape), errors) == pytest.approx(0.05, abs=ERROR)


@pytest.mark.parametrize("shared", [0.3, 0.8])
def test_ages_of_the_same_units_reject_less_often(shared: float) -> None:
    """Of units' daily values, correlated by ``shared``, with every unit at day 0 and a tenth of them at the last."""
    rng, units = np.random.default_rng(2), 200
    staying = np.linspace(units, units // 10, DAYS).astype(int)
    effects, errors = np.empty((RUNS, DAYS)), np.empty((RUNS, DAYS))
    for at in range(0, RUNS, 500):
        arms = []
        for _ in range(2):
            own = np.sqrt(shared) * rng.standard_normal((500, units, 1))
            arms.append(own + np.sqrt(1.0 - shared) * rng.standard_normal((500, units, DAYS)))
        for day, n in enumerate(staying):
            control, treatment = (arm[:, :n, day] for arm in arms)
            effects[at : at + 500, day] = treatment.mean(1) - control.mean(1)
            errors[at : at + 500, day] = np.sqrt((treatment.var(1, ddof=1) + control.var(1, ddof=1)) / n)
    assert rejected(effects, errors) <= 0.05 + ERROR


def test_units_that_act_on_one_day_alone_reject_as_often_as_they_say() -> None:
    """Who converted on a day does not on another: the ages are a little against each other, which the test does not know."""
    rng, units = np.random.default_rng(3), 2_000
    chances = [0.02] * DAYS + [1.0 - 0.02 * DAYS]
    control, treatment = (rng.multinomial(units, chances, RUNS)[:, :DAYS] / units for _ in range(2))
    errors = np.sqrt((control * (1 - control) + treatment * (1 - treatment)) / (units - 1))
    assert rejected(treatment - control, errors) == pytest.approx(0.05, abs=ERROR)


def test_an_effect_that_wears_off_is_found() -> None:
    rng, errors = np.random.default_rng(4), np.tile(shrinking(), (1_000, 1))
    fading = 0.2 * np.exp(-np.arange(DAYS) / 2.0)
    assert rejected(fading + errors * rng.standard_normal(errors.shape), errors) > 0.8
