"""Whether the log saw enough of what the policy in question would do; if not, there is no number.

Sources: Kish 1965 and Owen, *Monte Carlo theory, methods and examples* (2013), section 9.3, for the effective sample size; Chatterjee and
Diaconis, *The sample size required in importance sampling* (Annals of Applied Probability 2018), for the largest weight's share of all,
which finds the failures that an estimated variance hides; Li, Chen, Kleban and Gupta, *Counterfactual estimation and optimization of click
metrics in search engines* (WWW 2015), for the mean weight, which must be 1 where propensities are right and everything has a chance.
The thresholds are ours, and are settings.
"""

from __future__ import annotations

import math

from msgspec import Struct

from millrace.schemas.evidence import CannotTell
from millrace.streams.off_policy.log import Logged
from millrace.streams.off_policy.spread import std_error
from millrace.streams.stats.sequence import half_width

_WRONG = 0.001
"""The level at which a mean weight is told from 1: a right log is refused once in a thousand, however often one looks."""


class Terms(Struct, frozen=True):
    """How an estimate is made: the interval's level and tuning, and what overlap it needs at least."""

    alpha: float = 0.05
    tuning: float = 5000.0
    """At how many records the interval is to be narrowest."""
    least_effective: float = 100.0
    """The effective sample size below which there is no number: normal approximation needs as many."""
    most_share: float = 0.05
    """The share of all weight above which one record alone says too much."""


class Overlap(Struct, frozen=True):
    """How well the log covers the policy in question."""

    effective_size: float
    """(sum w)^2 / sum w^2: as many records drawn by the policy itself would say about as much."""
    largest_share: float
    """The largest weight over the sum of weights."""
    largest_weight: float
    mean_weight: float
    """Estimates the share of the policy's actions that the log can speak of: 1 with full support and right propensities."""
    support_share: float
    """The share of records whose action the policy might have taken."""


def overlap(log: Logged) -> Overlap | CannotTell:
    """The log's diagnostics for the policy that its weights are for (sources above)."""
    weight, squares = math.fsum(log.counts * log.weights), math.fsum(log.counts * log.weights**2)
    if not squares > 0.0:
        return CannotTell("poor overlap: the log holds no action that the policy would take")
    largest = float(log.weights[log.counts > 0.0].max())
    return Overlap(
        effective_size=weight * weight / squares,
        largest_share=largest / weight,
        largest_weight=largest,
        mean_weight=weight / log.n,
        support_share=math.fsum(log.counts[log.weights > 0.0]) / log.n,
    )


def refusal(log: Logged, found: Overlap, terms: Terms) -> CannotTell | None:
    """Why the weights do not bear an estimate, or None where they do (sources above)."""
    seen = (
        f"effective sample size {found.effective_size:.1f} of {log.n} records, largest weight {found.largest_weight:.4g} "
        f"({found.largest_share:.1%} of all), mean weight {found.mean_weight:.4g}, {found.support_share:.1%} of records with support"
    )
    if found.effective_size < terms.least_effective:
        return CannotTell(f"poor overlap: the effective sample size is below {terms.least_effective:g} ({seen})")
    if found.largest_share > terms.most_share:
        return CannotTell(f"poor overlap: one record has more than {terms.most_share:.1%} of all weight ({seen})")
    error = std_error(log.counts, log.weights, 0.0)
    off = found.mean_weight - 1.0
    if abs(off) <= max(1e-9, half_width(error, log.n, _WRONG, terms.tuning)):
        return None
    if off < 0.0:
        return CannotTell(f"poor overlap: the log has no support for about {-off:.1%} of the policy's actions ({seen})")
    return CannotTell(f"the logged propensities are too small: weights must average 1 ({seen})")
