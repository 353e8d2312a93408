"""A planned number of looks, each with its own boundary, which together spend alpha: O'Brien-Fleming and Pocock.

Sources: Armitage, McPherson and Rowe (JRSS A 1969) for the recursion; Pocock (Biometrika 1977) and O'Brien and Fleming (Biometrics 1979)
for the shapes; Lan and DeMets (Biometrika 1983) for spending; Jennison and Turnbull, *Group Sequential Methods* (2000). All tests are
two-sided and symmetric. The sum up to a look is a Brownian motion at the share of information gathered by then; its density inside the
boundaries is carried from look to look on a grid of Gauss-Legendre nodes, not simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri

from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import LEAST_STEP as LEAST_STEP
from millrace.schemas.experiment import Spending as Spending
from millrace.streams.stats.effect import Effect

Floats = npt.NDArray[np.float64]
_FAR = 8.5
"""Standard deviations beyond which the density is not carried on: 2e-17 of it."""
_HIGHEST = 40.0
_LEAST_SPEND = 1e-300
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


class Look(Struct, frozen=True, kw_only=True):
    """One planned look: whether |z| reaches the boundary, the alpha spent on this look's own p-value, and the repeated interval."""

    z: float
    boundary: float
    crossed: bool
    nominal_alpha: float
    """What an ordinary two-sided p-value must be below at this look."""
    interval: tuple[float, float]
    """Jennison and Turnbull's repeated confidence interval: valid at all looks together (chapter 9)."""


class _Walk(Struct, frozen=True):
    """The sum's density inside the boundaries so far: ``mass`` (m,) at ``places`` (m,), with the information gathered."""

    fraction: float
    places: Floats
    mass: Floats

    def cross(self, fraction: float, limit: float, drift: float) -> tuple[float, float]:
        """The chances that the sum at ``fraction`` is at or below -limit, and at or above it."""
        step = fraction - self.fraction
        mean, spread = self.places + drift * step, math.sqrt(step)
        return float(self.mass @ ndtr((-limit - mean) / spread)), float(self.mass @ ndtr((mean - limit) / spread))

    def log_upper(self, fraction: float, limit: float) -> float:
        """The logarithm of the chance to be at or above ``limit`` without drift."""
        spread = math.sqrt(fraction - self.fraction)
        return float(logsumexp(log_ndtr((self.places - limit) / spread), b=self.mass))

    def on(self, fraction: float, limit: float, drift: float, finest: float) -> _Walk:
        """The density at ``fraction``, inside (-limit, limit), on nodes close enough for steps down to ``finest``."""
        step = fraction - self.fraction
        low, high = (max(-limit, drift * fraction - _FAR * math.sqrt(fraction)), min(limit, drift * fraction + _FAR * math.sqrt(fraction)))
        places, widths = _grid(low, max(low, high), math.sqrt(min(step, finest)))
        spread = math.sqrt(step)
        apart = (places[:, None] - self.places[None, :] - drift * step) / spread
        return _Walk(fraction, places, widths * (np.exp(-0.5 * apart**2) @ self.mass) / (spread * math.sqrt(2.0 * math.pi)))


def spent(fraction: float, alpha: float, spending: Spending) -> float:
    """How much of the two-sided ``alpha`` may be spent once this share of the information is in (Lan and DeMets 1983, alpha / 2 a side).

    >>> round(spent(0.5, 0.05, Spending.OBRIEN_FLEMING), 5), round(spent(0.5, 0.05, Spending.POCOCK), 5)
    (0.00305, 0.03101)
    """
    match spending:
        case Spending.OBRIEN_FLEMING:
            return 4.0 * float(ndtr(ndtri(alpha / 4.0) / math.sqrt(fraction)))
        case Spending.POCOCK:
            return alpha * math.log1p((math.e - 1.0) * fraction)


