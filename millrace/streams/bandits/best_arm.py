"""The probability that an arm's draw is the largest of all, by quadrature: no Monte-Carlo noise, the same bits every time.

With densities f and distribution functions F, arm i is the best with probability

    P_i = integral of f_i(x) prod over j != i of F_j(x) dx

(Thompson 1933; Chapelle & Li 2011; Scott 2010, eq. 1). All arms are integrated over one grid: each arm cuts the axis at fixed multiples of
its own standard deviation, and a Gauss-Legendre rule stands between neighbouring cuts, so that no panel is wide for any arm however
their scales differ. Gauss-Hermite over an arm's own density was rejected: a narrow arm is a step between the nodes of a wide one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, expit, ndtr, polygamma, psi

from millrace.schemas.errors import UsageError

Floats = npt.NDArray[np.float64]

NARROWEST = 1e-8
"""The least standard deviation, as a share of what the arms span: a narrower one, or none at all, is a point to the other arms."""
TINY = 1e-300
LEAST_BETA = 0.05
"""Below it the tail of the logit is longer than a double's exponents."""
ROOT_TWO_PI = float(np.sqrt(2 * np.pi))


class Quadrature(NamedTuple):
    """Where an arm cuts the axis, in its standard deviations, and a Gauss-Legendre rule over (0, 1) for between the cuts."""

    cuts: Floats
    nodes: Floats
    weights: Floats


def rule(cuts: Sequence[float], order: int) -> Quadrature:
    """Cuts at both signs of ``cuts`` and at 0, with ``order`` nodes between neighbours."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return Quadrature(np.array(sorted({0.0, *cuts, *(-cut for cut in cuts)})), (nodes + 1) / 2, weights / 2)


FINE = rule((1, 2, 3, 4, 5, 6, 7, 8.5), 10)
"""Normal arms to about 1e-13: the judge's, once a second."""
QUICK = rule((1, 2, 3.5, 5.5), 4)
"""Normal arms to about 1e-6: inference's, for each request."""
LOGISTIC = rule((1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 36), 10)
"""Beta arms on the logit's axis, where their tails are exponential."""


def best_arm_probabilities(means: Sequence[float], stds: Sequence[float]) -> list[float]:
    """P(arm i has the largest draw) of independent normals; a standard deviation of 0 is a point (to 1e-8). Sums to 1 within 1e-12.

    Raises UsageError for a mean or a standard deviation that is not finite, or below 0. Of two arms it is
    Phi((m1 - m2) / sqrt(s1^2 + s2^2)):

    >>> [round(p, 6) for p in best_arm_probabilities([1.0, 0.0], [0.6, 0.8])]
    [0.841345, 0.158655]
    >>> best_arm_probabilities([2.0, 1.0, 2.0], [0.0, 0.0, 0.0])
    [0.5, 0.0, 0.5]
    """
    m, s = np.array([means], dtype=np.float64), np.array([stds], dtype=np.float64)
    if m.shape != s.shape or m.size == 0 or not (np.isfinite(m).all() and np.isfinite(s).all() and (s >= 0).all()):
        raise UsageError("the best arm needs one finite mean and one finite standard deviation of at least 0 for each arm")
    shares: list[float] = best_normal(m, s, FINE)[0].tolist()
    return shares


def best_normal(means: Floats, stds: Floats, by: Quadrature) -> Floats:
    """As ``best_arm_probabilities`` for many sets of arms at once: (n, k) and (n, k) to (n, k), all finite.

    Each row is computed by itself with elementwise arithmetic and sums along its own memory: a row's bits do not depend on the others.
    """
    span = _span(means, stds)
    m = (means - means.max(axis=1, keepdims=True)) / span
    s = np.maximum(stds / span, NARROWEST)
    nodes, weights = _grid(m, s, by)
    z = (nodes[:, None, :] - m[:, :, None]) / s[:, :, None]
    density = np.exp(-0.5 * z * z) / (ROOT_TWO_PI * s[:, :, None])
    return _shares(density, ndtr(z), weights)


def best_beta(successes: Sequence[float], failures: Sequence[float]) -> list[float]:
    """P(arm i has the largest draw) of independent Beta(successes, failures). Sums to 1 within 1e-12.

    Integrated over the logit, on which every Beta is smooth. Raises UsageError for a parameter that is not finite, or below 0.05.

    >>> [round(p, 12) for p in best_beta([2.0, 1.0], [1.0, 1.0])]
    [0.666666666667, 0.333333333333]
    """
    a, b = np.array([successes], dtype=np.float64), np.array([failures], dtype=np.float64)
    if a.shape != b.shape or a.size == 0 or not (np.isfinite(a).all() and np.isfinite(b).all() and min(a.min(), b.min()) >= LEAST_BETA):
        raise UsageError(f"the best arm of Beta distributions needs two finite parameters of at least {LEAST_BETA} for each arm")
    nodes, weights = _grid(psi(a) - psi(b), np.sqrt(polygamma(1, a) + polygamma(1, b)), LOGISTIC)
    a, b, t = a[:, :, None], b[:, :, None], nodes[:, None, :]
    # The smaller of x and 1 - x is the one that a double holds exactly.
    below = np.where(t < 0, betainc(a, b, expit(t)), 1 - betainc(b, a, expit(-t)))
    density = np.exp(_log_beta(a, b, t))
    density /= (density * weights[:, None, :]).sum(axis=2, keepdims=True)
    shares: list[float] = _shares(density, below, weights)[0].tolist()
    return shares


def _log_beta(a: Floats, b: Floats, t: Floats) -> Floats:
    """The log density of a Beta's logit, less its value at log(a / b).

    By the distance from there: the difference of a log x and its value at the mode is all rounding once a has nine digits.
    """
    u = t - np.log(a / b)
    share = a / (a + b)
    near = np.log1p(share * np.expm1(np.clip(u, -1, 1)))
    far = np.logaddexp(np.log(b / (a + b)), np.log(share) + u)
    log_density: Floats = a * u - (a + b) * np.where(np.abs(u) < 1, near, far)
    return log_density


def _span(means: Floats, stds: Floats) -> Floats:
    """How far the arms of each row reach, (n, 1); 1 where all are the same point."""
    span = stds.max(axis=1, keepdims=True) + means.max(axis=1, keepdims=True) - means.min(axis=1, keepdims=True)
    return np.where(span > 0, span, 1.0)


def _grid(centres: Floats, scales: Floats, by: Quadrature) -> tuple[Floats, Floats]:
    """The nodes and weights of each row of arms: (n, k) to twice (n, panels x order)."""
    n, k = centres.shape
    number = k * len(by.cuts)
    cuts = (centres[:, :, None] + scales[:, :, None] * by.cuts).reshape(n, number)
    cuts.sort(axis=1)
    starts = cuts[:, :-1, None]
    widths = cuts[:, 1:, None] - starts
    size = (number - 1) * len(by.nodes)
    return (starts + widths * by.nodes).reshape(n, size), (widths * by.weights).reshape(n, size)


def _shares(density: Floats, below: Floats, weights: Floats) -> Floats:
    """The integrals, (n, k, nodes) to (n, k), normalised by their sum.

    The product over the other arms is the product over all divided by the arm's own: where that underflows, the whole is nothing.
    """
    everyone = below.prod(axis=1) * weights
    shares: Floats = (density / np.maximum(below, TINY) * everyone[:, None, :]).sum(axis=2)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
