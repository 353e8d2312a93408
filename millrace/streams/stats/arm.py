"""One arm's estimate with its squared standard error, and two of them set against each other: what every comparison is made of."""

from __future__ import annotations

import math

from msgspec import Struct

from millrace.schemas.evidence import CannotTell, Kind
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.summary import Summary

MAXIMUM_G = 0.15
"""How uncertain a mean may be and still be divided by: Fieller's g at 95 %. See ``divisor``."""
_Z95_SQUARED = 3.841458820694124


class Arm(Struct, frozen=True, kw_only=True):
    """What one arm's units say of a metric: the estimate, its squared standard error, and that one's degrees of freedom."""

    n: int
    mean: float
    squared_error: float
    degrees: float

    @property
    def variance(self) -> float:
        """Of one unit's value; a ratio's is linearised."""
        return self.squared_error * self.n


def arm(name: str, summary: Summary, kind: Kind) -> Arm | CannotTell:
    """An arm's estimate: a mean, a proportion with variance p (1 - p), or a ratio of means by the delta method.

    Source: Deng, Knoblich, Lu, *Applying the Delta Method in Metric Analytics*, KDD 2018, arXiv 1803.06336, section 4 (ratio).
    """
    if summary.n < 2:
        return CannotTell(f"the {name} has {summary.n} unit{'s' * (summary.n != 1)}; a comparison needs at least 2 in each arm")
    match kind:
        case Kind.MEAN:
            mean, variance = summary.mean, summary.variance
        case Kind.PROPORTION:
            mean, variance = summary.mean, summary.mean * (1.0 - summary.mean)
        case Kind.RATIO:
            if summary.denominator_variance < 0.0:
                return contradiction(name, f"no denominator has a variance of {summary.denominator_variance:.6g}")
            uncertain = divisor(f"{name}'s denominator", summary.denominator_mean, summary.denominator_variance / summary.n)
            if uncertain is not None:
                return uncertain
            mean = summary.mean / summary.denominator_mean
            variance = linearised(summary, mean, summary.denominator_mean)
        case Kind.QUANTILE:
            return CannotTell("a quantile is not a function of moments: it is computed in reports, from the archive")
    if not variance >= 0.0:
        return contradiction(name, f"no {kind.value} has a variance of {variance:.6g}")
    return Arm(n=summary.n, mean=mean, squared_error=variance / summary.n, degrees=summary.n - 1.0)


def contradiction(name: str, why: str) -> CannotTell:
    """That an arm's sums are not those of any data."""
    return CannotTell(f"the {name}'s sums contradict each other: {why}; check how they were summed")


def linearised(summary: Summary, ratio: float, divided_by: float) -> float:
    """The variance of one unit's (y - ratio z) / divided_by, which a ratio of means varies as (arXiv 1803.06336, section 4)."""
    rescaled = ratio * ratio * summary.denominator_variance
    residual = summary.variance - 2.0 * ratio * summary.covariance + rescaled
    return rounded(residual, summary.variance + rescaled) / divided_by / divided_by


def rounded(residual: float, scale: float) -> float:
    """A difference of variances whose rounding errors alone would be negative or above 0, as 0."""
    return 0.0 if abs(residual) <= 1e-13 * scale else residual


def contrast(control: Arm, treatment: Arm, difference: Difference) -> Effect | CannotTell:
    """Two independent arms' difference. Relative: the lift T / C - 1 by the delta method.

    Sources: Welch, *The generalization of Student's problem*, Biometrika 1947; arXiv 1803.06336, section 3 (lift):
    var(T / C) = (var T + (T / C)^2 var C) / C^2.
    """
    squared_error = treatment.squared_error + control.squared_error
    if difference is Difference.RELATIVE:
        refusal = baseline(control.mean, control.squared_error)
        if refusal is not None:
            return refusal
        quotient = treatment.mean / control.mean
        squared_error = (treatment.squared_error + quotient * quotient * control.squared_error) / control.mean / control.mean
    return effect_of(control, treatment, difference, squared_error)


def effect_of(control: Arm, treatment: Arm, difference: Difference, squared_error: float) -> Effect | CannotTell:
    """The difference of two arms' means with a given squared standard error, or that nothing varies."""
    if control.squared_error + treatment.squared_error <= 0.0 or squared_error <= 0.0:
        return CannotTell("neither arm's metric varies, so that there is no standard error; wait until units differ")
    effect = treatment.mean - control.mean
    if difference is Difference.RELATIVE:
        effect /= control.mean
    if not (math.isfinite(effect) and math.isfinite(squared_error)):
        return CannotTell("the numbers are too large for a double; record the metric in a larger unit")
    return Effect(
        effect=effect,
        std_error=math.sqrt(squared_error),
        n=control.n + treatment.n,
        degrees=welch_degrees(control, treatment),
        control_mean=control.mean,
        treatment_mean=treatment.mean,
        difference=difference,
    )


def welch_degrees(control: Arm, treatment: Arm) -> float:
    """Welch-Satterthwaite's degrees of freedom of a sum of two squared standard errors (Welch 1947; Satterthwaite, Biometrics 1946).

    >>> one = Arm(n=10, mean=0.0, squared_error=0.5, degrees=9.0)
    >>> welch_degrees(one, one)
    18.0
    """
    share = control.squared_error / (control.squared_error + treatment.squared_error)
    return 1.0 / (share * share / control.degrees + (1.0 - share) * (1.0 - share) / treatment.degrees)


def baseline(mean: float, squared_error: float) -> CannotTell | None:
    """Why a lift over this control's mean would not be told, if so: it is not positive, or not clearly so (``divisor`` has the source)."""
    if mean <= 0.0:
        said = "0" if mean == 0.0 else f"{mean:.6g}, below 0"
        return CannotTell(f"the control's mean is {said}: a relative difference has no meaning; ask for the absolute one")
    return divisor("control", mean, squared_error, " or ask for the absolute difference")


def divisor(name: str, mean: float, squared_error: float, otherwise: str = "") -> CannotTell | None:
    """Why a mean must not be divided by, if so: Fieller's g = z^2 se^2 / mean^2 at 95 % is above ``MAXIMUM_G``.

    At g >= 1 the mean is not told from 0 and Fieller's own set is unbounded; only at small g are the delta method's intervals as good as
    Fieller's (Fieller, JRSS B 1954; Finney, *Statistical Method in Biological Assay*, 1978; Cox, Biometrics 1990). Between normal means,
    95 % intervals of a lift miss in 4.7 to 5.2 % of samples at a true g of 0.09, and in 5.1 % (lift 0) to 6.0 % (lift 1) at the limit.
    Refusing chooses samples by their control: near the limit those told are less often right than all are, told or refused. A proportion's
    g is about 3.84 / conversions, so that there is a lift from 26 conversions on, fewer where the proportion is large.
    """
    if mean == 0.0:
        return CannotTell(f"the {name}'s mean is 0 and cannot be divided by")
    g = _Z95_SQUARED * squared_error / mean / mean
    if g <= MAXIMUM_G:
        return None
    return CannotTell(
        f"the {name}'s mean, {mean:.6g} with a standard error of {math.sqrt(squared_error):.3g}, is not clearly away from 0 (Fieller's g is"
        f" {g:.3g}, the limit {MAXIMUM_G}): too uncertain to divide by; wait for more units{otherwise}"
    )
