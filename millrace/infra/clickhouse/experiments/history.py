"""Statements for what was judged and learnt before: results as they stood, and policies' weights."""

from __future__ import annotations

from datetime import datetime

from millrace.infra.clickhouse.experiments.as_of import time_us
from millrace.schemas.experiment import Plan
from millrace.schemas.tables import quoted


def looks_sql(plan: Plan, until: datetime, shown: int) -> str:
    """Rows of time, metric, variant, effect, the fixed interval's ends, the always-valid one's, and units, of results up to a time.

    Those of the plan's difference alone; of each metric and variant about ``shown``, evenly, the newest among them.
    """
    inner = f"""SELECT * FROM v_experiment_results
        WHERE experiment = {quoted(plan.name)} AND difference = {quoted(plan.analysis.difference)} AND effect IS NOT NULL
            AND time <= {_moment(until)}"""
    columns = "toUnixTimestamp64Micro(time), metric, variant, effect, low, high, always_low, always_high, units"
    return _thinned(columns, inner, "metric, variant", "time, metric, variant, result_id", shown)


def policies_sql(plan: Plan, until: datetime, shown: int) -> str:
    """Rows of time, version and the weights by variant, of policies up to a time; about ``shown``, evenly, the newest among them."""
    inner = f"""SELECT * FROM v_policies
        WHERE experiment = {quoted(plan.name)} AND time <= {_moment(until)}"""
    return _thinned("toUnixTimestamp64Micro(time), version, weights", inner, "experiment", "version", shown)


def _moment(until: datetime) -> str:
    return f"fromUnixTimestamp64Micro({time_us(until)}, 'UTC')"


def _thinned(columns: str, inner: str, by: str, order: str, shown: int) -> str:
    """The order leaves nothing open, so that the same rows come in the same order each time."""
    return f"""SELECT {columns}
FROM (
    SELECT *, row_number() OVER (PARTITION BY {by} ORDER BY {order}) AS place, count() OVER (PARTITION BY {by}) AS places
    FROM (
        {inner}
    )
)
WHERE place = places OR place % greatest(1, intDiv(places, {shown})) = 0
ORDER BY {order}"""
