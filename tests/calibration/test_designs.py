"""Do strata, quantiles, planned samples, effect sizes and corrected intervals keep what they promise?

Shares are of ``RUNS`` simulated experiments; 0.012 is four standard errors of 5 % in 5000 runs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Correction
from millrace.streams.stats.compare import difference
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.effect_size import EffectSize, cohens_d
from millrace.streams.stats.interval import fixed
from millrace.streams.stats.multiple import benjamini_hochberg, interval_level
from millrace.streams.stats.power import Baseline, Design, SampleSize, detectable, power, sample_size
from millrace.streams.stats.quantile import Levels, QuantileArm, outer, quantile_difference
from millrace.streams.stats.sequence import always_valid
from millrace.streams.stats.stratify import Stratum, post_stratified
from millrace.streams.stats.summary import Summary
from tests.calibration.test_fixed import Floats, summaries

RUNS = 5000
ERROR = 0.012
SHARES = (0.7, 0.3)


def missed(given: list[Effect], truth: float) -> float:
    intervals = np.array([fixed(effect, 0.05).interval for effect in given])
    return float(np.mean((intervals[:, 0] > truth) | (intervals[:, 1] < truth)))


def told(given: object) -> Effect:
    assert isinstance(given, Effect), given
    return given


def strata_of(rng: np.random.Generator, means: tuple[float, float], units: int) -> list[list[Summary]]:
    """By stratum, every run's summary. Which stratum a unit is of is drawn, so that sizes differ between runs and arms."""
    sizes = rng.binomial(units, SHARES[0], RUNS)
    y = rng.normal(0.0, 1.0, (RUNS, units))
    first = np.arange(units) < sizes[:, None]
    return [_within(np.where(inside, y + mean, np.nan)) for inside, mean in zip((first, ~first), means, strict=True)]


def _within(y: Floats) -> list[Summary]:
    columns = (np.sum(~np.isnan(y), axis=1), np.nanmean(y, axis=1), np.nanvar(y, axis=1, ddof=1))
    return [Summary(n=int(n), mean=float(mean), variance=float(variance)) for n, mean, variance in zip(*columns, strict=True)]


@pytest.mark.parametrize("relative", Difference)
def test_a_post_stratified_difference_covers_and_is_narrower(relative: Difference) -> None:
    """Strata of means 3 and 8 explain most of a unit's variance, 1 + 0.21 * 25: so does the interval lose most of its width."""
    rng = np.random.default_rng(1)
    control, treatment = strata_of(rng, (3.0, 8.0), 150), strata_of(rng, (3.3, 8.3), 100)
    given = [
        told(
            post_stratified(
                [Stratum(weight=w, control=c, treatment=t) for w, c, t in zip(SHARES, left, right, strict=True)], Kind.MEAN, relative
            )
        )
        for left, right in zip(zip(*control, strict=True), zip(*treatment, strict=True), strict=True)
    ]
    assert missed(given, 0.3 if relative is Difference.ABSOLUTE else 0.3 / 4.5) == pytest.approx(0.05, abs=ERROR)
    if relative is Difference.ABSOLUTE:
        assert np.mean([effect.std_error for effect in given]) < 0.45 * math.sqrt((1 + 0.21 * 25) * (1 / 150 + 1 / 100))


def events(rng: np.random.Generator, runs: int, units: int, shift: float) -> tuple[Floats, Floats]:
    """Every unit has 5 events on average, alike within a unit. Shape (runs, units, 15), and whether each place is an event."""
    number = np.minimum(1 + rng.poisson(4.0, (runs, units)), 15)
    values = rng.exponential(1.0, (runs, units, 1)) + rng.exponential(1.0, (runs, units, 15)) + shift
    return values, (np.arange(15) < number[..., None]).astype(np.float64)


def quantile_arm(values: Floats, there: Floats, level: float) -> QuantileArm:
    """What the two queries of a report deliver for one arm."""
    ordered = np.sort(values[there > 0])
    value = ordered[math.ceil(level * len(ordered)) - 1]
    below, number = ((values <= value) * there).sum(axis=1)[None], there.sum(axis=1)[None]
    levels = outer(level, next(iter(summaries(below, number))))
    assert isinstance(levels, Levels), levels
    low, high = (float(ordered[math.ceil(at * len(ordered)) - 1]) for at in (levels.low, levels.high))
    return QuantileArm(units=len(values), value=float(value), low=low, high=high)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_a_quantile_of_units_with_several_events_covers(level: float) -> None:
    """1200 runs: four standard errors are 0.025."""
    rng = np.random.default_rng(2)
    control, treatment = events(rng, 1200, 300, 0.0), events(rng, 1200, 300, 0.5)
    given = [
        told(quantile_difference(quantile_arm(a, b, level), quantile_arm(c, d, level), Difference.ABSOLUTE))
        for a, b, c, d in zip(*control, *treatment, strict=True)
    ]
    assert missed(given, 0.5) == pytest.approx(0.05, abs=0.025)


