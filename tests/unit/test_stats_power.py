"""Does a plan ask for the units that the textbooks do, and say where no number of units would do?"""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Spending
from millrace.streams.stats import msprt
from millrace.streams.stats.effect import Difference
from millrace.streams.stats.power import Baseline, Design, SampleSize, baseline_of, detectable, planned_looks, power, sample_size
from millrace.streams.stats.sequence import half_width
from millrace.streams.stats.summary import Summary

ABSOLUTE, RELATIVE = Difference.ABSOLUTE, Difference.RELATIVE
MEAN = Baseline(kind=Kind.MEAN, mean=10.0, variance=25.0)


def reason(given: object) -> str:
    assert isinstance(given, CannotTell), given
    return given.reason


def units(given: object) -> int:
    assert isinstance(given, SampleSize), given
    return given.control + given.treatment


def test_half_a_standard_deviation_takes_63_units_an_arm() -> None:
    """Chow, Shao, Wang, section 3.2: 2 (1.96 + 0.84)^2 / 0.5^2 = 62.8."""
    assert sample_size(MEAN, Design(difference=ABSOLUTE), 2.5) == SampleSize(63, 63)


def test_power_is_the_normal_s_two_tails() -> None:
    told = power(MEAN, Design(difference=ABSOLUTE), 1.0, 400)
    z = 1.0 / math.sqrt(25 / 200 + 25 / 200)
    assert told == pytest.approx(stats.norm.sf(1.959964 - z) + stats.norm.cdf(-1.959964 - z), rel=1e-6)


def test_no_effect_is_found_in_alpha_and_the_sign_does_not_matter() -> None:
    design = Design(difference=ABSOLUTE, alpha=0.1)
    assert power(MEAN, design, 0.0, 500) == pytest.approx(0.1)
    assert power(MEAN, design, -0.7, 500) == pytest.approx(power(MEAN, design, 0.7, 500))


def test_a_small_lift_needs_what_its_absolute_effect_does_nearly() -> None:
    """The lift's own variance has (1 + effect)^2 times the control's."""
    absolute, relative = (units(sample_size(MEAN, Design(difference=d), e)) for d, e in ((ABSOLUTE, 0.1), (RELATIVE, 0.01)))
    assert relative == pytest.approx(absolute * (1 + 1.01**2) / 2, rel=1e-3)


def test_an_uneven_split_needs_more_units_in_proportion_to_its_variance() -> None:
    even, uneven = (units(sample_size(MEAN, Design(difference=ABSOLUTE, share=share), 0.5)) for share in (0.5, 0.1))
    assert uneven / even == pytest.approx((1 / 0.1 + 1 / 0.9) / 4, rel=1e-3)


def test_a_sequential_plan_needs_the_square_of_its_wider_interval() -> None:
    fixed, sequential = (sample_size(MEAN, Design(difference=ABSOLUTE, tuning=tuning), 0.5) for tuning in (None, 3000.0))
    inflation = units(sequential) / units(fixed)
    wider = (half_width(1.0, units(sequential), 0.05, 3000.0) + 0.8416) / (1.959964 + 0.8416)
    assert inflation == pytest.approx(wider**2, rel=1e-3)
    assert inflation > 1.5


def test_the_smallest_effect_falls_with_the_root_of_the_units() -> None:
    few, many = (detectable(MEAN, Design(difference=ABSOLUTE), n) for n in (1000, 4000))
    assert isinstance(few, float)
    assert isinstance(many, float)
    assert few / many == pytest.approx(2.0, rel=1e-9)


def test_a_lift_needs_units_enough_to_divide_by_its_baseline() -> None:
    """A lift of ten times would be seen in fewer units than the control's mean is."""
    before, design = Baseline(kind=Kind.MEAN, mean=1.0, variance=100.0), Design(difference=RELATIVE)
    size = sample_size(before, design, 10.0)
    assert isinstance(size, SampleSize)
    assert 3.8415 * 100.0 / size.control <= 0.15
    assert 3.8415 * 100.0 / (size.control - 1) > 0.15
    assert "too uncertain to divide by" in reason(power(before, design, 10.0, size.control + size.treatment - 2))


