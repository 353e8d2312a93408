"""Units with the outcomes that count for them, for questions that look at parts of a window: up to a day, at an age.

The rules are those of ``pieces``; here a unit keeps its outcomes as ``(microseconds, offset, steps)`` instead of one value, and any part of
them is aggregated as a whole window would be.
"""

from __future__ import annotations

from millrace.infra.clickhouse.experiments.as_of import AsOf, denominator_of
from millrace.infra.clickhouse.experiments.pieces import cap_steps, clipped, exposures, joined, marked_outcomes, outcome_names
from millrace.schemas.evidence import Kind
from millrace.schemas.metric import Aggregation, Metric, Source


def events(as_of: AsOf, metric: Metric) -> str:
    """One row for each unit that counts: its variant, its exposure, and its outcomes of the value (``ys``) and denominator (``zs``)."""
    zs = "" if denominator_of(metric) is None else ",\n        groupArrayIf((time_us, offset, denominator_steps), is_denominator) AS zs"
    parts = [
        exposures(as_of),
        marked_outcomes(as_of, outcome_names((metric,))),
        joined(as_of, metric),
        f"""events AS (
    SELECT partition, subject, any(variant) AS arm, any(exposed_us) AS first_us,
        groupArrayIf((time_us, offset, value_steps), is_value) AS ys{zs}
    FROM joined
    GROUP BY partition, subject
)""",
    ]
    return "WITH\n" + ",\n".join(parts)


def part_values(metric: Metric, condition: str) -> str:
    """The columns y and z: a unit's values over those of its outcomes (``event``) for which a condition holds."""
    z = "toInt256(0)"
    if denominator := denominator_of(metric):
        z = _value(metric, denominator, f"arrayFilter(event -> {condition}, zs)")
    return f"{_value(metric, metric.value, f'arrayFilter(event -> {condition}, ys)')} AS y,\n        {z} AS z"


def _value(metric: Metric, source: Source, part: str) -> str:
    if metric.kind is Kind.PROPORTION:
        return f"toInt256(arrayExists(event -> event.3 != 0, {part}))"
    return clipped(_aggregated(source.aggregation, part), cap_steps(source))


def _aggregated(aggregation: Aggregation, part: str) -> str:
    match aggregation:
        case Aggregation.SUM:
            return f"arraySum(event -> event.3, {part})"
        case Aggregation.COUNT:
            return f"toInt256(length({part}))"
        case Aggregation.MAX:
            return f"toInt256(arrayReduce('max', arrayMap(event -> event.3, {part})))"
        case Aggregation.FIRST:
            return f"arraySort({part})[1].3"
        case Aggregation.LAST:
            return f"arraySort({part})[-1].3"
        case Aggregation.UNIQUE:
            return f"toInt256(arrayUniq(arrayMap(event -> event.3, {part})))"
