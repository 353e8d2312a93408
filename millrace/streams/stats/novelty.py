"""Whether an effect changes with the time since the exposure: novelty that wears off, or use that has to be learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from scipy.special import ndtr

from millrace.schemas.evidence import CannotTell

MINIMAL_AGES = 3
"""Two points are no trend."""


class Aged(Struct, frozen=True):
    """The effect on what happened at one age, in days since the exposure, and its standard error."""

    age: float
    effect: float
    std_error: float


class Trend(Struct, frozen=True, kw_only=True):
    """The line through the effects: its slope per day with a standard error, the two-sided p-value of none, and its ends."""

    slope: float
    std_error: float
    p_value: float
    first: float
    last: float

    @property
    def fades(self) -> bool:
        """Whether what was there at first goes away: the end is nearer to 0, or beyond it."""
        return self.first * self.slope < 0.0


def trend(effects: Sequence[Aged]) -> Trend | CannotTell:
    """The slope of the effect over age, weighted by inverse variance, and its normal test; right at one look.

    slope = sum w (x - x_w) e / sum w (x - x_w)^2, of variance 1 / sum w (x - x_w)^2, with w = 1 / se^2: as if ages were of different
    units. They are the same units', fewer at each age: what these have in common moves all ages alike and cancels in the slope, so that
    the test is then too careful rather than too bold. Raises ValueError on a standard error that is not above 0.
    Sources: Greenland and Longnecker, Am. J. Epidemiol. 1992 (weighted trend over summaries); Sadeghi et al., Technometrics 2022, arXiv
    2102.12893 (novelty and primacy as the change of the effect with the time since the exposure).

    >>> told = trend([Aged(0, 3.0, 1.0), Aged(1, 2.0, 1.0), Aged(2, 1.0, 1.0)])
    >>> told.slope, round(told.std_error, 4), round(told.p_value, 4), told.first, told.last, told.fades
    (-1.0, 0.7071, 0.1573, 3.0, 1.0, True)
    """
    if not all(one.std_error > 0.0 for one in effects):
        raise ValueError("standard errors of effects must be above 0")
    if len({one.age for one in effects}) < MINIMAL_AGES:
        return CannotTell(f"a trend needs effects on {MINIMAL_AGES} days since the exposure, there are {len(effects)}; wait for more days")
    least = min(one.std_error for one in effects)
    weights = [(least / one.std_error) ** 2 for one in effects]
    pairs = list(zip(weights, effects, strict=True))
    centre = math.fsum(w * one.age for w, one in pairs) / math.fsum(weights)
    middle = math.fsum(w * one.effect for w, one in pairs) / math.fsum(weights)
    squares = math.fsum(w * (one.age - centre) ** 2 for w, one in pairs)
    slope = math.fsum(w * (one.age - centre) * one.effect for w, one in pairs) / squares
    std_error = least / math.sqrt(squares)
    ages = [one.age for one in effects]
    return Trend(
        slope=slope,
        std_error=std_error,
        p_value=2.0 * float(ndtr(-abs(slope) / std_error)),
        first=middle + slope * (min(ages) - centre),
        last=middle + slope * (max(ages) - centre),
    )
