"""The difference of a quantile between arms whose units have several events each, from what two SQL queries deliver.

First the quantile itself, and over the units: events at or below it, events, their squares and products. ``outer`` says between which two
levels the quantile's interval lies when events of one unit belong together; the second query reads the values at those levels.
"""

from __future__ import annotations

import math

from msgspec import Struct
from scipy.special import ndtri

from millrace.schemas.evidence import CannotTell
from millrace.streams.stats.arm import Arm, contrast, divisor, linearised
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.interval import check_level
from millrace.streams.stats.summary import Summary


class Levels(Struct, frozen=True):
    """Between which two levels, shares of all events in (0, 1), the quantile's interval lies."""

    low: float
    high: float


class QuantileArm(Struct, frozen=True, kw_only=True):
    """One arm: its units, its quantile's value, and the values at the ``Levels`` that ``outer`` gave for it."""

    units: int
    value: float
    low: float
    high: float


def outer(level: float, below: Summary, alpha: float = 0.05) -> Levels | CannotTell:
    """The levels of the outer interval: level -+ z times the standard error of the share of events at or below the quantile.

    ``below`` has over the units: as value the events at or below the quantile, as denominator the events. Where each unit has one event
    it is the order statistics' interval, level -+ z sqrt(level (1 - level) / n).
    Source: Deng, Knoblich, Lu, KDD 2018, arXiv 1803.06336, section 5 (outer interval with pre-adjustment).
    """
    check_level(alpha)
    if not 0.0 < level < 1.0:
        raise ValueError(f"a quantile's level is between 0 and 1, not {level}")
    if below.n < 2:
        return CannotTell(f"the quantile has {below.n} unit{'s' * (below.n != 1)}; its interval needs at least 2 in each arm")
    refusal = divisor("events of a unit", below.denominator_mean, below.denominator_variance / below.n)
    if refusal is not None:
        return refusal
    variance = linearised(below, below.mean / below.denominator_mean, below.denominator_mean)
    if not variance > 0.0:
        return CannotTell("all units are on one side of the quantile, so that its interval cannot be read off the values")
    half = -float(ndtri(alpha / 2.0)) * math.sqrt(variance / below.n)
    if level - half <= 0.0 or level + half >= 1.0:
        return CannotTell(f"too few units for the quantile {level:g}: its interval, {level:g} -+ {half:.3g}, ends outside the data")
    return Levels(level - half, level + half)


def quantile_difference(control: QuantileArm, treatment: QuantileArm, relative: Difference, alpha: float = 0.05) -> Effect | CannotTell:
    """The difference of two arms' quantiles; ``alpha`` is the one that ``outer`` was given.

    A quantile's standard error is its outer interval's width over 2 z: the density at the quantile is in the values' distance, and is not
    estimated (arXiv 1803.06336, section 5).
    """
    check_level(alpha)
    left, right = _arm("control", control, alpha), _arm("treatment", treatment, alpha)
    if isinstance(left, CannotTell):
        return left
    if isinstance(right, CannotTell):
        return right
    return contrast(left, right, relative)


def _arm(name: str, given: QuantileArm, alpha: float) -> Arm | CannotTell:
    if given.units < 2:
        return CannotTell(f"the {name} has {given.units} unit{'s' * (given.units != 1)}; a comparison needs at least 2 in each arm")
    if not given.low <= given.value <= given.high:
        raise ValueError(
            f"the {name}'s quantile {given.value} is not between {given.low} and {given.high}: read all three from the same events"
        )
    if given.low == given.high:
        return CannotTell(f"the {name}'s quantile, {given.value:g}, lies within a run of equal values: it has no standard error")
    std_error = (given.high - given.low) / (-2.0 * float(ndtri(alpha / 2.0)))
    return Arm(n=given.units, mean=given.value, squared_error=std_error * std_error, degrees=given.units - 1.0)
