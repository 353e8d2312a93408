"""Moments merge in any order and retract exactly, and their summary is the data's."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.schemas.evidence import Moments
from millrace.streams.stats.summary import of_moments

STEPS = st.integers(-(10**15), 10**15)
UNIT = st.builds(Moments.of, STEPS, STEPS, STEPS)
MOMENTS = st.lists(UNIT, max_size=5).map(lambda units: reduce(add, units, Moments()))


@given(MOMENTS, MOMENTS, MOMENTS)
def test_merging_is_associative_and_commutative_and_retraction_undoes_it(a: Moments, b: Moments, c: Moments) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Moments() == a
    assert (a + b) - b == a


@given(st.permutations([Moments.of(k * 10**9, k, -k) for k in range(8)]), st.integers(0, 8))
def test_a_unit_whose_value_changes_leaves_no_trace(units: list[Moments], kept: int) -> None:
    """Whatever was added and taken back on the way, what stays is what was added for good."""
    running = Moments()
    for unit in units:
        running = running + unit
    for unit in units[kept:]:
        running = running - unit
    assert running == reduce(add, units[:kept], Moments())


ROWS = st.lists(st.tuples(*[st.integers(-1000, 1000)] * 3), min_size=2, max_size=60)


@pytest.mark.parametrize("offset", [0, 10**9])
@given(ROWS)
def test_a_summary_is_the_data_s_own(offset: int, rows: list[tuple[int, int, int]]) -> None:
    """In hundredths, a thousand million away from 0. numpy is given the values without the offset, or it would lose them itself."""
    moments = reduce(add, (Moments.of(y + 100 * offset, z, x + 100 * offset) for y, z, x in rows))
    told, (y, z, x) = of_moments(moments, 0.01, 0.5), np.array(rows, dtype=np.float64).T
    y, z, x = y / 100.0, z / 2.0, x / 100.0
    assert told.n == len(rows)
    assert told.mean == pytest.approx(offset + y.mean(), rel=1e-12, abs=1e-12)
    assert told.covariate_mean == pytest.approx(offset + x.mean(), rel=1e-12, abs=1e-12)
    assert told.denominator_mean == pytest.approx(z.mean(), rel=1e-12, abs=1e-12)
    expected = np.cov(np.stack([y, z, x]))
    ours = (told.variance, told.denominator_variance, told.covariate_variance, told.covariance, told.covariate_covariance)
    theirs = (expected[0, 0], expected[1, 1], expected[2, 2], expected[0, 1], expected[0, 2])
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-10)