def drawn(rng: np.random.Generator, mean: float, units: int) -> list[Summary]:
    """Of a normal value with variance 1, from its mean's and its variance's own distributions."""
    means, variances = rng.normal(mean, units**-0.5, RUNS), rng.chisquare(units - 1, RUNS) / (units - 1)
    return [Summary(n=units, mean=float(m), variance=float(v)) for m, v in zip(means, variances, strict=True)]


def test_the_planned_sample_finds_the_effect_as_often_as_planned() -> None:
    """Relative, three units of four in the treatment; 0.025 is more than four standard errors of 80 % in 5000 runs."""
    before, design = Baseline(kind=Kind.MEAN, mean=4.0, variance=1.0), Design(difference=Difference.RELATIVE, share=0.75)
    size = sample_size(before, design, 0.05)
    assert isinstance(size, SampleSize)
    rng = np.random.default_rng(3)
    arms = zip(drawn(rng, 4.0, size.control), drawn(rng, 4.2, size.treatment), strict=True)
    found = [fixed(told(difference(c, t, Kind.MEAN, Difference.RELATIVE))).p_value <= 0.05 for c, t in arms]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def test_a_sequential_plan_finds_the_effect_at_its_last_look_as_often_as_planned() -> None:
    before, design = Baseline.proportion(0.1), Design(difference=Difference.ABSOLUTE, tuning=5000.0)
    size = sample_size(before, design, 0.02)
    assert isinstance(size, SampleSize)
    rng = np.random.default_rng(4)
    got = zip(rng.binomial(size.control, 0.1, RUNS).tolist(), rng.binomial(size.treatment, 0.12, RUNS).tolist(), strict=True)
    found = 0
    for left, right in got:
        control = Summary(n=size.control, mean=left / size.control, variance=0.0)
        treatment = Summary(n=size.treatment, mean=right / size.treatment, variance=0.0)
        low, _ = always_valid(told(difference(control, treatment, Kind.PROPORTION, Difference.ABSOLUTE)), 0.05, 5000.0).interval  # type: ignore[union-attr]
        found += low > 0.0
    assert found / RUNS == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize("tuning", [None, 2000.0])
@pytest.mark.parametrize("relative", Difference)
@pytest.mark.parametrize("before", [Baseline.proportion(0.3), Baseline(kind=Kind.RATIO, mean=0.3, variance=0.5)], ids=lambda b: b.kind)
def test_the_smallest_effect_that_is_found_has_the_planned_power(before: Baseline, relative: Difference, tuning: float | None) -> None:
    design = Design(difference=relative, power=0.9, share=0.3, tuning=tuning)
    for decrease in (False, True):
        effect = detectable(before, design, 4000, decrease=decrease)
        assert isinstance(effect, float)
        assert (effect < 0.0) is decrease
        assert power(before, design, effect, 4000) == pytest.approx(0.9, abs=1e-9)
        size = sample_size(before, design, effect)
        assert isinstance(size, SampleSize)
        assert size.control == pytest.approx(2800, abs=1)
        assert size.treatment == pytest.approx(1200, abs=1)


def test_the_interval_of_cohens_d_covers() -> None:
    rng = np.random.default_rng(5)
    given = [cohens_d(c, t, Kind.MEAN) for c, t in zip(drawn(rng, 0.0, 200), drawn(rng, 0.6, 100), strict=True)]
    assert all(isinstance(size, EffectSize) for size in given)
    intervals = np.array([size.interval for size in given if isinstance(size, EffectSize)])
    assert np.mean((intervals[:, 0] > 0.6) | (intervals[:, 1] < 0.6)) == pytest.approx(0.05, abs=ERROR)


def test_intervals_of_what_benjamini_hochberg_finds_miss_in_alpha_at_most() -> None:
    """Ten effects, some of them 0 and some small: without the correction the intervals of those found miss far more often."""
    truth, rng = np.array([0.0] * 6 + [1.0, 2.0, 3.0, 4.0]), np.random.default_rng(7)
    shares: dict[Correction, list[float]] = {Correction.NONE: [], Correction.BENJAMINI_HOCHBERG: []}
    for seen in rng.normal(truth, 1.0, (2000, 10)):
        judged = [
            fixed(
                Effect(
                    effect=e,
                    std_error=1.0,
                    n=100,
                    degrees=math.inf,
                    control_mean=1.0,
                    treatment_mean=1.0 + e,
                    difference=Difference.ABSOLUTE,
                )
            )
            for e in seen.tolist()
        ]
        p_values = [one.p_value for one in judged]
        found = np.array(benjamini_hochberg(p_values)) <= 0.05
        for correction, into in shares.items():
            half = _half_width(interval_level(p_values, 0.05, correction))
            into.append(float(np.mean(np.abs(seen - truth)[found] > half)) if found.any() else 0.0)
    assert np.mean(shares[Correction.BENJAMINI_HOCHBERG]) <= 0.05
    assert np.mean(shares[Correction.NONE]) > 0.06


def _half_width(alpha: float) -> float:
    unit = Effect(effect=0.0, std_error=1.0, n=100, degrees=math.inf, control_mean=1.0, treatment_mean=1.0, difference=Difference.ABSOLUTE)
    return fixed(unit, alpha).interval[1]
