"""Do planned looks spend alpha as they say?"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from millrace.schemas.evidence import CannotTell
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.group_sequential import Look, Spending, boundaries, classical, crossing, look, spent

ALL = pytest.mark.parametrize("spending", list(Spending))
UNEVEN = [0.07, 0.1, 0.55, 0.56, 0.93, 1.0]


def effect(value: float, std_error: float = 1.0) -> Effect:
    return Effect(
        effect=value, std_error=std_error, n=100, degrees=98.0, control_mean=0.0, treatment_mean=value, difference=Difference.ABSOLUTE
    )


@ALL
def test_each_look_spends_what_the_function_gives(spending: Spending) -> None:
    chances = crossing(UNEVEN, boundaries(UNEVEN, 0.05, spending)).sum(axis=1).cumsum()
    assert chances == pytest.approx([spent(fraction, 0.05, spending) for fraction in UNEVEN], abs=1e-9)
    assert chances[-1] == pytest.approx(0.05, abs=1e-9)


@ALL
def test_a_boundary_depends_on_the_looks_up_to_it_alone(spending: Spending) -> None:
    assert boundaries(UNEVEN[:3], 0.05, spending) == pytest.approx(boundaries(UNEVEN, 0.05, spending)[:3], abs=1e-9)


@ALL
def test_one_look_is_the_ordinary_test(spending: Spending) -> None:
    assert boundaries([1.0], 0.05, spending) == pytest.approx([1.959963984540054], abs=1e-9)
    assert classical([1.0], 0.05, spending) == pytest.approx([1.959963984540054], abs=1e-9)


def test_two_looks_agree_with_the_bivariate_normal() -> None:
    # P(|Z1| < c, |Z2| < c) with correlation sqrt(1/2), by one-dimensional integration: another road to the same number
    from scipy.integrate import quad
    from scipy.stats import norm

    c, r = 2.178, math.sqrt(0.5)
    inside, _ = quad(
        lambda z: norm.pdf(z) * (norm.cdf((c - r * z) / math.sqrt(1 - r * r)) - norm.cdf((-c - r * z) / math.sqrt(1 - r * r))), -c, c
    )
    assert crossing([0.5, 1.0], [c, c]).sum() == pytest.approx(1.0 - inside, abs=1e-9)


def test_drift_reflects() -> None:
    limits = classical(UNEVEN, 0.05, Spending.POCOCK)
    assert crossing(UNEVEN, limits, 2.5) == pytest.approx(np.fliplr(crossing(UNEVEN, limits, -2.5)), abs=1e-12)


def test_looks_may_be_many() -> None:
    fractions = [look / 100 for look in range(1, 101)]
    limits = boundaries(fractions, 0.05, Spending.OBRIEN_FLEMING)
    assert all(after <= before for before, after in pairwise(limits))
    assert crossing(fractions, limits).sum() == pytest.approx(0.05, abs=1e-9)


def test_a_look_says_where_it_stands() -> None:
    fractions = [0.2, 0.4]
    found = look(effect(3.4), fractions, 0.05, Spending.OBRIEN_FLEMING)
    assert isinstance(found, Look)
    assert (found.z, found.crossed) == (3.4, True)
    assert found.boundary == pytest.approx(3.357, abs=5.1e-4)
    assert found.nominal_alpha == pytest.approx(math.erfc(found.boundary / math.sqrt(2)), rel=1e-9)
    assert found.interval == pytest.approx((3.4 - found.boundary, 3.4 + found.boundary), rel=1e-12)
    assert found.interval[0] > 0
    below = look(effect(-3.3), fractions, 0.05, Spending.OBRIEN_FLEMING)
    assert isinstance(below, Look)
    assert not below.crossed
    assert below.interval[0] < 0 < below.interval[1]


def test_without_variance_there_is_no_number() -> None:
    assert isinstance(look(effect(1.0, 0.0), [1.0], 0.05, Spending.POCOCK), CannotTell)


@ALL
@pytest.mark.parametrize("last", [0.3, 1.0, 1.4])
def test_what_has_ended_spends_what_is_left_at_whatever_share_it_came_to(spending: Spending, last: float) -> None:
    """Over- and underrunning: the looks before it keep their boundaries, and all together keep the level."""
    limits = boundaries([0.1, 0.25, last], 0.05, spending, ended=True)
    assert limits[:2] == pytest.approx(boundaries([0.1, 0.25], 0.05, spending), abs=1e-9)
    assert crossing([0.1, 0.25, last], limits).sum() == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(
    ("fractions", "alpha", "says"),
    [
        ([], 0.05, "share"),
        ([0.5, 1.1], 0.05, "at most 1"),
        ([0.5, 0.5], 0.05, "at least"),
        ([0.0, 1.0], 0.05, "at least"),
        ([1.0], 1.0, "alpha"),
    ],
)
def test_impossible_plans_are_told(fractions: list[float], alpha: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        boundaries(fractions, alpha, Spending.POCOCK)
