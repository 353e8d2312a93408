"""Statements for reports: what does not follow from moments that merge, at the same offsets as the judge's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millrace.infra.clickhouse.experiments.as_of import DAY_US, AsOf, microseconds
from millrace.infra.clickhouse.experiments.events import events, part_values
from millrace.infra.clickhouse.experiments.moments import sums, units
from millrace.infra.clickhouse.experiments.pieces import exposures, joined, marked_outcomes, outcome_names
from millrace.schemas.metric import Metric
from millrace.schemas.tables import quoted


def unit_values_sql(as_of: AsOf, metric: Metric, limit: int | None = None) -> str:
    """Rows of variant, y, z and x of each unit that counts, in the metric's own units. With a limit, so many of each variant.

    Which ones is decided by a hash of the unit: the same ones each time, and no others of a larger sample.
    """
    cut = "" if limit is None else f"\nLIMIT {limit} BY arm"
    return (
        f"{_units(as_of, metric)}\nSELECT arms[1] AS arm, toFloat64(y) * {metric.step!r} AS value,\n"
        f"    toFloat64(z) * {metric.denominator_step!r} AS denominator,\n"
        f"    toFloat64(x) * {metric.step!r} AS covariate\nFROM units\nORDER BY arm, sipHash64(subject){cut}"
    )


def rank_test_sql(as_of: AsOf, metric: Metric, control: str, treatment: str) -> str:
    """One row: how many units of each of two variants there are, U, the two-sided p-value, and whether all values are the same.

    Mann and Whitney (1947), by the normal approximation with ties and the correction for continuity, as ClickHouse has it.
    """
    return (
        f"{_units(as_of, metric)}\nSELECT countIf(treated = 0) AS control, countIf(treated = 1) AS treatment,\n"
        "    mannWhitneyUTest('two-sided', 1)(y, treated) AS test, test.1 AS u, test.2 AS p_value, min(y) = max(y) AS alike\n"
        f"FROM (SELECT toFloat64(y) AS y, arms[1] = {quoted(treatment)} AS treated FROM units\n"
        f"    WHERE arms[1] IN ({quoted(control)}, {quoted(treatment)}))"
    )


def unit_quantiles_sql(as_of: AsOf, metric: Metric, levels: Sequence[float]) -> str:
    """Rows of variant, units, and the quantiles of units' values in whole steps: of n in order, the one at floor(level n), from 0."""
    wanted = ", ".join(map(repr, levels))
    return (
        f"{_units(as_of, metric)}\nSELECT arms[1] AS arm, count() AS units,\n"
        f"    arrayMap(value -> toString(value), quantilesExact({wanted})(y)) AS quantiles\nFROM units\nGROUP BY arm\nORDER BY arm"
    )


def outcome_quantiles_sql(as_of: AsOf, metric: Metric, levels: Sequence[float]) -> str:
    """Rows of variant, outcomes, and the quantiles of single outcomes in whole steps: of n in order, the one at floor(level n), from 0."""
    wanted = ", ".join(map(repr, levels))
    return (
        f"{_joined(as_of, metric)}\nSELECT variant AS arm, countIf(is_value) AS outcomes,\n"
        f"    arrayMap(value -> toString(value), quantilesExactIf({wanted})(value_steps, is_value)) AS quantiles\n"
        "FROM joined\nGROUP BY arm\nHAVING outcomes > 0\nORDER BY arm"
    )


def below_sql(as_of: AsOf, metric: Metric, thresholds: Mapping[str, int]) -> str:
    """Rows of partition, variant and the nine sums: y counts a unit's outcomes at or below its variant's threshold (in whole steps), z all.

    y / z is where the threshold stands in the distribution of outcomes, with units as clusters: the delta method gives its variance, and
    a quantile's interval follows from the quantiles at its ends (Deng, Knoblich and Lu, KDD 2018, section 4.2).
    """
    cases = ", ".join(f"variant = {quoted(name)}, toInt256('{steps}')" for name, steps in thresholds.items())
    return (
        f"{_joined(as_of, metric)},\nclusters AS (\n    SELECT partition, subject, any(variant) AS arm,\n"
        f"        toInt256(countIf(is_value AND value_steps <= multiIf({cases}, toInt256(0)))) AS y,\n"
        "        toInt256(countIf(is_value)) AS z, toInt256(0) AS x\n"
        f"    FROM joined\n    WHERE variant IN ({', '.join(map(quoted, thresholds))})\n    GROUP BY partition, subject\n)\n"
        + sums("clusters", "partition")
    )


def cumulative_sql(as_of: AsOf, metric: Metric, ends_us: Sequence[int]) -> str:
    """Rows of point, variant and the nine sums: units exposed before it and their outcomes of before it, at each point in time."""
    points = ", ".join(map(str, ends_us))
    return (
        f"{events(as_of, metric)},\npoints AS (\n    SELECT point, arm,\n        {part_values(metric, 'event.1 < point')},\n"
        f"        toInt256(0) AS x\n    FROM events\n    ARRAY JOIN [{points}] AS point\n    WHERE first_us < point\n)\n"
        + sums("points", "point")
    )


def ages_sql(as_of: AsOf, metric: Metric, seen_us: int) -> str:
    """Rows of age in days since exposure, variant and the nine sums of what happened at that age.

    Only units whose day of that age had ended by ``seen_us`` count for it: the others' would be smaller for want of time.
    """
    days = max(1, -(-microseconds(metric.window_seconds) // DAY_US))
    part = f"event.1 >= first_us + age * {DAY_US} AND event.1 < first_us + (age + 1) * {DAY_US}"
    return (
        f"{events(as_of, metric)},\nages AS (\n    SELECT age, arm,\n        {part_values(metric, part)},\n"
        f"        toInt256(0) AS x\n    FROM events\n    ARRAY JOIN range({days}) AS age\n"
        f"    WHERE first_us + least((age + 1) * {DAY_US}, {microseconds(metric.window_seconds)}) <= {seen_us}\n)\n" + sums("ages", "age")
    )


def span_sql(as_of: AsOf) -> str:
    """One row: the first exposure, the newest one, and the time up to which the outcomes of every partition are there.

    The last is the least, over the partitions, of the newest outcome's time; null where one has none.
    """
    return f"""WITH
{exposures(as_of)}
SELECT (SELECT (count(), min(exposed_us), max(exposed_us)) FROM exposures) AS exposed,
    (SELECT (count(), min(newest)) FROM (
        SELECT _partition, max(toUnixTimestamp64Micro(time)) AS newest FROM v_outcome_records
        WHERE {as_of.outcomes()}
        GROUP BY _partition
    )) AS seen"""


def _joined(as_of: AsOf, metric: Metric) -> str:
    return "WITH\n" + ",\n".join([exposures(as_of), marked_outcomes(as_of, outcome_names((metric,))), joined(as_of, metric)])


def _units(as_of: AsOf, metric: Metric) -> str:
    return f"{_joined(as_of, metric)},\n{units(as_of, metric)}"
