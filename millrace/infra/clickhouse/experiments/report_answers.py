"""The reports' statements' answers, with types. Each raises Refusal or Unavailable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from millrace.infra.clickhouse.client import Client, Refusal
from millrace.infra.clickhouse.experiments import reports
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.schemas.evidence import CannotTell, Moments
from millrace.schemas.metric import Metric
from millrace.schemas.moments import from_sums

EMPTY = "both samples to be non empty"
"""How ClickHouse refuses a rank test without values."""


class UnitValue(Struct, frozen=True):
    """One unit's value, denominator and covariate, in the metric's own units."""

    variant: str
    value: float
    denominator: float
    covariate: float


class RankTest(Struct, frozen=True):
    """Mann-Whitney's U of two variants' units, and its two-sided p-value."""

    control_units: int
    treatment_units: int
    u: float
    p_value: float


class Quantiles(Struct, frozen=True):
    """Quantiles of one variant, of so many values, in whole steps of the metric and in its own units."""

    count: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


class Seen(Struct, frozen=True):
    """The first and the newest exposure, and up to when outcomes of all partitions are there; None where there is none."""

    first_us: int | None
    newest_us: int | None
    until_us: int | None


def unit_values(client: Client, as_of: AsOf, metric: Metric, limit: int | None = None) -> list[UnitValue]:
    """The values of units; with a limit, of so many of each variant."""
    return [UnitValue(*row) for row in client.rows(reports.unit_values_sql(as_of, metric, limit))]


def rank_test(client: Client, as_of: AsOf, metric: Metric, control: str, treatment: str) -> RankTest | CannotTell:
    """Whether units of one variant tend to have larger values."""
    try:
        ((controls, treatments, _, u, p_value, alike),) = client.rows(reports.rank_test_sql(as_of, metric, control, treatment))
    except Refusal as error:
        if EMPTY not in str(error):
            raise
        return CannotTell(f"{control} or {treatment} has no units")
    if alike or not math.isfinite(p_value):
        return CannotTell(f"all units of {control} and {treatment} have the same value: they have no ranks")
    return RankTest(controls, treatments, u, p_value)


def unit_quantiles(client: Client, as_of: AsOf, metric: Metric, levels: Sequence[float]) -> dict[str, Quantiles]:
    """Quantiles of units' values, by variant."""
    return _quantiles(client, reports.unit_quantiles_sql(as_of, metric, levels), metric.step)


def outcome_quantiles(client: Client, as_of: AsOf, metric: Metric, levels: Sequence[float]) -> dict[str, Quantiles]:
    """Quantiles of single outcomes' values, by variant; none of a variant without outcomes."""
    return _quantiles(client, reports.outcome_quantiles_sql(as_of, metric, levels), metric.resolution)


def below(client: Client, as_of: AsOf, metric: Metric, thresholds: Mapping[str, int]) -> dict[str, Moments]:
    """Of each variant the moments of outcomes at or below its threshold (y) among all of its outcomes (z), by unit."""
    found: dict[str, Moments] = {}
    for _, variant, *sums in client.rows(reports.below_sql(as_of, metric, thresholds)):
        found[variant] = found.get(variant, Moments()) + from_sums(tuple(sums))
    return found


def cumulative(client: Client, as_of: AsOf, metric: Metric, ends_us: Sequence[int]) -> dict[tuple[int, str], Moments]:
    """Moments by point in time and variant, of what had happened before it; none where nobody was exposed yet."""
    return _keyed(client, reports.cumulative_sql(as_of, metric, ends_us))


def ages(client: Client, as_of: AsOf, metric: Metric, seen_us: int) -> dict[tuple[int, str], Moments]:
    """Moments by age in days since exposure and variant."""
    return _keyed(client, reports.ages_sql(as_of, metric, seen_us))


def seen(client: Client, as_of: AsOf) -> Seen:
    """What time the records span."""
    (((units, first, newest), (partitions, until)),) = client.rows(reports.span_sql(as_of))
    return Seen(first if units else None, newest if units else None, until if partitions == len(as_of.ends) > 0 else None)


def _quantiles(client: Client, sql: str, step: float) -> dict[str, Quantiles]:
    return {
        arm: Quantiles(count, tuple(map(int, steps)), tuple(int(one) * step for one in steps)) for arm, count, steps in client.rows(sql)
    }


def _keyed(client: Client, sql: str) -> dict[tuple[int, str], Moments]:
    return {(int(row[0]), str(row[1])): from_sums(tuple(row[2:])) for row in client.rows(sql)}
