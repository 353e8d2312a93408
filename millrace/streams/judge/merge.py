"""What the source partitions say of an experiment, added up: exactly, in any order, and never across two definitions of a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.evidence import Moments
from millrace.schemas.moments import Arm, Sums, from_gram_sums, from_sums, over_features
from millrace.schemas.policy_state import Gram

COUNTERS = tuple(name for name in Arm.__struct_fields__ if name != "segments")


class Folded(Struct, frozen=True, array_like=True):
    """One metric of one partition as it was published, with the definition that it was folded by."""

    digest: str
    plan_version: int
    time: datetime
    moments: dict[str, Sums]


class Sealed(Struct, frozen=True, kw_only=True):
    """All that one partition says of an experiment, as of the same offsets."""

    partition: int
    offsets: dict[str, int]
    arms: dict[str, Arm]
    metrics: dict[str, Folded]


class Merged(Struct, frozen=True, kw_only=True):
    """All that the partitions say together. ``lagging``: by metric, the partitions whose sums are of an older definition, left out."""

    offsets: dict[str, dict[str, int]]
    arms: dict[str, Arm]
    metrics: dict[str, dict[str, Moments]]
    features: dict[str, dict[str, Gram]]
    lagging: dict[str, tuple[int, ...]]

    def arm(self, variant: str) -> Arm:
        """What was seen of a variant; nothing, where no partition named it."""
        return self.arms.get(variant, Arm())

    def moments(self, metric: str, key: str) -> Moments:
        """The sums of a variant, or of its segment under ``variant|field=value``; of no unit, where no partition has any."""
        return self.metrics.get(metric, {}).get(key, Moments())


def merged(partitions: Iterable[Sealed]) -> Merged:
    """The sum of the partitions, each of which is given once; their order plays no part."""
    ordered = sorted(partitions, key=lambda sealed: sealed.partition)
    names = sorted({name for sealed in ordered for name in sealed.metrics})
    kept, lagging = {}, {}
    for name in names:
        kept[name], behind = _of_newest([(sealed.partition, sealed.metrics[name]) for sealed in ordered if name in sealed.metrics])
        if behind:
            lagging[name] = behind
    return Merged(
        offsets={str(sealed.partition): dict(sorted(sealed.offsets.items())) for sealed in ordered},
        arms=_arms(ordered),
        metrics={name: _moments(folded) for name, folded in kept.items()},
        features={name: grams for name, folded in kept.items() if (grams := _features(folded))},
        lagging=lagging,
    )


def _of_newest(folded: Sequence[tuple[int, Folded]]) -> tuple[list[Folded], tuple[int, ...]]:
    """Those of the newest definition, and the partitions that still fold by an older one."""
    _, newest = max(folded, key=lambda one: (one[1].plan_version, one[1].time, one[1].digest))
    kept = [one for _, one in folded if one.digest == newest.digest]
    return kept, tuple(partition for partition, one in folded if one.digest != newest.digest)


def _moments(folded: Iterable[Folded]) -> dict[str, Moments]:
    total: dict[str, Moments] = {}
    for one in folded:
        for key, sums in one.moments.items():
            if over_features(key) is None:
                total[key] = total.get(key, Moments()) + from_sums(sums)
    return dict(sorted(total.items()))


def _features(folded: Iterable[Folded]) -> dict[str, Gram]:
    total: dict[str, Gram] = {}
    for one in folded:
        for key, sums in one.moments.items():
            if (variant := over_features(key)) is not None:
                gram = from_gram_sums(sums)
                total[variant] = total[variant] + gram if variant in total else gram
    return total


def _arms(partitions: Iterable[Sealed]) -> dict[str, Arm]:
    total: dict[str, Arm] = {}
    for sealed in partitions:
        for variant, arm in sealed.arms.items():
            total[variant] = _sum(total[variant], arm) if variant in total else replace(arm, segments=dict(sorted(arm.segments.items())))
    return dict(sorted(total.items()))


def _sum(left: Arm, right: Arm) -> Arm:
    counts = {name: getattr(left, name) + getattr(right, name) for name in COUNTERS}
    return Arm(**counts, segments=_counts(left.segments, right.segments))


def _counts(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {key: left.get(key, 0) + right.get(key, 0) for key in sorted(left.keys() | right.keys())}
