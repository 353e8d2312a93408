"""Intervals and tests of an effect for a horizon that was fixed before the data came: looked at once, not as they come."""

from __future__ import annotations

from msgspec import Struct
from scipy.special import stdtr, stdtrit

from millrace.streams.stats.effect import Effect


class Fixed(Struct, frozen=True):
    """The interval of an effect and the two-sided p-value of no effect, valid at one look."""

    interval: tuple[float, float]
    p_value: float


def fixed(effect: Effect, alpha: float = 0.05) -> Fixed:
    """The interval that covers in 1 - alpha of experiments, and the p-value, by Student's t (Welch, Biometrika 1947).

    >>> from millrace.streams.stats.effect import Difference
    >>> one = Effect(effect=0.29, std_error=0.1247836316, n=6868, degrees=5841.74, control_mean=0.41, treatment_mean=0.7,
    ...              difference=Difference.ABSOLUTE)
    >>> [round(bound, 5) for bound in fixed(one).interval], round(fixed(one).p_value, 5)
    ([0.04538, 0.53462], 0.02016)
    """
    check_level(alpha)
    half = -effect.std_error * float(stdtrit(effect.degrees, alpha / 2.0))
    return Fixed((effect.effect - half, effect.effect + half), 2.0 * tail(effect, abs(effect.effect)))


def p_greater(effect: Effect, margin: float = 0.0) -> float:
    """One-sided p-value of an effect at or below ``margin``: small where the effect is greater. Units are the effect's own.

    Source: Student's t with Welch's degrees (Biometrika 1947), one tail of it.
    """
    return tail(effect, effect.effect - margin)


def p_less(effect: Effect, margin: float = 0.0) -> float:
    """One-sided p-value of an effect at or above ``margin``: small where the effect is less. A guardrail's margin is below 0.

    Source: Student's t with Welch's degrees (Biometrika 1947), one tail of it.
    """
    return tail(effect, margin - effect.effect)


def bounds(effect: Effect, alpha: float = 0.05) -> tuple[float, float]:
    """The lower and the upper one-sided bound, each of which covers in 1 - alpha of experiments; not both together (Welch 1947)."""
    check_level(alpha)
    half = -effect.std_error * float(stdtrit(effect.degrees, alpha))
    return effect.effect - half, effect.effect + half


def tail(effect: Effect, distance: float) -> float:
    """How likely a difference of at least ``distance`` is by chance: the upper tail itself, never 1 less the lower one."""
    return float(stdtr(effect.degrees, -distance / effect.std_error))


def check_level(alpha: float) -> None:
    """Raise ValueError on an alpha that is no share."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
