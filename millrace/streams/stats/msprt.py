"""The mixture sequential probability ratio test: evidence for an effect of about ``tau``, which may be looked at after every unit.

Source: Johari, Koomen, Pekelis and Walsh, *Always valid inference: continuous monitoring of A/B tests*, arXiv 1512.04922 (Operations
Research 2022), with a normal mixture N(0, tau^2) over the effect. With V = std_error^2 the e-value is
sqrt(V / (V + tau^2)) exp(effect^2 tau^2 / 2 V (V + tau^2)): a pure function of the estimate, whatever the order of the units.
The p-value needs its running maximum, which is the caller's state. All in logarithms: a strong effect does not overflow.
"""

from __future__ import annotations

import math

from millrace.schemas.evidence import CannotTell
from millrace.streams.stats.effect import Effect

FAR = 1e100
"""Beyond this ratio of tau and the standard error, squares leave the range of doubles."""


def log_evalue(effect: Effect, tau: float) -> float | CannotTell:
    """The natural logarithm of this look's e-value against no effect; ``tau`` is the expected size of an effect, in the effect's units.

    Source: arXiv 1512.04922, the normal mixture's likelihood ratio. Raises ValueError where tau is not above 0.
    """
    _check(tau)
    if not (math.isfinite(effect.effect) and math.isfinite(effect.std_error)):
        return CannotTell("the effect or its standard error is not a number")
    if not effect.std_error > 0.0:
        return CannotTell("the metric does not vary, so that there is no standard error")
    if not 1.0 / FAR < tau / effect.std_error < FAR:
        return CannotTell(f"tau, {tau:g}, is too far from the standard error, {effect.std_error:g}, to be computed with")
    growth = (tau / effect.std_error) ** 2
    z = effect.effect / effect.std_error
    return 0.5 * (z * z * growth / (1.0 + growth) - math.log1p(growth))


def p_value(log_maximum: float) -> float:
    """The p-value from the running maximum of the logarithm of the e-value: min(1, 1 / maximum) (arXiv 1512.04922).

    >>> p_value(-1.0), round(p_value(3.0), 6)
    (1.0, 0.049787)
    """
    return math.exp(min(0.0, -log_maximum))


def half_width(std_error: float, alpha: float, tau: float) -> float:
    """Half the width of the interval of all effects that this look does not reject at ``alpha`` (arXiv 1512.04922, by inversion).

    >>> round(half_width(0.02, 0.05, 0.05), 4)
    0.0608
    """
    _check(tau)
    growth = (tau / std_error) ** 2
    return std_error * math.sqrt((1.0 + 1.0 / growth) * (math.log1p(growth) - 2.0 * math.log(alpha)))


def _check(tau: float) -> None:
    if not 0.0 < tau < math.inf:
        raise ValueError(f"tau, the size of effect to expect, must be above 0, not {tau}")
