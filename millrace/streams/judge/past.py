"""What the judge remembers of earlier looks: the extremes that sequential tests may use, and what was decided or told once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from millrace.schemas.evidence import CannotTell
from millrace.schemas.result import Comparison, Decision, LookEvidence, MetricResult, MixtureEvidence


class Largest(Struct, frozen=True):
    """The mixture SPRT's largest evidence so far: of which mixture, its logarithm, and the effect at the look that had it."""

    mixture: str
    log_evalue: float
    effect: float


class Look(Struct, frozen=True, kw_only=True):
    """A look of the rule ``group_sequential``: which of the planned ones, from 1, how many units counted, and whether none follows."""

    number: int
    units: int
    last: bool = False


class Past(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one experiment, over all looks so far."""

    ratio_log: float = 0.0
    """The running maximum of the logarithm of the sample ratio's Bayes factor, which begins at 1."""
    sequence: str = ""
    """Which confidence sequence the smallest p-values are of; those of another do not count."""
    smallest: dict[str, float] = {}
    """The smallest always-valid p-value of each comparison, by ``metric/variant``."""
    largest: dict[str, Largest] = {}
    """The mixture SPRT's largest evidence of each comparison, by ``metric/variant``."""
    fixed: Decision | None = None
    """What the one look of the rule ``fixed``, or the look of ``group_sequential`` that ended it, came to."""
    looks: tuple[Look, ...] = ()
    """The looks of the rule ``group_sequential`` that were made."""
    seen: dict[str, LookEvidence | CannotTell] = {}
    """What the newest of them saw of each comparison, by ``metric/variant``."""


def smallest(metrics: Iterable[MetricResult], before: Mapping[str, float]) -> dict[str, float]:
    """The smallest p-values after this look; a comparison that cannot be told now keeps what it had."""
    found = dict(before)
    for place, comparison in places(metrics):
        if not isinstance(comparison.estimate, CannotTell) and (least := comparison.estimate.always_valid.smallest_p_value) is not None:
            found[place] = least
    return dict(sorted(found.items()))


def largest(metrics: Iterable[MetricResult], mixtures: Mapping[str, str], before: Mapping[str, Largest]) -> dict[str, Largest]:
    """The largest evidence after this look. ``mixtures``: the name of the mixture that each metric is tested with."""
    found = dict(before)
    for metric in metrics:
        for comparison in metric.comparisons:
            mixture = None if isinstance(comparison.estimate, CannotTell) else comparison.estimate.always_valid.mixture
            if isinstance(mixture, MixtureEvidence):
                most = mixture.so_far
                found[place_of(metric, comparison)] = Largest(mixtures[metric.name], most.log_evalue, most.effect)
    return dict(sorted(found.items()))


def places(metrics: Iterable[MetricResult]) -> Iterable[tuple[str, Comparison]]:
    """Each comparison under what the past knows it by."""
    return ((place_of(metric, comparison), comparison) for metric in metrics for comparison in metric.comparisons)


def place_of(metric: MetricResult, comparison: Comparison) -> str:
    """``metric/variant``; neither has a slash."""
    return f"{metric.name}/{comparison.variant}"
