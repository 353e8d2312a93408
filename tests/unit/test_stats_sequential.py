"""Do the tests that may be looked at any time say what their names say?"""

from __future__ import annotations

import math

import pytest

from millrace.schemas.evidence import CannotTell
from millrace.streams.stats import msprt
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.sequence import AlwaysValid, OneSided, Side, always_valid, half_width, log_evalue, one_sided, rho
from millrace.streams.stats.sequential_ratio import log_bayes_factor, p_value


def effect(value: float, std_error: float = 1.0, n: int = 1000) -> Effect:
    return Effect(
        effect=value,
        std_error=std_error,
        n=n,
        degrees=n - 2.0,
        control_mean=0.0,
        treatment_mean=value,
        difference=Difference.ABSOLUTE,
    )


def valid(value: float, alpha: float = 0.05, tuning: float = 5000.0) -> AlwaysValid:
    found = always_valid(effect(value), alpha, tuning)
    assert isinstance(found, AlwaysValid)
    return found


def bounded(value: float, side: Side, margin: float = 0.0, alpha: float = 0.05) -> OneSided:
    found = one_sided(effect(value), side, margin, alpha)
    assert isinstance(found, OneSided)
    return found


def test_the_interval_is_narrowest_at_about_its_tuning() -> None:
    # eq. 161 is an approximation of the best rho: it is within a thousandth of the narrowest
    ours = half_width(1.0, 2000, 0.05, 2000)
    best = min(half_width(1.0, 2000, 0.05, 2000 * scale / 100) for scale in range(50, 200))
    assert best <= ours <= best * 1.001


def test_the_p_value_is_below_alpha_just_where_zero_is_left_out() -> None:
    edge = half_width(1.0, 1000, 0.05, 5000)
    assert valid(edge).p_value == pytest.approx(0.05, rel=1e-12)
    assert valid(edge * 1.001).p_value < 0.05 < valid(edge * 0.999).p_value
    assert valid(0.0).p_value == 1.0
    assert valid(-edge).p_value == valid(edge).p_value


def test_the_p_value_is_one_over_the_evalue() -> None:
    found = log_evalue(effect(4.0), 0.05, 5000)
    assert isinstance(found, float)
    assert valid(4.0).p_value == pytest.approx(math.exp(-found), rel=1e-12)


def test_overwhelming_evidence_neither_overflows_nor_breaks() -> None:
    assert valid(1e6).p_value == 0.0
    assert bounded(-1e6, Side.UPPER).p_value == 0.0
    found = msprt.log_evalue(effect(1e6), 1.0)
    assert isinstance(found, float)
    assert found == pytest.approx(0.25e12, rel=1e-9)


def test_a_one_sided_bound_and_its_p_value_agree() -> None:
    bound = bounded(-4.0, Side.UPPER).bound
    assert bounded(-4.0, Side.UPPER, bound).p_value == pytest.approx(0.05, rel=1e-9)
    assert bounded(-4.0, Side.UPPER, bound + 0.01).p_value < 0.05 < bounded(-4.0, Side.UPPER, bound - 0.01).p_value


def test_the_two_sides_mirror_each_other() -> None:
    below, above = bounded(-3.0, Side.UPPER, -1.0), bounded(3.0, Side.LOWER, 1.0)
    assert (above.bound, above.p_value) == (-below.bound, below.p_value)


def test_a_one_sided_test_knows_no_evidence_on_the_harmless_side() -> None:
    assert bounded(2.0, Side.UPPER).p_value == 1.0
    assert bounded(-0.5, Side.UPPER, -1.0).p_value == 1.0


def test_a_one_sided_bound_is_tighter_than_the_two_sided_one_and_agrees_at_twice_alpha() -> None:
    one, two = bounded(-4.0, Side.UPPER).bound, valid(-4.0).interval[1]
    doubled = valid(-4.0, 0.1).interval[1]
    assert doubled < one < two
    # log(1 + x) against log(x), x = sqrt(v) / 0.1 > 10: less than one part in a hundred
    assert one + 4.0 == pytest.approx(doubled + 4.0, rel=0.02)


