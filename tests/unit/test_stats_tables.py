"""Do tests of counts and many hypotheses agree with scipy, and refuse what they cannot judge?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import Correction
from millrace.streams.stats.contingency import Contingency, chi_square
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.multiple import benjamini_hochberg, bonferroni, corrected, holm, interval_level
from millrace.streams.stats.quantile import Levels, QuantileArm, outer, quantile_difference
from millrace.streams.stats.sample_ratio import SampleRatio, pearson, unintended
from millrace.streams.stats.summary import Summary

P_VALUES = [0.001, 0.01, 0.02, 0.03, 0.04, 0.3, 0.6, 0.9]


def reason(given: object) -> str:
    assert isinstance(given, CannotTell), given
    return given.reason


def test_a_table_is_what_scipy_computes_without_its_empty_rows() -> None:
    table = [[20, 30, 0, 25], [0, 0, 0, 0], [35, 20, 0, 40]]
    theirs = stats.chi2_contingency([[20, 30, 25], [35, 20, 40]], correction=False)
    ours = chi_square(table)
    assert isinstance(ours, Contingency)
    assert (ours.statistic, ours.p_value) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)
    assert ours.degrees == theirs.dof == 2
    assert ours.cramers_v == pytest.approx(stats.contingency.association([[20, 30, 25], [35, 20, 40]], method="cramer"))


def test_a_table_with_too_little_in_it_is_refused() -> None:
    assert "nothing to compare" in reason(chi_square([[5, 6], [0, 0]]))
    assert "2 of 4 cells" in reason(chi_square([[3, 40], [4, 50]]))
    with pytest.raises(ValueError, match="counts"):
        chi_square([[1, -1], [2, 3]])


def test_a_sample_ratio_with_three_arms_has_two_degrees_and_an_arm_without_weight_none() -> None:
    three, four = pearson([500, 480, 1050], [1, 1, 2]), pearson([500, 480, 0, 1050], [1, 1, 0, 2])
    assert isinstance(three, SampleRatio)
    assert three.p_value == pytest.approx(stats.chisquare([500, 480, 1050], [507.5, 507.5, 1015.0]).pvalue, rel=1e-12)
    assert three.degrees == 2
    assert four == three


def test_units_in_an_arm_without_weight_are_named_beside_the_test() -> None:
    told = pearson([500, 480, 7], [0.5, 0.5, 0.0])
    assert isinstance(told, SampleRatio)
    assert told.unintended == unintended([500, 480, 7], [0.5, 0.5, 0.0]) == (2,)
    assert told.p_value == pytest.approx(stats.chisquare([500, 480]).pvalue, rel=1e-12)


def test_a_sample_ratio_far_off_keeps_its_size() -> None:
    told = pearson([6000, 4000], [1, 1])
    assert isinstance(told, SampleRatio)
    assert 0.0 < told.p_value < 1e-80


def test_too_few_units_have_no_sample_ratio() -> None:
    assert "expected to have 4.5" in reason(pearson([9, 0], [1, 1]))
    assert "only one arm" in reason(pearson([900, 3], [1, 0]))


@pytest.mark.parametrize(
    ("counts", "weights"), [([1, 2], [1]), ([-1, 2], [1, 1]), ([1, 2], [0, 0]), ([1, 2], [1, -1]), ([1, 2], [1, float("nan")])]
)
def test_counts_and_weights_that_mean_nothing_are_an_error(counts: list[int], weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"weight|counts"):
        pearson(counts, weights)


def test_benjamini_hochberg_is_what_scipy_computes() -> None:
    assert benjamini_hochberg(P_VALUES) == pytest.approx(stats.false_discovery_control(P_VALUES), rel=1e-12)


def test_corrections_do_not_depend_on_order_and_grow_from_none_to_bonferroni() -> None:
    by_name = {correction: corrected(P_VALUES, correction) for correction in Correction}
    for correction, given in by_name.items():
        assert corrected(P_VALUES[::-1], correction) == given[::-1]
    order = [Correction.NONE, Correction.BENJAMINI_HOCHBERG, Correction.HOLM, Correction.BONFERRONI]
    for less, more in pairwise(order):
        assert all(a <= b for a, b in zip(by_name[less], by_name[more], strict=True))
    assert by_name[Correction.HOLM] == holm(P_VALUES)
    assert by_name[Correction.BONFERRONI] == bonferroni(P_VALUES)


@pytest.mark.parametrize("correction", Correction)
def test_none_and_one_test_are_not_corrected(correction: Correction) -> None:
    assert corrected([], correction) == []
    assert corrected([0.03], correction) == [0.03]
    assert interval_level([], 0.05, correction) == interval_level([0.03], 0.05, correction) == 0.05


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        corrected([0.1, bad], Correction.HOLM)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.5])
def test_intervals_leave_out_0_where_their_correction_rejects(alpha: float) -> None:
    """An interval at level a leaves out 0 just where p <= a. Holm's is Bonferroni's: where it leaves out 0, Holm rejects."""
    for correction in (Correction.BONFERRONI, Correction.BENJAMINI_HOCHBERG):
        level = interval_level(P_VALUES, alpha, correction)
        assert [p <= level for p in P_VALUES] == [p <= alpha for p in corrected(P_VALUES, correction)]
    level = interval_level(P_VALUES, alpha, Correction.HOLM)
    assert all(p <= alpha for raw, p in zip(P_VALUES, holm(P_VALUES), strict=True) if raw <= level)


def test_a_quantile_s_levels_are_the_order_statistics_where_each_unit_has_one_event() -> None:
    below = Summary(n=400, mean=0.9, variance=0.09 * 400 / 399, denominator_mean=1.0)
    levels = outer(0.9, below)
    assert isinstance(levels, Levels)
    assert (levels.low, levels.high) == pytest.approx((0.9 - 1.96 * 0.015, 0.9 + 1.96 * 0.015), abs=1e-4)


def test_units_that_are_alike_within_widen_a_quantile_s_levels() -> None:
    """Ten events each, all on one side: 400 units are worth 400 events, not 4000."""
    below = Summary(n=400, mean=5.0, variance=25.0, denominator_mean=10.0)
    levels = outer(0.5, below)
    assert isinstance(levels, Levels)
    assert levels.high - 0.5 == pytest.approx(1.96 * 0.5 / 20.0, rel=1e-4)


def test_a_quantile_that_the_data_cannot_hold_is_refused() -> None:
    few = Summary(n=20, mean=0.99, variance=0.0099, denominator_mean=1.0)
    assert "too few units" in reason(outer(0.99, few))
    assert "at least 2" in reason(outer(0.5, Summary(n=1, mean=1.0, variance=0.0, denominator_mean=1.0)))
    assert "one side" in reason(outer(0.5, Summary(n=10, mean=1.0, variance=0.0, denominator_mean=1.0)))
    with pytest.raises(ValueError, match="level is between"):
        outer(1.0, few)


def test_a_quantile_difference_is_of_the_values_with_the_outer_width_as_its_error() -> None:
    control, treatment = QuantileArm(units=400, value=10.0, low=9.0, high=11.0), QuantileArm(units=300, value=12.0, low=11.5, high=13.0)
    told, lift = (quantile_difference(control, treatment, relative) for relative in (Difference.ABSOLUTE, Difference.RELATIVE))
    assert isinstance(told, Effect)
    assert isinstance(lift, Effect)
    assert (told.effect, lift.effect) == pytest.approx((2.0, 0.2))
    assert told.std_error == pytest.approx(np.hypot(2.0, 1.5) / (2 * 1.959964), rel=1e-6)


def test_a_quantile_within_equal_values_has_no_error() -> None:
    control, treatment = QuantileArm(units=400, value=10.0, low=10.0, high=10.0), QuantileArm(units=300, value=12.0, low=11.5, high=13.0)
    assert "run of equal values" in reason(quantile_difference(control, treatment, Difference.ABSOLUTE))
    assert "1 unit;" in reason(quantile_difference(QuantileArm(units=1, value=1.0, low=0.0, high=2.0), treatment, Difference.ABSOLUTE))
    with pytest.raises(ValueError, match="same events"):
        quantile_difference(treatment, QuantileArm(units=300, value=12.0, low=12.5, high=13.0), Difference.ABSOLUTE)
