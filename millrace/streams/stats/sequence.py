"""An interval that may be looked at after every unit: the asymptotic confidence sequence, two-sided and one-sided.

Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, *Time-uniform central limit theory and asymptotic confidence sequences*,
arXiv 2103.06476 (Annals of Statistics 2024); equation numbers are of its seventh version. With z = effect / std_error and v = n rho^2 + 1,
the evidence against no effect is the e-value exp(z^2 n rho^2 / 2 v) / sqrt(v): one normal mixture over effects, a pure function of the
estimate. Bounds and p-values here are those of this look; the tightest bound and the smallest p-value so far are valid too, and are the
caller's state. Asymptotic means: before some hundred units an arm, or with very skewed values, the level is not guaranteed.
"""

from __future__ import annotations

import math
from enum import StrEnum

from msgspec import Struct

from millrace.schemas.evidence import CannotTell
from millrace.streams.stats.effect import Effect

TUNING = 5000.0
"""At how many units (both arms) the interval is narrowest, unless the plan says otherwise."""


class Side(StrEnum):
    """Which side of the effect a one-sided sequence bounds."""

    LOWER = "lower"
    """Bounds from below: is the effect more than the margin?"""
    UPPER = "upper"
    """Bounds from above: is the effect less than the margin?"""


class AlwaysValid(Struct, frozen=True):
    """An interval for the effect and a p-value of no effect, both valid however often and whenever they are looked at."""

    interval: tuple[float, float]
    p_value: float


class OneSided(Struct, frozen=True):
    """A bound of the effect, and the p-value of the effect lying at or beyond ``margin`` on the harmless side. Valid at any look."""

    side: Side
    bound: float
    margin: float
    p_value: float


def rho(alpha: float, tuning: float) -> float:
    """The mixture's scale that makes the two-sided interval about narrowest at ``tuning`` units (arXiv 2103.06476, eq. 161).

    >>> round(rho(0.05, 5000), 10)
    0.0398400668
    """
    _check(alpha, tuning)
    twice = -2.0 * math.log(alpha)
    return math.sqrt((twice + math.log1p(twice)) / tuning)


def half_width(std_error: float, n: int, alpha: float, tuning: float) -> float:
    """The two-sided interval's half width at ``n`` >= 1 units (arXiv 2103.06476, eq. 9, where the variance is n std_error^2).

    >>> round(half_width(1.0, 5000, 0.05, 5000) / 1.959964, 3)
    1.549
    """
    growth = _growth(n, alpha, tuning)
    return std_error * math.sqrt(2.0 * (1.0 + 1.0 / growth) * (0.5 * math.log1p(growth) - math.log(alpha)))


def log_evalue(effect: Effect, alpha: float, tuning: float) -> float | CannotTell:
    """The natural logarithm of this look's e-value against no effect (arXiv 2103.06476, eq. 155).

    Without an effect its exponential stays below 1 / alpha for ever, with probability 1 - alpha: the running maximum may be kept.
    """
    return _unknown(effect) or _log_evalue(effect, alpha, tuning)


def always_valid(effect: Effect, alpha: float = 0.05, tuning: float = TUNING) -> AlwaysValid | CannotTell:
    """The effect's interval and p-value at level ``alpha``, valid at every look.

    The p-value is the smallest level whose interval leaves out 0, with rho held at the nominal level's: min(1, 1 / e-value)
    (arXiv 2103.06476, eq. 155).
    """
    unknown = _unknown(effect)
    if unknown is not None:
        return unknown
    half = half_width(effect.std_error, effect.n, alpha, tuning)
    p_value = math.exp(min(0.0, -_log_evalue(effect, alpha, tuning)))
    return AlwaysValid((effect.effect - half, effect.effect + half), p_value)


def one_sided(effect: Effect, side: Side, margin: float = 0.0, alpha: float = 0.05, tuning: float = TUNING) -> OneSided | CannotTell:
    """Whether the effect is above (``LOWER``) or below (``UPPER``) the margin, at level ``alpha``, valid at every look.

    A guardrail: where more is better and a loss of 2 % is the limit, harm is shown by ``one_sided(effect, Side.UPPER, -0.02)`` once its
    bound lies below the margin, equally once p_value < alpha. The bound is effect -+ std_error sqrt(2 (1 + 1 / n rho^2)
    log(1 + sqrt(v) / 2 alpha)) with rho of 2 alpha: the one-sided mixture of Howard et al., arXiv 1810.08240, in the asymptotic form of
    arXiv 2103.06476, appendix B. Raises ValueError where ``alpha`` is not below 0.5.
    """
    unknown = _unknown(effect)
    if unknown is not None:
        return unknown
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"a one-sided alpha must be between 0 and 0.5, not {alpha}")
    growth = _growth(effect.n, 2.0 * alpha, tuning)
    half = effect.std_error * math.sqrt(2.0 * (1.0 + 1.0 / growth) * math.log1p(math.sqrt(1.0 + growth) / (2.0 * alpha)))
    sign = 1.0 if side is Side.LOWER else -1.0
    z = sign * (effect.effect - margin) / effect.std_error
    return OneSided(side, effect.effect - sign * half, margin, _one_sided_p(z, growth))


def _log_evalue(effect: Effect, alpha: float, tuning: float) -> float:
    growth = _growth(effect.n, alpha, tuning)
    return 0.5 * ((effect.effect / effect.std_error) ** 2 * growth / (1.0 + growth) - math.log1p(growth))


def _growth(n: int, alpha: float, tuning: float) -> float:
    """How far the sequence has come: n rho^2, about 9 at ``tuning`` units for alpha = 0.05."""
    return n * rho(alpha, tuning) ** 2


def _one_sided_p(z: float, growth: float) -> float:
    """The level at which the one-sided bound just reaches the margin: sqrt(v) / 2 (exp(z^2 n rho^2 / 2 v) - 1), at most 1."""
    exponent = 0.5 * z * z * growth / (1.0 + growth)
    if z <= 0.0 or exponent == 0.0:
        return 1.0
    log_less_one = exponent + math.log(-math.expm1(-exponent))
    return math.exp(min(0.0, 0.5 * math.log1p(growth) - math.log(2.0) - log_less_one))


def _unknown(effect: Effect) -> CannotTell | None:
    if effect.n < 2:
        return CannotTell("a sequential interval needs at least two units")
    if not (math.isfinite(effect.effect) and math.isfinite(effect.std_error)):
        return CannotTell("the effect or its standard error is not a number")
    return None if effect.std_error > 0.0 else CannotTell("the metric does not vary, so that there is no standard error")


def _check(alpha: float, tuning: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    if not 0.0 < tuning < math.inf:
        raise ValueError(f"tuning must be a number of units above 0, not {tuning}")