def test_the_closed_one_sided_evidence_is_below_the_exact_half_normal_mixture() -> None:
    for z in (0.1, 1.0, 2.0, 3.0, 4.0, 6.0):
        growth = 1000 * rho(0.1, 5000) ** 2
        x = z * math.sqrt(growth / (1.0 + growth))
        mixture = 2.0 / math.sqrt(1.0 + growth) * math.exp(x * x / 2) * 0.5 * math.erfc(-x / math.sqrt(2))
        assert 1.0 / bounded(-z, Side.UPPER).p_value <= max(1.0, mixture) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (effect(1.0, 0.0), "does not vary"),
        (effect(math.nan), "not a number"),
        (effect(1.0, math.inf), "not a number"),
        (effect(1.0, 1.0, 1), "at least two units"),
    ],
)
def test_without_evidence_there_is_no_number(given: Effect, reason: str) -> None:
    for found in (always_valid(given), one_sided(given, Side.UPPER), log_evalue(given, 0.05, 5000)):
        assert isinstance(found, CannotTell)
        assert reason in found.reason


def test_without_a_standard_error_the_mixture_test_has_no_number() -> None:
    for given in (effect(1.0, 0.0), effect(math.nan)):
        assert isinstance(msprt.log_evalue(given, 0.1), CannotTell)


def test_the_mixture_tests_interval_is_its_inversion() -> None:
    edge = msprt.half_width(0.02, 0.05, 0.05)
    found = msprt.log_evalue(effect(edge, 0.02), 0.05)
    assert found == pytest.approx(math.log(20), rel=1e-12)


@pytest.mark.parametrize(("alpha", "tuning"), [(0.0, 5000.0), (1.0, 5000.0), (0.05, 0.0), (0.05, math.inf), (math.nan, 1.0)])
def test_impossible_settings_are_told(alpha: float, tuning: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        rho(alpha, tuning)


def test_a_one_sided_level_of_a_half_is_told() -> None:
    with pytest.raises(ValueError, match="one-sided"):
        one_sided(effect(1.0), Side.UPPER, alpha=0.5)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_size_of_effect_is_told(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        msprt.log_evalue(effect(1.0), tau)


def test_the_sample_ratio_is_a_function_of_counts_and_of_weights_up_to_scale() -> None:
    assert log_bayes_factor([70, 30], [7, 3]) == pytest.approx(log_bayes_factor([70, 30], [0.7, 0.3]), abs=1e-9)
    assert log_bayes_factor([70, 30, 55], [3, 2, 1]) == pytest.approx(log_bayes_factor([55, 70, 30], [1, 3, 2]), abs=1e-9)


def test_the_bayes_factor_averages_to_one_under_the_intended_shares() -> None:
    # a martingale from 1: over all 2^12 orders of 12 units, exactly
    shares, n = (0.3, 0.7), 12
    total = sum(
        math.comb(n, k) * shares[0] ** k * shares[1] ** (n - k) * math.exp(log_bayes_factor([k, n - k], shares, 5.0)) for k in range(n + 1)
    )
    assert total == pytest.approx(1.0, abs=1e-10)


def test_no_units_and_one_arm_are_no_evidence() -> None:
    assert log_bayes_factor([0, 0], [1, 1]) == 0.0
    assert log_bayes_factor([1000, 7], [1, 0]) == pytest.approx(0.0, abs=1e-9)
    assert p_value(0.0) == 1.0


def test_arms_without_weight_are_left_out() -> None:
    assert log_bayes_factor([500, 12, 450], [1, 0, 1]) == log_bayes_factor([500, 450], [1, 1])


def test_a_gross_mismatch_has_a_p_value_of_nearly_nothing() -> None:
    assert p_value(log_bayes_factor([600_000, 400_000], [1, 1])) == 0.0


@pytest.mark.parametrize(
    ("counts", "weights", "concentration"),
    [
        ([1, 2], [1.0], 1.0),
        ([-1, 2], [1.0, 1.0], 1.0),
        ([1, 2], [0.0, 0.0], 1.0),
        ([1, 2], [1.0, math.inf], 1.0),
        ([1, 2], [1.0, 1.0], 0.0),
    ],
)
def test_impossible_counts_and_weights_are_told(counts: list[int], weights: list[float], concentration: float) -> None:
    with pytest.raises(ValueError):
        log_bayes_factor(counts, weights, concentration)
