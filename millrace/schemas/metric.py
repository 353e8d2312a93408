"""A metric of an experiment: which outcomes of a unit become which number, and what is asked of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from millrace.schemas.evidence import Kind

DAY_SECONDS = 86_400.0


class Role(StrEnum):
    """What a metric is for: it decides, it informs, or it must not be harmed."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    GUARDRAIL = "guardrail"


class Aggregation(StrEnum):
    """How a unit's outcomes become one value."""

    SUM = "sum"
    COUNT = "count"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    UNIQUE = "unique"
    """How many different values there were, in steps of the resolution."""


class Direction(StrEnum):
    """Which way is better."""

    INCREASE = "increase"
    DECREASE = "decrease"


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which outcomes, and how a unit's become one number, in whole steps of the resolution."""

    outcome: Annotated[str, Meta(min_length=1)]
    aggregation: Aggregation = Aggregation.SUM
    resolution: Annotated[float, Meta(ge=1e-9, le=1e9)] = 1e-6
    cap: Annotated[float, Meta(gt=0)] | None = None
    """A unit's value is cut to [-cap, cap]."""

    @property
    def step(self) -> float:
        """What one whole step of a unit's value is worth: counts are counted in ones."""
        return 1.0 if self.aggregation in (Aggregation.COUNT, Aggregation.UNIQUE) else self.resolution


class Metric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric. ``name`` is what results call it; ``outcome`` is the outcomes' metric that it is made of.

    The value of a unit is made of its outcomes from its exposure until ``window_seconds`` later; of a proportion it is whether there was
    one at all that is not 0. A ratio divides the sum of its values by the sum of the ``denominator``'s.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    outcome: Annotated[str, Meta(min_length=1)]
    kind: Kind = Kind.MEAN
    role: Role = Role.SECONDARY
    direction: Direction = Direction.INCREASE
    aggregation: Aggregation = Aggregation.SUM
    resolution: Annotated[float, Meta(ge=1e-9, le=1e9)] = 1e-6
    cap: Annotated[float, Meta(gt=0)] | None = None
    """A unit's value is cut to [-cap, cap]."""
    denominator: Source | None = None
    window_seconds: Annotated[float, Meta(gt=0)] = 7 * DAY_SECONDS
    covariate_days: Annotated[int, Meta(ge=0, le=60)] = 0
    """CUPED: the same aggregation over so many whole days (UTC) before the exposure; 0 means no covariate."""
    minimal_effect: Annotated[float, Meta(ge=0)] = 0.0
    """The smallest effect worth having, in the units of the analysis' difference."""
    limit: Annotated[float, Meta(ge=0)] = 0.0
    """A guardrail: the harm that is tolerated, in the units of the analysis' difference, against ``direction``."""
    quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Which quantile, of the kind ``quantile``: computed in reports, from ClickHouse."""

    @property
    def value(self) -> Source:
        """The numerator, or the value itself."""
        return Source(outcome=self.outcome, aggregation=self.aggregation, resolution=self.resolution, cap=self.cap)

    @property
    def step(self) -> float:
        """What one whole step of a unit's value is worth: proportions and counts are counted in ones."""
        return 1.0 if self.kind is Kind.PROPORTION else self.value.step

    @property
    def denominator_step(self) -> float:
        """What one whole step of a unit's denominator is worth."""
        return self.denominator.step if self.denominator is not None else 1.0
