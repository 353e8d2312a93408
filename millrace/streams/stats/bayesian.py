"""What an effect says of the true difference to someone with a prior belief: posterior, chance to win, expected loss."""

from __future__ import annotations

import math

from msgspec import Struct
from scipy.special import ndtr, ndtri

from millrace.streams.stats.effect import Effect
from millrace.streams.stats.interval import check_level


class Prior(Struct, frozen=True):
    """A normal belief about the effect, in the effect's own units. An improper one says nothing: every effect is as likely."""

    mean: float = 0.0
    variance: float = 1.0
    proper: bool = False

    def __post_init__(self) -> None:
        if self.proper and not (0.0 < self.variance < math.inf and math.isfinite(self.mean)):
            raise ValueError(f"a proper prior needs a finite mean and a finite variance above 0, not {self.mean} and {self.variance}")


IMPROPER = Prior()


class Risk(Struct, frozen=True):
    """The loss to be expected from a choice: how much better the other arm is, where it is better, times how likely that is."""

    control: float
    treatment: float


class Posterior(Struct, frozen=True, kw_only=True):
    """The belief about the effect after the data. ``chance_to_win`` and ``risk`` are the treatment's where its direction is better."""

    lift: float
    std: float
    interval: tuple[float, float]
    chance_to_win: float
    risk: Risk


def posterior(effect: Effect, prior: Prior = IMPROPER, alpha: float = 0.05, *, lower_is_better: bool = False) -> Posterior:
    """The prior updated by an asymptotically normal estimate; the credible interval has equal tails and probability 1 - alpha.

    Sources: Gelman et al., *Bayesian Data Analysis*, 3rd edition, equations 2.9 and 2.10 (conjugate update); Stucchio,
    *Bayesian A/B Testing at VWO*, 2015 (chance to win, expected loss), whose mean of a normal above 0 is mu Phi(mu/s) + s phi(mu/s).
    """
    check_level(alpha)
    precision = 1.0 / effect.std_error**2
    known = 1.0 / prior.variance if prior.proper else 0.0
    lift = (effect.effect * precision + (prior.mean * known if prior.proper else 0.0)) / (precision + known)
    std = math.sqrt(1.0 / (precision + known))
    half = -float(ndtri(alpha / 2.0)) * std
    sign = -1.0 if lower_is_better else 1.0
    return Posterior(
        lift=lift,
        std=std,
        interval=(lift - half, lift + half),
        chance_to_win=float(ndtr(sign * lift / std)),
        risk=Risk(control=_expected_gain(sign * lift, std), treatment=_expected_gain(-sign * lift, std)),
    )


def _expected_gain(mean: float, std: float) -> float:
    """E[max(X, 0)] of a normal X; far below 0 the two terms cancel, so there it is the asymptotic series."""
    z = mean / std
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    if z < -30.0:
        far = 1.0 / (z * z)
        return std * density * far * (1.0 - 3.0 * far + 15.0 * far * far)
    return std * (z * float(ndtr(z)) + density)
