"""The sufficient statistics of one source partition, on their way to the judge."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from millrace.schemas.event import Event, Name, Time
from millrace.schemas.evidence import Moments
from millrace.schemas.policy_state import Gram

Sums = tuple[str, ...]
"""``Moments`` field by field, as decimal text: they outgrow 64 bits, and JSON readers' doubles long before."""


def to_sums(moments: Moments) -> Sums:
    """Moments as they are published.

    >>> from_sums(to_sums(Moments.of(3))) == Moments.of(3)
    True
    """
    return tuple(str(getattr(moments, name)) for name in Moments.__struct_fields__)


def from_sums(sums: Sums) -> Moments:
    """Moments as they were published."""
    return Moments(*map(int, sums))


FEATURES = "#features"
"""What is added to a variant's name for its sums over features: of the reward metric of a contextual policy."""


def over_features(key: str) -> str | None:
    """The variant whose sums over features stand under a key; None for a key of moments, whatever a segment's value is.

    >>> over_features("a#features"), over_features("a"), over_features("a|tag=x#features")
    ('a', None, None)
    """
    return key.removesuffix(FEATURES) if key.endswith(FEATURES) and "|" not in key else None


def gram_sums(gram: Gram) -> Sums:
    """The sums of a contextual policy as they are published: n, then the triangle, then the rewards.

    >>> from_gram_sums(gram_sums(Gram.of([2_000_000], 3))) == Gram.of([2_000_000], 3)
    True
    """
    return tuple(map(str, (gram.n, *gram.products, *gram.rewards)))


def from_gram_sums(sums: Sums) -> Gram:
    """The sums of a contextual policy as they were published: p (p + 1) / 2 products and p rewards follow n."""
    n, *rest = map(int, sums)
    features = next(p for p in range(1, len(rest) + 1) if p * (p + 3) // 2 >= len(rest))
    return Gram(n, tuple(rest[:-features]), tuple(rest[-features:]))


class Arm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one partition saw of one arm, in units (or requests, where those are analysed) unless it says otherwise."""

    assigned: int = 0
    """Units whose first assignment gave this variant, exposed or not; without overridden ones."""
    exposed: int = 0
    """Units that met this variant before any other."""
    multiple: int = 0
    """Of those, units that met another variant of the experiment later: left out of every metric."""
    overridden: int = 0
    """Units whose first assignment was named by hand: left out."""
    assignments: int = 0
    """Assignment records, repeated ones included."""
    underived: int = 0
    """Assignment records whose variant does not follow from the plan and the hash."""
    outcomes: int = 0
    """Outcome records that counted towards a metric."""
    late: int = 0
    """Outcome records of its units that came too late."""
    duplicates: int = 0
    """Outcome records of its units that were there before."""
    segments: dict[str, int] = {}
    """Units that count (exposed, less multiple) by segment, ``field=value``."""

    @property
    def units(self) -> int:
        """Units that count."""
        return self.exposed - self.multiple


class PartitionMoments(Event, frozen=True):
    """What one partition says of one metric of one experiment; without a metric, what it says of the arms.

    A partition's record without a metric comes last in its transaction and seals it: all the experiment's metrics of that partition are
    then as of the same ``offsets``.
    """

    id: Annotated[str, Meta(description="Hash of experiment, metric, partition and offsets.")]
    experiment: Annotated[Name, Meta(description="The experiment.")]
    plan_version: Annotated[int, Meta(description="The newest plan version that was known.")]
    partition: Annotated[int, Meta(description="The source partition.")]
    time: Annotated[Time, Meta(description="When it was emitted.")]
    offsets: Annotated[dict[str, int], Meta(description="Topic to the offset below which everything of this partition is in it.")]
    metric: Annotated[Name, Meta(description="The metric; empty for the record that seals.")] = ""
    moments: Annotated[
        dict[str, Sums],
        Meta(
            description="Variant to n and the sums of y, y*y, z, z*z, y*z, x, x*x, y*x (y the value, z the denominator, x the covariate,"
            " in whole steps); those of a segment under `variant|field=value`."
        ),
    ] = {}
    arms: Annotated[dict[str, Arm], Meta(description="Variant to what was seen of it, in the record that seals.")] = {}
    digest: Annotated[str, Meta(description="Hash of what the plan says of the metric: sums of another digest do not add.")] = ""
