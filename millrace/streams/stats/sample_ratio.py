"""Sample ratio mismatch at one look: whether the arms have the shares of units that they were to have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from scipy.special import chdtrc

from millrace.schemas.evidence import CannotTell

LEAST_EXPECTED = 5.0
"""Below so many expected units in an arm the statistic is not chi-square (Cochran, *Some methods for strengthening the chi-square tests*,
Biometrics 1954)."""


class SampleRatio(Struct, frozen=True, kw_only=True):
    """Pearson's test over the arms that have a weight. ``unintended`` are the arms (their places) that have units and no weight:

    no p-value says how wrong that is, so that it stands beside the test: it is certain, and either an override or a fault.
    """

    p_value: float
    statistic: float
    degrees: int
    unintended: tuple[int, ...] = ()


def pearson(counts: Sequence[int], weights: Sequence[float]) -> SampleRatio | CannotTell:
    """Whether the counts of units (k,) agree with the weights (k,), by chi-square with one degree less than arms with a weight.

    Raises ValueError on lengths that differ, negative numbers or no weight at all.
    Sources: Pearson, Phil. Mag. 1900; Fabijan et al., *Diagnosing Sample Ratio Mismatch in Online Controlled Experiments*, KDD 2019.

    >>> round(pearson([500, 450], [0.5, 0.5]).p_value, 10)
    0.1047574898
    """
    check_shares(counts, weights)
    arms = [(count, weight) for count, weight in zip(counts, weights, strict=True) if weight > 0.0]
    units, weight = sum(count for count, _ in arms), math.fsum(weight for _, weight in arms)
    if len(arms) < 2:
        return CannotTell("only one arm has a weight: there is no ratio to test")
    expected = [units * (own / weight) for _, own in arms]
    if min(expected) < LEAST_EXPECTED:
        return CannotTell(
            f"the smallest arm is expected to have {min(expected):.3g} units; Pearson's test needs {LEAST_EXPECTED:g} in each"
        )
    statistic = math.fsum((count - share) ** 2 / share for (count, _), share in zip(arms, expected, strict=True))
    return SampleRatio(
        p_value=float(chdtrc(len(arms) - 1, statistic)),
        statistic=statistic,
        degrees=len(arms) - 1,
        unintended=unintended(counts, weights),
    )


def unintended(counts: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """The places of the arms that have units and weight 0.

    >>> unintended([10, 3, 0], [1, 0, 0])
    (1,)
    """
    return tuple(place for place, (count, weight) in enumerate(zip(counts, weights, strict=True)) if count > 0 and weight == 0.0)


def check_shares(counts: Sequence[int], weights: Sequence[float]) -> None:
    """Raise ValueError on counts and weights that mean nothing."""
    if len(counts) != len(weights):
        raise ValueError(f"{len(counts)} counts for {len(weights)} weights: give each arm one of both")
    if any(count < 0 for count in counts):
        raise ValueError("counts of units cannot be negative")
    if any(not 0.0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError("weights are at least 0, finite, and not all 0")
