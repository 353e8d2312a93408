"""How many units an experiment needs, what effect it can find, and how likely: before it runs, at a fixed horizon or looked at any time.

Everything is for a two-sided test by the normal approximation, with the variance that the effect would bring. Looked at any time: an
effect counts as found where the confidence sequence, or the mixture SPRT's interval, leaves out 0 at the last look; that it may do so
before makes the power a lower bound. Looked at planned times: found at any of the looks, by integration, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Spending
from millrace.streams.stats import msprt
from millrace.streams.stats.arm import arm, baseline
from millrace.streams.stats.effect import Difference
from millrace.streams.stats.group_sequential import boundaries, crossing
from millrace.streams.stats.sequence import half_width
from millrace.streams.stats.summary import Summary

MOST_UNITS = 10**12


class Baseline(Struct, frozen=True, kw_only=True):
    """What a unit of the control is like: the metric's mean (a ratio's: the ratio), and the variance of its (linearised) value.

    A proportion's variance follows from its mean. With CUPED, give the variance times 1 - (correlation with the covariate)^2.
    """

    kind: Kind
    mean: float
    variance: float

    @staticmethod
    def proportion(mean: float) -> Baseline:
        return Baseline(kind=Kind.PROPORTION, mean=mean, variance=mean * (1.0 - mean))


class Design(Struct, frozen=True, kw_only=True):
    """How it will be judged. ``share`` is the treatment's of both arms' units.

    ``tuning`` makes it sequential, narrowest at so many units; ``tau`` a mixture SPRT with such effects plausible; ``looks``, the shares
    of the units at each planned look, group sequential. One of them at most.
    """

    difference: Difference
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    power: Annotated[float, Meta(gt=0, lt=1)] = 0.8
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    tuning: Annotated[float, Meta(gt=0)] | None = None
    tau: Annotated[float, Meta(gt=0)] | None = None
    looks: tuple[float, ...] = ()
    spending: Spending = Spending.OBRIEN_FLEMING

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("power", self.power), ("share", self.share)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {value}")
        if self.power <= self.alpha:
            raise ValueError(f"the power, {self.power}, must be above alpha, {self.alpha}: chance alone finds that much")
        if (self.tuning is not None) + (self.tau is not None) + bool(self.looks) > 1:
            raise ValueError("an experiment is looked at any time (tuning or tau) or at planned looks: name one of them")

    def critical(self, units: int, std_error: float) -> float:
        """How many standard errors an effect must be from 0 to be found at the last look, at so many units of both arms.

        Sources: arXiv 2103.06476, Theorem 2.2; arXiv 1512.04922; Lan and DeMets 1983.
        """
        if self.tuning is not None:
            return half_width(1.0, units, self.alpha, self.tuning)
        if self.tau is not None:
            return msprt.half_width(1.0, self.alpha, self.tau / std_error)
        return _limits(self)[-1] if self.looks else -float(ndtri(self.alpha / 2.0))

    def chance(self, z: float, units: int, std_error: float) -> float:
        """How likely an effect that is ``z`` standard errors at the end is found (Jennison and Turnbull 2000, eq. 19.3 to 19.9)."""
        if self.looks:
            return float(crossing(self.looks, _limits(self), z).sum())
        critical = self.critical(units, std_error)
        return float(ndtr(z - critical) + ndtr(-z - critical))


def _limits(design: Design) -> tuple[float, ...]:
    return boundaries(design.looks, design.alpha, design.spending)


class PlannedLook(Struct, frozen=True):
    """One planned look: its share of the units, the boundary of |z|, and how likely the effect is found by then."""

    fraction: float
    boundary: float
    found: float


def planned_looks(before: Baseline, design: Design, effect: float, units: int) -> tuple[PlannedLook, ...]:
    """What each look of a group sequential design contributes to its power (Jennison and Turnbull 2000, eq. 19.3 to 19.9)."""
    std_error, limits = _std_error(before, design, effect, units), _limits(design)
    found = crossing(design.looks, limits, effect / std_error).sum(axis=1).cumsum()
    return tuple(PlannedLook(*map(float, one)) for one in zip(design.looks, limits, found, strict=True))


class SampleSize(Struct, frozen=True):
    """Units of each arm."""

    control: int
    treatment: int


def baseline_of(summary: Summary, kind: Kind) -> Baseline | CannotTell:
    """A baseline from what was measured."""
    one = arm("baseline", summary, kind)
    return one if isinstance(one, CannotTell) else Baseline(kind=kind, mean=one.mean, variance=one.variance)


def power(before: Baseline, design: Design, effect: float, units: int) -> float | CannotTell:
    """How likely an effect, in the units of the design's difference, is found with so many units of both arms together.

    Source: Chow, Shao, Wang, *Sample Size Calculations in Clinical Research*, sections 3.2 and 4.2, with the lift's variance of arXiv
    1803.06336, section 3.
    """
    refusal = _refusal(before, design, effect) or _too_few(before, design, units)
    return refusal if refusal is not None else _power(before, design, effect, units)


def sample_size(before: Baseline, design: Design, effect: float) -> SampleSize | CannotTell:
    """The least units with which an effect is found with the design's power (sources: ``power``'s, solved for the units).

    >>> sample_size(Baseline.proportion(0.1), Design(difference=Difference.ABSOLUTE), 0.02)
    SampleSize(control=3839, treatment=3839)
    """
    if effect == 0.0:
        return CannotTell("no number of units finds an effect of 0; name the smallest effect worth having")
    refusal = _refusal(before, design, effect)
    if refusal is not None:
        return refusal
    units = _least(lambda n: _too_few(before, design, n) is None and _power(before, design, effect, n) >= design.power)
    if units is None:
        return CannotTell(f"more than {MOST_UNITS:.0e} units would be needed for an effect of {effect:g}")
    return SampleSize(control=_whole(units * (1.0 - design.share)), treatment=_whole(units * design.share))


def detectable(before: Baseline, design: Design, units: int, *, decrease: bool = False) -> float | CannotTell:
    """The smallest effect that is found with the design's power and so many units of both arms: above 0, or below it with ``decrease``.

    Sources: ``power``'s, solved for the effect.
    """
    refusal = _refusal(before, design, 0.0) or _too_few(before, design, units)
    if refusal is not None:
        return refusal
    sign = -1.0 if decrease else 1.0
    most = _largest(before, design, sign, units)

    def missing(size: float) -> float:
        return _power(before, design, sign * size, units) - design.power

    if missing(most) < 0.0:
        return CannotTell(f"not even an effect of {sign * most:.4g} would be found with {units} units at a power of {design.power:g}")
    return sign * float(brentq(missing, 0.0, most, xtol=1e-12 * most, rtol=1e-12))


def _power(before: Baseline, design: Design, effect: float, units: int) -> float:
    std_error = _std_error(before, design, effect, units)
    return 1.0 if std_error == 0.0 else design.chance(effect / std_error, units, std_error)


def _std_error(before: Baseline, design: Design, effect: float, units: int) -> float:
    """Of the estimated difference, if it is ``effect``."""
    mean = before.mean * (1.0 + effect) if design.difference is Difference.RELATIVE else before.mean + effect
    after = max(0.0, mean * (1.0 - mean)) if before.kind is Kind.PROPORTION else before.variance
    treatment, control = after / (units * design.share), before.variance / (units * (1.0 - design.share))
    if design.difference is Difference.ABSOLUTE:
        return math.sqrt(treatment + control)
    return math.sqrt(treatment + (1.0 + effect) ** 2 * control) / before.mean


def _largest(before: Baseline, design: Design, sign: float, units: int) -> float:
    """The largest size of an effect that there can be, or that is surely found."""
    if before.kind is not Kind.PROPORTION:
        std_error = _std_error(before, design, 0.0, units)
        return 1e3 * design.critical(units, std_error) * std_error
    room = 1.0 - before.mean if sign > 0.0 else before.mean
    return room / before.mean if design.difference is Difference.RELATIVE else room


def _refusal(before: Baseline, design: Design, effect: float) -> CannotTell | None:
    if before.kind is Kind.QUANTILE:
        return CannotTell("the power for a quantile needs its density, which a baseline does not have")
    if not before.variance > 0.0:
        return CannotTell("the baseline does not vary, so that there is nothing to plan for")
    after = before.mean * (1.0 + effect) if design.difference is Difference.RELATIVE else before.mean + effect
    if before.kind is Kind.PROPORTION and not 0.0 <= after <= 1.0:
        return CannotTell(f"an effect of {effect:g} on {before.mean:g} would be a proportion of {after:g}")
    return baseline(before.mean, 0.0) if design.difference is Difference.RELATIVE else None


def _too_few(before: Baseline, design: Design, units: int) -> CannotTell | None:
    """Why with so many units there would be no result: an arm with fewer than 2, or a baseline that cannot be divided by."""
    if units * min(design.share, 1.0 - design.share) < 2.0:
        return CannotTell(f"{units} units leave an arm with fewer than 2")
    if design.difference is Difference.ABSOLUTE:
        return None
    return baseline(before.mean, before.variance / (units * (1.0 - design.share)))


def _least(enough: Callable[[int], bool]) -> int | None:
    """The least number of units that is enough, by doubling and halving: more is never worse."""
    high = 4
    while not enough(high):
        high *= 2
        if high > MOST_UNITS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _whole(units: float) -> int:
    """Rounded up, but not for a rounding error's sake."""
    return math.ceil(units - 1e-9 * units)
