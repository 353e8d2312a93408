"""The parts that the statements are made of: exposures, outcomes with their marks, and a unit's value in whole steps.

The rules are those of docs/experiments.md, "What counts". Statements name views alone, so that analysts run them as they stand; they set
nothing, and join so that ``join_use_nulls`` does not matter. Each part is used once in a statement: ClickHouse writes a ``WITH``
anew wherever its name stands.
"""

from __future__ import annotations

from millrace.infra.clickhouse.experiments.as_of import DAY_US, AsOf, denominator_of, has_covariate, microseconds, sources
from millrace.schemas.evidence import Kind
from millrace.schemas.metric import Aggregation, Metric, Source
from millrace.schemas.tables import quoted

GRACE_MS = 600_000
"""An outcome that was appended at most this long before its unit's exposure may still belong to it."""
GENERATION_MS = 604_800_000
"""Ids are remembered by weeks of append time: a repeated one is seen in its week and in the next."""
SPLIT = 1 << 60
"""``toInt256`` of a double is exact below 2^63 alone (1e24 comes out 11326 too high), so larger ones are converted in two halves."""

BEYOND = 1e60
"""In steps: no unit's value comes near, and an Int256 holds it."""

SAME = "o.partition = e.partition AND o.subject = e.subject AND o.unit = e.unit"
"""Whose an outcome is: of a request, it must name its unit too, for only then do both stand on one partition."""


def exposures(as_of: AsOf) -> str:
    """One row for each subject that met a variant: its first exposure, and whether it met another variant too (``multiple``)."""
    return f"""exposures AS (
    -- Each {_noun(as_of)} that met a variant, at the first record that says so; one whose first record is an override is left out.
    SELECT partition, subject, met.1 AS variant, met.2 AS exposed_us, met.3 AS exposed_append_ms, met.4 AS segments,
        met.5 AS unit, variants > 1 AS multiple
    FROM (
        SELECT _partition AS partition, {as_of.subject} AS subject,
            argMin(override, _offset) AS named_by_hand,
            countIf(exposed AND NOT override) AS met_records,
            uniqExactIf(variant, exposed AND NOT override) AS variants,
            argMinIf((toString(variant), toUnixTimestamp64Micro(time), toUnixTimestamp64Milli(_appended), segments, unit_id),
                _offset, exposed AND NOT override) AS met
        FROM v_assignment_records
        WHERE {as_of.assignments()}
        GROUP BY partition, subject
    )
    WHERE NOT named_by_hand AND met_records > 0
)"""


def marked_outcomes(as_of: AsOf, outcomes: tuple[str, ...]) -> str:
    """One row for each record of these outcomes, and whether it is a duplicate or late: told by all records before it.

    An id is of one unit, which stands in the windows for nothing but to say so. A generation never falls: append times may, by a little.
    """
    subject = as_of.subject if as_of.subject == "unit_id" else "assumeNotNull(request_id)"
    named = "" if as_of.subject == "unit_id" else " AND request_id IS NOT NULL"
    named += "" if as_of.closes_ms is None else f" AND append_ms < {as_of.closes_ms}"
    return f"""outcomes AS (
    -- Marks come from all records of the log before the one in question, whatever their metric.
    SELECT partition, {subject} AS subject, unit_id AS unit, outcome, value, time_us, offset, append_ms,
        previous_generation >= generation - 1 AS duplicate, behind_us > {as_of.lateness_us} AS late
    FROM (
        SELECT *, lagInFrame(generation, 1, toInt64(-2)) OVER (
            PARTITION BY partition, id, unit_id ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS previous_generation
        FROM (
            SELECT _partition AS partition, id, unit_id, request_id, toString(metric) AS outcome, value, _offset AS offset,
                toUnixTimestamp64Micro(time) AS time_us, toUnixTimestamp64Milli(_appended) AS append_ms,
                max(intDiv(append_ms, {GENERATION_MS})) OVER (
                    PARTITION BY _partition ORDER BY _offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS generation,
                ifNull(maxOrNull(time_us) OVER (
                    PARTITION BY _partition ORDER BY _offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) - time_us, 0) AS behind_us
            FROM v_outcome_records
            WHERE {as_of.outcomes()}
        )
    )
    WHERE outcome IN ({", ".join(map(quoted, outcomes))}){named}
)"""


