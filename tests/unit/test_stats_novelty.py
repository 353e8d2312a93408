"""Is the trend of an effect the weighted line through it, and is none told where there is none to tell?"""

from __future__ import annotations

import numpy as np
import pytest

from millrace.schemas.evidence import CannotTell
from millrace.streams.stats.novelty import Aged, Trend, trend


def test_the_line_is_the_one_of_weighted_least_squares() -> None:
    rng = np.random.default_rng(1)
    ages, effects, errors = np.arange(6.0), rng.normal(0.1, 0.05, 6), rng.uniform(0.01, 0.1, 6)
    found = trend([Aged(*one) for one in zip(ages, effects, errors, strict=True)])
    (slope, start), covariance = np.polyfit(ages, effects, 1, w=1 / errors, cov="unscaled")
    assert isinstance(found, Trend)
    assert found.slope == pytest.approx(slope)
    assert found.std_error == pytest.approx(np.sqrt(covariance[0, 0]))
    assert found.first == pytest.approx(start)
    assert found.last == pytest.approx(start + 5 * slope)


def test_the_scale_of_the_errors_plays_no_part_in_the_arithmetic() -> None:
    tiny = trend([Aged(day, 1e-200 * day, 1e-200) for day in range(4)])
    assert isinstance(tiny, Trend)
    assert tiny.slope == pytest.approx(1e-200)
    assert tiny.std_error == pytest.approx(1e-200 / np.sqrt(5))


@pytest.mark.parametrize(("effects", "fades"), [((3, 2, 1), True), ((-3, -2, -1), True), ((1, 2, 3), False), ((2, 0, -2), True)])
def test_an_effect_fades_that_moves_to_nothing(effects: tuple[float, ...], fades: bool) -> None:
    found = trend([Aged(day, effect, 1.0) for day, effect in enumerate(effects)])
    assert isinstance(found, Trend)
    assert found.fades is fades


def test_few_days_are_no_trend_and_no_error_is_none() -> None:
    assert isinstance(trend([]), CannotTell)
    assert isinstance(trend([Aged(0, 1.0, 1.0), Aged(1, 2.0, 1.0)]), CannotTell)
    assert isinstance(trend([Aged(0, 1.0, 1.0)] * 5), CannotTell)
    with pytest.raises(ValueError, match="above 0"):
        trend([Aged(day, 1.0, 0.0) for day in range(3)])
