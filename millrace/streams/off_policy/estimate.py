"""Five estimators of what another policy would have earned for each record, from the log of the one that ran.

Each is a mean of per-record influence values; its interval is the asymptotic confidence sequence of that mean, so that it may be looked at
after every record (Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, *Anytime-valid off-policy inference for contextual bandits*,
arXiv 2210.10768, for why importance-weighted means of adaptively logged records admit that; arXiv 2103.06476 for the interval).
With w = target chance / logged propensity of the action taken, r its reward, q the model's say on it and d its say on the policy.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from msgspec import Struct

from millrace.schemas.evidence import CannotTell
from millrace.streams.off_policy.log import Floats, Logged, Predicted
from millrace.streams.off_policy.overlap import Overlap, Terms, overlap, refusal
from millrace.streams.off_policy.spread import mean, std_error
from millrace.streams.stats.sequence import half_width

DEFAULT = Terms()
_ROUNDING = 1e-14
"""Values that differ by no more than this share of themselves differ by rounding alone."""


class Method(StrEnum):
    """The estimators, by their common short names."""

    IPS = "ips"
    SNIPS = "snips"
    DIRECT = "direct"
    DOUBLY_ROBUST = "doubly_robust"
    SWITCH = "switch"


class _Influence(Struct, frozen=True):
    """Per-cell influence values (m,) whose mean is the estimate, and their variances within cells."""

    values: Floats
    variances: Floats | float = 0.0
    model_share: float = 0.0


class Estimate(Struct, frozen=True, kw_only=True):
    """A policy's value for each record, with an interval valid at any time and how well the log covers the policy."""

    method: Method
    value: float
    std_error: float
    interval: tuple[float, float]
    n: int
    overlap: Overlap | None
    """None where the log holds no action of the policy's, which the direct method alone survives."""
    model_share: float
    """The share of the policy's actions for which the model is believed unchecked: 0 by weights, 1 by the direct method."""


def ips(log: Logged, terms: Terms = DEFAULT) -> Estimate | CannotTell:
    """Inverse propensity scoring, the mean of w r: unbiased, wide (Horvitz and Thompson 1952; Dudik et al., arXiv 1103.4601)."""
    found = _weighable(log, terms)
    if isinstance(found, CannotTell):
        return found
    return _estimate(Method.IPS, log, terms, found, _Influence(log.weights * log.means, log.weights**2 * log.variances))


def snips(log: Logged, terms: Terms = DEFAULT) -> Estimate | CannotTell:
    """Self-normalised: sum w r / sum w, whose influence values are w (r - value) / mean w.

    Sources: Swaminathan and Joachims, *The self-normalized estimator for counterfactual learning* (NIPS 2015); Owen 2013, section 9.2.
    """
    found = _weighable(log, terms)
    if isinstance(found, CannotTell):
        return found
    value = mean(log.counts, log.weights * log.means) / found.mean_weight
    scaled = log.weights / found.mean_weight
    influence = _Influence(value + scaled * (log.means - value), scaled**2 * log.variances)
    return _estimate(Method.SNIPS, log, terms, found, influence)


def direct(log: Logged, model: Predicted, terms: Terms = DEFAULT) -> Estimate | CannotTell:
    """The direct method: the mean of d. Needs no overlap, and is as wrong as the model: the interval knows nothing of its bias.

    Source: Dudik, Langford and Li, *Doubly robust policy evaluation and learning*, arXiv 1103.4601.
    """
    _record_by_record(log, model)
    found = overlap(log)
    known = None if isinstance(found, CannotTell) else found
    return _few(log, terms) or _estimate(Method.DIRECT, log, terms, known, _Influence(model.policy, 0.0, 1.0))


def doubly_robust(log: Logged, model: Predicted, terms: Terms = DEFAULT) -> Estimate | CannotTell:
    """The mean of d + w (r - q): unbiased where propensities are right, narrow where the model is good (arXiv 1103.4601)."""
    _record_by_record(log, model)
    found = _weighable(log, terms)
    if isinstance(found, CannotTell):
        return found
    influence = _Influence(model.policy + log.weights * (log.means - model.logged))
    return _estimate(Method.DOUBLY_ROBUST, log, terms, found, influence)


def switch(log: Logged, model: Predicted, tau: float, terms: Terms = DEFAULT) -> Estimate | CannotTell:
    """Switch-DR: doubly robust where w <= ``tau``, the model alone above; ``model_share`` is how much that leaves to it.

    Weights are bounded by tau, so that overlap is reported, and refused only where one record of weight tau could still say too much.
    Source: Wang, Agarwal and Dudik, *Optimal and adaptive off-policy evaluation in contextual bandits*, arXiv 1612.01205.
    """
    _record_by_record(log, model)
    if not tau >= 0.0:
        raise ValueError(f"the switch threshold tau must be at least 0, not {tau}")
    found = overlap(log)
    if isinstance(found, CannotTell):
        return found
    kept = np.where(log.weights <= tau, log.weights, 0.0)
    influence = _Influence(model.policy + kept * (log.means - model.logged), 0.0, min(1.0, max(0.0, 1.0 - mean(log.counts, kept))))
    return _few(log, terms) or _heavy(kept, terms) or _estimate(Method.SWITCH, log, terms, found, influence)


def _estimate(method: Method, log: Logged, terms: Terms, found: Overlap | None, influence: _Influence) -> Estimate | CannotTell:
    """The mean of the influence values with its confidence sequence (arXiv 2103.06476, eq. 9)."""
    value, error = mean(log.counts, influence.values), std_error(log.counts, influence.values, influence.variances)
    if error <= _ROUNDING * abs(value) / math.sqrt(log.n):
        return CannotTell("what the records say does not vary, so that there is no standard error")
    half = half_width(error, log.n, terms.alpha, terms.tuning)
    return Estimate(
        method=method,
        value=value,
        std_error=error,
        interval=(value - half, value + half),
        n=log.n,
        overlap=found,
        model_share=influence.model_share,
    )


def _few(log: Logged, terms: Terms) -> CannotTell | None:
    if log.n >= max(2.0, terms.least_effective):
        return None
    return CannotTell(f"{log.n} records are too few: at least {terms.least_effective:g} are needed")


def _heavy(kept: Floats, terms: Terms) -> CannotTell | None:
    share = float(kept.max()) / len(kept)
    if share <= terms.most_share:
        return None
    return CannotTell(
        f"poor overlap: a kept weight of {kept.max():.4g} is {share:.1%} of {len(kept)} records, above {terms.most_share:.1%}; lower tau"
    )


def _weighable(log: Logged, terms: Terms) -> Overlap | CannotTell:
    """The overlap, where weights alone can bear the estimate; else the reason."""
    few = _few(log, terms)
    if few is not None:
        return few
    found = overlap(log)
    if isinstance(found, CannotTell):
        return found
    return refusal(log, found, terms) or found


def _record_by_record(log: Logged, model: Predicted) -> None:
    if not (log.counts.shape == model.logged.shape == model.policy.shape and bool((log.counts == 1.0).all())):
        raise ValueError("a model's predictions need the log record by record: make it with of_records, in the same order")