def test_a_baseline_is_what_was_measured() -> None:
    measured = Summary(n=100, mean=4.0, variance=4.0, denominator_mean=2.0, denominator_variance=1.0, covariance=0.5)
    assert baseline_of(measured, Kind.RATIO) == Baseline(kind=Kind.RATIO, mean=2.0, variance=(4.0 - 2.0 + 4.0) / 4.0)
    assert "0 units" in reason(baseline_of(Summary(n=0, mean=0.0, variance=0.0), Kind.MEAN))


def test_what_cannot_be_planned_is_said() -> None:
    absolute, relative = Design(difference=ABSOLUTE), Design(difference=RELATIVE)
    assert "effect of 0" in reason(sample_size(MEAN, absolute, 0.0))
    assert "more than 1e+12" in reason(sample_size(MEAN, absolute, 1e-9))
    assert "proportion of 1.1" in reason(sample_size(Baseline.proportion(0.6), absolute, 0.5))
    assert "not even an effect of 0.05" in reason(detectable(Baseline.proportion(0.95), absolute, 40))
    assert "does not vary" in reason(power(Baseline.proportion(0.0), absolute, 0.1, 100))
    assert "below 0" in reason(power(Baseline(kind=Kind.MEAN, mean=-1.0, variance=1.0), relative, 0.1, 100))
    assert "fewer than 2" in reason(power(MEAN, absolute, 0.1, 3))
    assert "density" in reason(detectable(Baseline(kind=Kind.QUANTILE, mean=1.0, variance=1.0), absolute, 100))


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"power": 1.0}, {"share": 1.0}, {"alpha": 0.5, "power": 0.4}])
def test_a_design_that_means_nothing_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be (between 0 and 1|above alpha)"):
        Design(difference=ABSOLUTE, **wrong)


def test_planned_looks_cost_little_if_the_first_are_strict_and_more_if_not() -> None:
    """Of the original designs with five looks and a power of 90 %, 1.026 and 1.207 times the units (Jennison and Turnbull, 2.2 and 2.4)."""
    fixed = units(sample_size(MEAN, Design(difference=ABSOLUTE, power=0.9), 0.5))
    fifths = (0.2, 0.4, 0.6, 0.8, 1.0)
    designs = [Design(difference=ABSOLUTE, power=0.9, looks=fifths, spending=spending) for spending in Spending]
    strict, even = (units(sample_size(MEAN, design, 0.5)) / fixed for design in designs)
    assert 1.0 < strict == pytest.approx(1.026, abs=0.01)
    assert even == pytest.approx(1.207, abs=0.02)
    one = Design(difference=ABSOLUTE, power=0.9, looks=(1.0,))
    assert units(sample_size(MEAN, one, 0.5)) == fixed
    assert detectable(MEAN, one, fixed) == pytest.approx(0.5, rel=1e-3)


def test_a_look_finds_what_came_before_it_too() -> None:
    design = Design(difference=ABSOLUTE, looks=(0.5, 1.0))
    first, last = planned_looks(MEAN, design, 1.0, 800)
    assert (first.fraction, last.fraction) == (0.5, 1.0)
    assert 0.0 < first.found < last.found == pytest.approx(power(MEAN, design, 1.0, 800))


def test_the_mixture_test_finds_most_where_tau_is_the_effect() -> None:
    small, right, large = (power(MEAN, Design(difference=ABSOLUTE, tau=tau), 1.0, 1_600) for tau in (0.01, 1.0, 100.0))
    assert isinstance(small, float)
    assert isinstance(right, float)
    assert isinstance(large, float)
    assert right > max(small, large)
    z = 1.0 / math.sqrt(25 / 800 + 25 / 800)
    limit = msprt.half_width(1.0, 0.05, z)  # tau in standard errors
    assert right == pytest.approx(stats.norm.sf(limit - z), rel=1e-6)


def test_an_experiment_is_looked_at_in_one_way() -> None:
    with pytest.raises(ValueError, match="name one of them"):
        Design(difference=ABSOLUTE, tau=1.0, looks=(1.0,))