def boundaries(fractions: Sequence[float], alpha: float, spending: Spending, *, ended: bool = False) -> tuple[float, ...]:
    """The boundary of |z| at each look, for any shares of the information: they need not be equal, nor known in advance.

    A boundary depends on the looks up to it alone. Shares rise to at most 1. Raises ValueError otherwise. Where it ``ended``, the last
    look spends all that is left of alpha, and its share is what it came to, below 1 or above. Source: Lan and DeMets 1983; Jennison and
    Turnbull 2000, section 7.2.

    >>> [round(b, 3) for b in boundaries([0.2, 0.4, 0.6, 0.8, 1.0], 0.05, Spending.OBRIEN_FLEMING)]
    [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    _check(fractions, alpha, ended)
    return _boundaries(tuple(fractions), alpha, spending, ended)


@lru_cache(maxsize=256)
def _boundaries(fractions: tuple[float, ...], alpha: float, spending: Spending, ended: bool) -> tuple[float, ...]:
    """All comparisons of a look ask for the same ones."""
    walk, found, before = _start(), [], 0.0
    for number, (fraction, finest) in enumerate(_steps(fractions), 1):
        now = alpha if ended and number == len(fractions) else spent(fraction, alpha, spending)
        found.append(_solve(walk, fraction, max(_LEAST_SPEND, (now - before) / 2.0)))
        walk, before = walk.on(fraction, found[-1] * math.sqrt(fraction), 0.0, finest), now
    return tuple(found)


def classical(fractions: Sequence[float], alpha: float, shape: Spending) -> tuple[float, ...]:
    """The boundaries of the original designs, whose looks are all planned.

    |z| is constant (Pocock) or falls as 1 / sqrt(share of information) (O'Brien-Fleming). Sources: Pocock 1977;
    O'Brien and Fleming 1979; Jennison and Turnbull 2000, tables 2.1 and 2.3.

    >>> [round(b, 3) for b in classical([0.2, 0.4, 0.6, 0.8, 1.0], 0.05, Spending.OBRIEN_FLEMING)]
    [4.562, 3.226, 2.634, 2.281, 2.04]
    """
    _check(fractions, alpha, False)
    form = [1.0 if shape is Spending.POCOCK else math.sqrt(fractions[-1] / fraction) for fraction in fractions]

    def excess(constant: float) -> float:
        return float(crossing(fractions, [constant * one for one in form]).sum()) - alpha

    one_look, bonferroni = float(-ndtri(alpha / 2.0)), float(-ndtri(alpha / 2.0 / len(fractions)))
    constant = float(brentq(excess, one_look - 1e-6, bonferroni + 1e-6, xtol=1e-11))
    return tuple(constant * one for one in form)


def crossing(fractions: Sequence[float], limits: Sequence[float], drift: float = 0.0) -> Floats:
    """The chance (looks, 2) to stop at each look below and above, if |z| is held against ``limits``.

    ``drift`` is the z expected at the whole information: the sum over looks is then the design's power; without it, its level. Source:
    Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, eq. 19.3 to 19.9.

    >>> round(float(crossing([0.5, 1.0], [2.178, 2.178]).sum()), 3)
    0.05
    """
    walk, chances = _start(), []
    for (fraction, finest), limit in zip(_steps(fractions), limits, strict=True):
        chances.append(walk.cross(fraction, limit * math.sqrt(fraction), drift))
        walk = walk.on(fraction, limit * math.sqrt(fraction), drift, finest)
    return np.array(chances)


def look(effect: Effect, fractions: Sequence[float], alpha: float, spending: Spending, *, ended: bool = False) -> Look | CannotTell:
    """Judge the look at the last of the ``fractions``, which are those of all looks so far, this one with them.

    ``ended``: no look comes after it, so that it spends what is left of alpha. Source: Jennison and Turnbull 2000, chapters 7 (spending)
    and 9 (repeated intervals).
    """
    if not (math.isfinite(effect.effect) and 0.0 < effect.std_error < math.inf):
        return CannotTell("the metric does not vary, so that there is no standard error")
    boundary = boundaries(fractions, alpha, spending, ended=ended)[-1]
    z, half = effect.effect / effect.std_error, boundary * effect.std_error
    nominal = 2.0 * float(ndtr(-boundary))
    interval = (effect.effect - half, effect.effect + half)
    return Look(z=z, boundary=boundary, crossed=abs(z) >= boundary, nominal_alpha=nominal, interval=interval)


def _start() -> _Walk:
    return _Walk(0.0, np.zeros(1), np.ones(1))


def _steps(fractions: Sequence[float]) -> list[tuple[float, float]]:
    """Each share with the step after it, which the grid at it must resolve."""
    return [(one, after - one) for one, after in zip(fractions, [*fractions[1:], math.inf], strict=True)]


def _solve(walk: _Walk, fraction: float, one_side: float) -> float:
    """The boundary that the sum passes upwards with this chance."""
    scale, target = math.sqrt(fraction), math.log(one_side)
    return float(brentq(lambda z: walk.log_upper(fraction, z * scale) - target, 0.0, _HIGHEST, xtol=1e-11))


def _grid(low: float, high: float, spread: float) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on panels three kernel widths wide."""
    panels = max(1, math.ceil((high - low) / (3.0 * spread)))
    half = (high - low) / panels / 2.0
    middles = low + half * (2.0 * np.arange(panels) + 1.0)
    return (middles[:, None] + half * _NODES).ravel(), np.tile(half * _WEIGHTS, panels)


def _check(fractions: Sequence[float], alpha: float, ended: bool) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    if not fractions or max(fractions[: -1 if ended else None], default=0.0) > 1.0 + 1e-12:
        raise ValueError("give the share of the planned information at each look; the last is at most 1")
    if min(np.diff([0.0, *fractions])) < LEAST_STEP:
        raise ValueError(f"each look must have at least {LEAST_STEP} of the information more than the one before: leave looks out")