def joined(as_of: AsOf, metric: Metric, exposed_from_us: int | None = None) -> str:
    """One row for each outcome of each subject that counts, and one for a subject without any."""
    since = "" if exposed_from_us is None else f" AND exposed_us >= {exposed_from_us}"
    value, denominator = metric.value, denominator_of(metric)
    columns = [f"{_in_window(metric, value)} AS is_value", *steps(value, "value_steps")]
    if denominator is not None:
        columns += [f"{_in_window(metric, denominator)} AS is_denominator", *steps(denominator, "denominator_steps")]
    if has_covariate(as_of.plan, metric):
        columns.append(f"{_before(as_of, metric)} AS is_covariate")
    lines = ",\n        ".join(columns)
    return f"""joined AS (
    -- RIGHT: a {_noun(as_of)} without outcomes counts too, with 0.
    SELECT e.partition AS partition, e.subject AS subject, e.variant AS variant, e.exposed_us AS exposed_us, e.segments AS segments,
        o.time_us AS time_us, o.offset AS offset,
        {lines}
    FROM outcomes AS o
    RIGHT JOIN (SELECT * FROM exposures WHERE NOT multiple{since}) AS e ON {SAME}
)"""


def outcome_names(metrics: tuple[Metric, ...]) -> tuple[str, ...]:
    """The names of the outcomes that metrics are made of, each once."""
    return tuple(dict.fromkeys(source.outcome for metric in metrics for source in sources(metric)))


def steps(source: Source, name: str) -> list[str]:
    """The columns that turn a record's value into ``name``, an Int256 of whole steps of the resolution, halves to even."""
    return [
        f"roundBankers(o.value / {source.resolution!r}) AS {name}_whole",
        f"trunc({name}_whole / {SPLIT}) AS {name}_high",
        f"toInt256(toInt64({name}_high)) * {SPLIT} + toInt256(toInt64({name}_whole - {name}_high * {SPLIT})) AS {name}",
    ]


def cap_steps(source: Source) -> int | None:
    """A source's cap in whole steps of its unit's value; None where it has none, or one beyond every value that there can be."""
    return None if source.cap is None or source.cap / source.step > BEYOND else round(source.cap / source.step)


def clipped(value: str, cap: int | None) -> str:
    """A value cut to [-cap, cap]."""
    return value if cap is None else f"greatest(toInt256('{-cap}'), least(toInt256('{cap}'), {value}))"


def unit_value(metric: Metric, source: Source, amount: str, counts: str) -> str:
    """A unit's value, from its rows of ``joined`` where ``counts`` holds; 0 where there is none."""
    if metric.kind is Kind.PROPORTION:
        return f"toInt256(countIf({counts} AND {amount} != 0) > 0)"
    return clipped(_aggregated(source.aggregation, amount, counts), cap_steps(source))


def _aggregated(aggregation: Aggregation, amount: str, counts: str) -> str:
    match aggregation:
        case Aggregation.SUM:
            return f"ifNull(sumIf({amount}, {counts}), 0)"
        case Aggregation.COUNT:
            return f"toInt256(countIf({counts}))"
        case Aggregation.MAX:
            return f"ifNull(maxIf({amount}, {counts}), 0)"
        case Aggregation.FIRST:
            return f"ifNull(argMinIf({amount}, (time_us, offset), {counts}), 0)"
        case Aggregation.LAST:
            return f"ifNull(argMaxIf({amount}, (time_us, offset), {counts}), 0)"
        case Aggregation.UNIQUE:
            return f"toInt256(uniqExactIf({amount}, {counts}))"


def _in_window(metric: Metric, source: Source) -> str:
    window_us = microseconds(metric.window_seconds)
    return (
        f"o.outcome = {quoted(source.outcome)} AND NOT o.duplicate AND NOT o.late AND o.append_ms >= e.exposed_append_ms - {GRACE_MS}"
        f"\n            AND o.time_us >= e.exposed_us AND o.time_us < e.exposed_us + {window_us}"
    )


def _before(as_of: AsOf, metric: Metric) -> str:
    """Outcomes of the whole days before the day of the exposure, from the first day that counts on."""
    day = f"(e.exposed_us - positiveModulo(e.exposed_us, {DAY_US}))"
    return (
        f"o.outcome = {quoted(metric.outcome)} AND NOT o.duplicate AND NOT o.late AND o.time_us < {day}"
        f"\n            AND o.time_us >= greatest({day} - {metric.covariate_days * DAY_US}, {as_of.first_day_us(metric)})"
    )


def _noun(as_of: AsOf) -> str:
    return "unit" if as_of.subject == "unit_id" else "request"
