"""Sample ratio mismatch that may be looked at after every unit: a Dirichlet-multinomial Bayes factor.

Source: Lindon and Malek, *Anytime-valid inference for multinomial count data*, arXiv 2011.03567 (NeurIPS 2022). Under the intended
shares the factor is a martingale that begins at 1, so that its running maximum ever passes 1 / alpha with probability at most alpha.
It depends on the counts alone: neither the order of the units nor how often one looks changes it. The running maximum is the caller's
state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONCENTRATION = 10000.0
"""How tightly the alternative sits around the intended shares, in pseudo-units: large finds small mismatches, late."""


def log_bayes_factor(counts: Sequence[int], intended: Sequence[float], concentration: float = CONCENTRATION) -> float:
    """The natural logarithm of the evidence for other shares than the ``intended`` weights, from the arms' ``counts`` (k,).

    Arms with weight 0 (reached by override alone) are left out, as in Pearson's test. Fewer than two arms give no evidence: 0.
    Raises ValueError on lengths that differ, negative numbers or no weight at all.

    Exact to about 1e-6 at a thousand million units. Source: arXiv 2011.03567.

    >>> round(log_bayes_factor([1300, 1700], [1, 1]), 4)
    6.0241
    """
    _check(counts, intended, concentration)
    arms = [(count, weight) for count, weight in zip(counts, intended, strict=True) if weight > 0.0]
    weights, n = math.fsum(weight for _, weight in arms), sum(count for count, _ in arms)
    shares = [(count, weight / weights) for count, weight in arms]
    observed = math.fsum(_log_rising(concentration * share, count) - count * math.log(share) for count, share in shares)
    return observed - _log_rising(concentration, n)


def p_value(log_maximum: float) -> float:
    """The p-value from the running maximum of the logarithm of the Bayes factor: min(1, 1 / maximum) (arXiv 2011.03567).

    >>> p_value(-3.0), round(p_value(3.0), 6)
    (1.0, 0.049787)
    """
    return math.exp(min(0.0, -log_maximum))


def _log_rising(start: float, count: int) -> float:
    """log of Gamma(start + count) / Gamma(start)."""
    return math.lgamma(start + count) - math.lgamma(start)


def _check(counts: Sequence[int], intended: Sequence[float], concentration: float) -> None:
    if len(counts) != len(intended):
        raise ValueError(f"{len(counts)} counts for {len(intended)} weights: give each arm one of both")
    if any(count < 0 for count in counts):
        raise ValueError("counts of units cannot be negative")
    if any(not 0.0 <= weight < math.inf for weight in intended) or not any(intended):
        raise ValueError("weights are at least 0, finite, and not all 0")
    if not 0.0 < concentration < math.inf:
        raise ValueError(f"concentration must be above 0, not {concentration}")
