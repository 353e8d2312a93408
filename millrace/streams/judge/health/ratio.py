"""Sample ratio mismatch: whether the arms have the units that the plan gives them; if not, where on the way they were lost.

While it runs, the sequential test alone counts, which may be looked at at every second; Pearson's is told beside it, and counts once the
experiment is over. What Fabijan et al. (*Diagnosing Sample Ratio Mismatch in Online Controlled Experiments*, KDD 2019) ask a person to
look at is looked at here: the stage at which the ratio breaks, and the segment that explains most of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from millrace.schemas.evidence import CannotTell
from millrace.schemas.moments import Arm
from millrace.schemas.result import Finding, Severity
from millrace.streams.judge.health import rates
from millrace.streams.judge.known import Known, shares
from millrace.streams.judge.merge import Merged
from millrace.streams.revise import OVER
from millrace.streams.stats.sample_ratio import SampleRatio, pearson
from millrace.streams.stats.sequential_ratio import log_bayes_factor, p_value

CHECK = "sample_ratio"
EXPLAINS = 0.5
"""A segment is named where without it this share of the statistic would be gone."""
Arms = Sequence[tuple[str, Arm]]


class Ratio(Struct, frozen=True):
    """What was found, and the running maximum of the sequential test's evidence after this look."""

    findings: tuple[Finding, ...]
    log_maximum: float


def sample_ratio(known: Known, sums: Merged, log_maximum: float) -> Ratio:
    """Judge the counts of units that count. ``log_maximum`` is the running maximum of the evidence before this look."""
    untested = _untested(known)
    if untested is not None:
        return Ratio((untested,), log_maximum)
    arms = [(variant.name, sums.arm(variant.name)) for variant in known.plan.variants]
    weights = [shares(known.plan)[name] for name, _ in arms]
    counts = [arm.units for _, arm in arms]
    if sum(weight > 0.0 for weight in weights) < 2:
        return Ratio((), log_maximum)
    evidence = log_bayes_factor(counts, weights)
    largest, last = max(log_maximum, evidence), pearson(counts, weights)
    found = list(_unintended(arms, weights))
    if _mismatched(known, largest, last):
        found.append(_finding(known, arms, weights, _numbers(evidence, largest, last)))
    return Ratio(tuple(found), largest)


def _untested(known: Known) -> Finding | None:
    """Why no single ratio is to be expected, if so."""
    if known.plan.allocation is not None:
        cause = (
            "weights are learnt and change with what was learnt: the arms' counts follow no fixed ratio; propensities are logged instead"
        )
        return Finding(check=CHECK, severity=Severity.NOTE, cause=cause)
    if known.reweighted:
        cause = (
            "weights were changed while it ran, so that the counts follow no single ratio and are not tested;"
            " start a new experiment with a salt of its own where the ratio must be tested"
        )
        return Finding(check=CHECK, severity=Severity.WARNING, cause=cause)
    return None


def _mismatched(known: Known, largest: float, last: SampleRatio | CannotTell) -> bool:
    alpha = known.plan.analysis.ratio_alpha
    if p_value(largest) <= alpha:
        return True
    return known.plan.state in OVER and isinstance(last, SampleRatio) and last.p_value <= alpha


def _numbers(evidence: float, largest: float, last: SampleRatio | CannotTell) -> dict[str, float]:
    numbers = {"log_bayes_factor": evidence, "largest_log_bayes_factor": largest, "smallest_p_value": p_value(largest)}
    if isinstance(last, SampleRatio):
        numbers |= {"pearson_p_value": last.p_value, "chi_square": last.statistic}
    return numbers


def _unintended(arms: Arms, weights: Sequence[float]) -> Iterator[Finding]:
    for (name, arm), weight in zip(arms, weights, strict=True):
        if weight == 0.0 and arm.units:
            cause = f"{name} has weight 0 and {arm.units} units that count: they were dealt by another plan than this one"
            yield Finding(check="unintended_arm", severity=Severity.WARNING, cause=cause, variant=name, numbers={"units": float(arm.units)})


def _finding(known: Known, arms: Arms, weights: Sequence[float], numbers: dict[str, float]) -> Finding:
    told = ", ".join(f"{name} {arm.units} ({weight:.1%} expected)" for (name, arm), weight in zip(arms, weights, strict=True))
    where, more = _stage(known, arms, weights)
    segment, share = _segment(arms, weights)
    if segment and share >= EXPLAINS:
        where += f"; {share:.0%} of it is in the segment {segment}"
        more["segment_share"] = share
    cause = f"the arms do not have the units that the plan gives them: {told}; {where}"
    return Finding(check=CHECK, severity=Severity.INVALID, cause=cause, numbers=numbers | more)


def _stage(known: Known, arms: Arms, weights: Sequence[float]) -> tuple[str, dict[str, float]]:
    """The first stage on a unit's way at which the ratio breaks, in words, and its numbers."""
    alpha, tuning = known.plan.analysis.ratio_alpha, known.plan.analysis.tuning
    records, wrong = sum(arm.assignments for _, arm in arms), sum(arm.underived for _, arm in arms)
    if wrong and wrong >= EXPLAINS * _surplus(arms, weights):
        return (
            f"{wrong} of {records} assignment records do not follow from the plan and the hash: another program or plan dealt them",
            {"underived": float(wrong)},
        )
    assigned = pearson([arm.assigned for _, arm in arms], weights)
    if isinstance(assigned, SampleRatio) and assigned.p_value <= alpha:
        return "it is there at assignment already, before anything was shown or measured", {"assigned_p_value": assigned.p_value}
    for lost in rates.unlike(arms, rates.exposed, alpha, tuning):
        return (
            f"assignment is even, exposure is not: {lost.rate:.1%} of the units assigned to {lost.variant} were exposed,"
            f" {lost.control_rate:.1%} of {arms[0][0]}'s",
            lost.numbers,
        )
    for left in rates.unlike(arms, rates.multiple, alpha, tuning):
        told = f"{left.rate:.1%} of {left.variant}'s units met another variant and are left out, {left.control_rate:.1%} of {arms[0][0]}'s"
        return told, left.numbers
    for counted, what in ((rates.late, "late"), (rates.duplicates, "duplicate")):
        for odd in rates.unlike(arms, counted, alpha, tuning):
            told = f"{odd.rate:.1%} of {odd.variant}'s outcomes are {what}, {odd.control_rate:.1%} of {arms[0][0]}'s"
            return f"no stage shows it by itself, but {told}", odd.numbers
    return "no single stage shows it", {}


def _surplus(arms: Arms, weights: Sequence[float]) -> float:
    """How many units stand in arms that have too many: a wrong record moves one at most, so that a few explain no large mismatch."""
    units, weight = sum(arm.units for _, arm in arms), sum(weights)
    return sum(max(0.0, arm.units - units * own / weight) for (_, arm), own in zip(arms, weights, strict=True))


def _segment(arms: Arms, weights: Sequence[float]) -> tuple[str, float]:
    """The segment without whose units most of the statistic would be gone, and that share of it."""
    whole = pearson([arm.units for _, arm in arms], weights)
    best, least = "", float("inf")
    for key in sorted({key for _, arm in arms for key in arm.segments}):
        rest = pearson([max(0, arm.units - arm.segments.get(key, 0)) for _, arm in arms], weights)
        if isinstance(rest, SampleRatio) and rest.statistic < least:
            best, least = key, rest.statistic
    if isinstance(whole, CannotTell) or not whole.statistic > 0.0 or not best:
        return "", 0.0
    return best, max(0.0, 1.0 - least / whole.statistic)
