"""The difference between two arms as an estimate with a standard error: what every interval and test begins with."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Difference(StrEnum):
    """Whether an effect is told as a share of the control's mean, or in the metric's own units."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


class Effect(Struct, frozen=True, kw_only=True):
    """An estimated difference, treatment less control, asymptotically normal.

    ``n`` is how many units both arms have together; ``degrees`` are Welch-Satterthwaite's degrees of freedom. ``control_mean`` is the
    (adjusted) mean of the control, in the metric's own units: a ratio's is the quotient of the means.
    """

    effect: float
    std_error: float
    n: int
    degrees: float
    control_mean: float
    treatment_mean: float
    difference: Difference
