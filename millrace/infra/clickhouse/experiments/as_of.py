"""What is asked about: an experiment's plan, and the offsets below which records count."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Plan, Unit
from millrace.schemas.metric import Aggregation, Metric, Source
from millrace.schemas.tables import quoted

MICROSECONDS = 1_000_000
DAY_US = 86_400 * MICROSECONDS
HOUR_US = 3_600 * MICROSECONDS
COVARIATES = frozenset({Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Ends(Struct, frozen=True):
    """One source partition, and the next offset of each of its two logs: records below count, and no others."""

    partition: int
    assignments: int
    outcomes: int


class AsOf(Struct, frozen=True):
    """An experiment's plan, the Kafka ids of the two topics, and how far each of their partitions counts.

    ``plan`` is the first version that ran (the newest, where none did): what decides sums does not change afterwards. ``written_us``:
    when each metric was first written as it is, which decides the first day of its covariate; the plan's creation where it is not said.
    """

    plan: Plan
    assignments_id: str
    outcomes_id: str
    ends: tuple[Ends, ...]
    written_us: dict[str, int] = {}
    closes_ms: int | None = None
    """Of an ended experiment: records that were appended from then on do not count."""

    @property
    def subject(self) -> str:
        """The column that names what is randomised and analysed."""
        return "unit_id" if self.plan.unit is Unit.UNIT else "request_id"

    @property
    def lateness_us(self) -> int:
        """How far an outcome's time may lie behind the newest one before it."""
        return microseconds(self.plan.analysis.lateness_seconds)

    @property
    def folded(self) -> tuple[Metric, ...]:
        """The metrics that have moments: all but quantiles, which are computed in reports."""
        return tuple(metric for metric in self.plan.metrics if metric.kind is not Kind.QUANTILE)

    def first_day_us(self, metric: Metric) -> int:
        """From when on outcomes count as a metric's covariate: the first whole day (UTC) that begins an hour after it was written."""
        written = self.written_us.get(metric.name, time_us(self.plan.created or self.plan.time))
        return -(-(written + HOUR_US) // DAY_US) * DAY_US

    def metric(self, name: str) -> Metric:
        """The plan's metric of this name. Raises KeyError."""
        return {metric.name: metric for metric in self.plan.metrics}[name]

    def assignments(self) -> str:
        """The condition on records of ``assignments``: the experiment's, of before it closed, below the offsets."""
        open_yet = "" if self.closes_ms is None else f" AND toUnixTimestamp64Milli(_appended) < {self.closes_ms}"
        below = self._below(self.assignments_id, [end.assignments for end in self.ends])
        return f"experiment = {quoted(self.plan.name)}{open_yet} AND {below}"

    def outcomes(self) -> str:
        """The condition on records of ``outcomes-by-unit``: all below the offsets, because any may make another one late."""
        return self._below(self.outcomes_id, [end.outcomes for end in self.ends])

    def _below(self, topic_id: str, ends: list[int]) -> str:
        partitions = [end.partition for end in self.ends] or [-1]
        return (
            f"_topic_id = {quoted(topic_id)} AND _partition IN ({listed(partitions)})\n"
            f"            AND _offset < transform(_partition, [{listed(partitions)}], [{listed(ends or [0])}], 0)"
        )


def denominator_of(metric: Metric) -> Source | None:
    """What a ratio divides by; None of the other kinds."""
    return metric.denominator if metric.kind is Kind.RATIO else None


def sources(metric: Metric) -> tuple[Source, ...]:
    """What a metric's outcomes become numbers by: the value, and a ratio's denominator."""
    denominator = denominator_of(metric)
    return (metric.value,) if denominator is None else (metric.value, denominator)


def has_covariate(plan: Plan, metric: Metric) -> bool:
    """Whether a metric has a covariate: of units, and of what adds up over days."""
    fits = metric.kind is Kind.PROPORTION or (metric.kind is Kind.MEAN and metric.aggregation in COVARIATES)
    return fits and metric.covariate_days > 0 and plan.unit is Unit.UNIT


def microseconds(seconds: float) -> int:
    """Seconds as whole microseconds.

    >>> microseconds(0.5)
    500000
    """
    return round(seconds * MICROSECONDS)


def time_us(time: datetime) -> int:
    """An aware time as microseconds since the epoch, exactly: a float of seconds would lose the last digit."""
    past = time - EPOCH
    return (past.days * 86_400 + past.seconds) * MICROSECONDS + past.microseconds


def listed(numbers: list[int]) -> str:
    """Numbers with commas between them."""
    return ", ".join(map(str, numbers))
