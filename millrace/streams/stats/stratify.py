"""Post-stratification: compare within strata known before the exposure, and put the comparisons together by the strata's shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from millrace.schemas.evidence import CannotTell, Kind
from millrace.streams.stats.arm import Arm, arm, contradiction, contrast, divisor, linearised
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.summary import Summary


class Stratum(Struct, frozen=True, kw_only=True):
    """Units that share what was known before their exposure. ``weight`` is the stratum's share, of all units or of the population."""

    weight: float
    control: Summary
    treatment: Summary
    name: str = ""


def post_stratified(strata: Sequence[Stratum], kind: Kind, relative: Difference) -> Effect | CannotTell:
    """The difference of the arms' weighted means; every stratum needs two units in each arm.

    A ratio is the quotient of its weighted sums. The variance is given the strata's sizes; weights that are shares of the sample add a
    term of order 1 / n times the effects' variance between strata, which is left out as in the source.
    Source: Miratrix, Sekhon, Yu, *Adjusting treatment effect estimates by post-stratification in randomized experiments*, JRSS B 2013,
    section 2. Raises ValueError on weights that are not shares.
    """
    weights = [stratum.weight for stratum in strata]
    if not all(0.0 <= weight < math.inf for weight in weights) or math.fsum(weights) <= 0.0:
        raise ValueError("weights of strata are at least 0, finite, and not all 0")
    total = math.fsum(weights)
    shares = [weight / total for weight in weights if weight > 0.0]
    taken = [stratum for stratum in strata if stratum.weight > 0.0]
    control = _weighted("control", taken, shares, kind, lambda stratum: stratum.control)
    treatment = _weighted("treatment", taken, shares, kind, lambda stratum: stratum.treatment)
    if isinstance(control, CannotTell):
        return control
    if isinstance(treatment, CannotTell):
        return treatment
    return contrast(control, treatment, relative)


def _weighted(
    name: str, strata: Sequence[Stratum], shares: Sequence[float], kind: Kind, side: Callable[[Stratum], Summary]
) -> Arm | CannotTell:
    summaries = [side(stratum) for stratum in strata]
    if kind is Kind.RATIO:
        return _weighted_ratio(name, summaries, shares)
    arms = []
    for place, (stratum, summary) in enumerate(zip(strata, summaries, strict=True)):
        one = arm(f"{name} in stratum {stratum.name or place + 1}", summary, kind)
        if isinstance(one, CannotTell):
            return one
        arms.append(one)
    return _together(math.fsum(share * one.mean for share, one in zip(shares, arms, strict=True)), arms, shares)


def _weighted_ratio(name: str, summaries: Sequence[Summary], shares: Sequence[float]) -> Arm | CannotTell:
    """Linearised at the ratio of the whole arm, not of the stratum, where the denominator may be anything."""
    if min(summary.n for summary in summaries) < 2:
        return CannotTell(f"a stratum of the {name} has fewer than 2 units; put strata together")
    pairs = list(zip(shares, summaries, strict=True))
    bottom = math.fsum(share * summary.denominator_mean for share, summary in pairs)
    refusal = divisor(f"{name}'s denominator", bottom, math.fsum(w * w * summary.denominator_variance / summary.n for w, summary in pairs))
    if refusal is not None:
        return refusal
    ratio = math.fsum(share * summary.mean for share, summary in pairs) / bottom
    arms = [
        Arm(n=summary.n, mean=ratio, squared_error=linearised(summary, ratio, bottom) / summary.n, degrees=summary.n - 1.0)
        for summary in summaries
    ]
    if min(one.squared_error for one in arms) < 0.0:
        return contradiction(name, "no ratio has a variance below 0")
    return _together(ratio, arms, shares)


def _together(mean: float, arms: Sequence[Arm], shares: Sequence[float]) -> Arm:
    """Independent strata's estimates as one, with Satterthwaite's degrees of freedom (Biometrics 1946)."""
    parts = [share * share * one.squared_error for share, one in zip(shares, arms, strict=True)]
    spread = math.fsum(part * part / one.degrees for part, one in zip(parts, arms, strict=True))
    squared_error, n = math.fsum(parts), sum(one.n for one in arms)
    return Arm(n=n, mean=mean, squared_error=squared_error, degrees=squared_error**2 / spread if spread > 0.0 else n - 1.0)
