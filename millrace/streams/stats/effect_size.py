"""Cohen's d: a difference in standard deviations of one unit, which compares metrics of different units."""

from __future__ import annotations

import math

from msgspec import Struct
from scipy.special import ndtri

from millrace.schemas.evidence import CannotTell, Kind
from millrace.streams.stats.arm import arm
from millrace.streams.stats.interval import check_level
from millrace.streams.stats.summary import Summary


class EffectSize(Struct, frozen=True):
    """Cohen's d, treatment less control, and its interval."""

    d: float
    interval: tuple[float, float]


def cohens_d(control: Summary, treatment: Summary, kind: Kind, alpha: float = 0.05) -> EffectSize | CannotTell:
    """The difference over the arms' pooled standard deviation; of a ratio, over that of its linearised value.

    Sources: Cohen, *Statistical Power Analysis for the Behavioral Sciences*, 1988, section 2.5; the interval is Hedges and Olkin,
    *Statistical Methods for Meta-Analysis*, 1985, chapter 5: for large samples of values not far from normal.

    >>> from millrace.streams.stats.summary import Totals, of_totals
    >>> low, high = of_totals(Totals(n=3, total=6, squares=14)), of_totals(Totals(n=3, total=9, squares=29))
    >>> cohens_d(low, high, Kind.MEAN).d
    1.0
    """
    check_level(alpha)
    left, right = arm("control", control, kind), arm("treatment", treatment, kind)
    if isinstance(left, CannotTell):
        return left
    if isinstance(right, CannotTell):
        return right
    pooled = (left.degrees * left.variance + right.degrees * right.variance) / (left.degrees + right.degrees)
    if pooled <= 0.0:
        return CannotTell("neither arm's metric varies, so that there is no standard deviation to measure the difference in")
    d = (right.mean - left.mean) / math.sqrt(pooled)
    n = left.n + right.n
    half = -float(ndtri(alpha / 2.0)) * math.sqrt(n / (left.n * right.n) + d * d / (2.0 * n))
    return EffectSize(d, (d - half, d + half))
