"""What was seen of each arm: units and records that are counted beside the metrics, as ``schemas/moments.py`` names them in ``Arm``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from millrace.infra.clickhouse.experiments.as_of import AsOf, microseconds
from millrace.infra.clickhouse.experiments.pieces import GRACE_MS, SAME, exposures, marked_outcomes, outcome_names
from millrace.schemas.experiment import Plan, Unit
from millrace.schemas.metric import Metric
from millrace.schemas.tables import quoted

SEGMENT_MARK = "="
"""Counters are words; a segment's name has this in it, and they have not."""


def arms_sql(as_of: AsOf, versions: Sequence[Plan]) -> str:
    """Rows of partition, variant, counter (a field of ``Arm``, or ``field=value`` for a segment's units) and number; none is 0.

    ``versions`` are all versions of the plan, oldest first: each assignment is derived again by the one that it names.
    """
    counts = [_records(as_of, versions), _units(as_of), _segments()]
    parts = [exposures(as_of)]
    if as_of.folded:
        parts.append(marked_outcomes(as_of, outcome_names(as_of.folded)))
        counts.append(_outcomes(as_of))
    union = "\n    UNION ALL\n".join(counts)
    return "WITH\n" + ",\n".join(parts) + f"\n{SELECT}\nFROM (\n{union}\n)\nWHERE number > 0\nORDER BY partition, variant, counter"


NOBODY = "(2.0, 2.0, '')"
"""No bucket's share: it gives the list a type where there is no other."""
SELECT = "SELECT partition, variant, counter, toInt64(number) AS number"


def _records(as_of: AsOf, versions: Sequence[Plan]) -> str:
    """Records by their own variant, derived again by the newest version up to the one that they name."""
    numbers = ", ".join(str(plan.version) for plan in versions)
    salts = ", ".join(quoted(plan.salt) for plan in versions)
    names = ", ".join("[" + ", ".join(quoted(variant.name) for variant in plan.variants) + "]" for plan in versions)
    shares = ",\n            ".join("[" + ", ".join([NOBODY, *(_share(*share) for share in shares_of(plan))]) + "]" for plan in versions)
    subject = "unit_id" if as_of.plan.unit is Unit.UNIT else "request_id"
    return f"""    -- Records; underived ones do not follow from the hash and their plan version's shares (or the policy's propensities).
    SELECT partition, variant, pair.1 AS counter, pair.2 AS number
    FROM (
        SELECT _partition AS partition, toString(variant) AS variant, count() AS records,
            countIf(NOT named_by_hand AND NOT override AND NOT follows) AS others
        FROM (
            SELECT _partition, variant, override, first_value(override) OVER (
                    PARTITION BY _partition, {subject} ORDER BY _offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS named_by_hand,
                arrayCount(number -> number <= plan_version, [{numbers}]) AS version,
                bitShiftRight(xxHash64(concat([{salts}][version], ':variant:', {subject})), 11) / 9007199254740992 AS derived,
                [{names}][version] AS names,
                arrayCumSum(arrayMap(name -> propensities[name], names)) AS uppers,
                names[1 + arrayCount(upper -> upper / uppers[-1] <= derived, arrayPopBack(uppers))] AS by_policy,
                arrayFirst(share -> share.1 <= derived AND derived < share.2, [
            {shares}][version]).3 AS by_plan,
                variant = if(policy_version > 0, if(uppers[-1] > 0, by_policy, ''), by_plan) AS follows
            FROM v_assignment_records
            WHERE {as_of.assignments()}
        )
        GROUP BY partition, variant
    )
    ARRAY JOIN [('assignments', records), ('underived', others)] AS pair"""


def _units(as_of: AsOf) -> str:
    return f"""    -- Subjects by their first record.
    SELECT partition, first.1 AS variant, if(first.2, 'overridden', 'assigned') AS counter, count() AS number
    FROM (
        SELECT _partition AS partition, argMin((toString(variant), override), _offset) AS first
        FROM v_assignment_records
        WHERE {as_of.assignments()}
        GROUP BY partition, {as_of.subject}
    )
    GROUP BY partition, variant, counter"""


def _segments() -> str:
    return """    -- Subjects by their first exposure; those that met another variant too count in no segment.
    SELECT partition, variant, arrayJoin(arrayConcat(
            if(multiple, ['exposed', 'multiple'], ['exposed']),
            if(multiple, [], arrayMap((field, value) -> concat(field, '=', value), mapKeys(segments), mapValues(segments))))) AS counter,
        count() AS number
    FROM exposures
    GROUP BY partition, variant, counter"""


def _outcomes(as_of: AsOf) -> str:
    windows = longest_windows(as_of.folded)
    names, lengths = ", ".join(map(quoted, windows)), ", ".join(str(length) for length in windows.values())
    return f"""    -- Outcome records in the longest window of the metrics that use them.
    SELECT e.partition AS partition, e.variant AS variant, multiIf(o.duplicate, 'duplicates', o.late, 'late', 'outcomes') AS counter,
        count() AS number
    FROM outcomes AS o
    INNER JOIN exposures AS e ON {SAME}
    WHERE o.append_ms >= e.exposed_append_ms - {GRACE_MS} AND o.time_us >= e.exposed_us
        AND o.time_us < e.exposed_us + transform(o.outcome, [{names}], [{lengths}], 0)
    GROUP BY partition, variant, counter"""


def longest_windows(metrics: Sequence[Metric]) -> dict[str, int]:
    """Outcome name to the longest window, in microseconds, of the metrics that use it."""
    longest: dict[str, int] = {}
    for metric in metrics:
        for name in outcome_names((metric,)):
            longest[name] = max(longest.get(name, 0), microseconds(metric.window_seconds))
    return longest


def _share(low: float, high: float, variant: str) -> str:
    return f"({low!r}, {high!r}, {quoted(variant)})"


def shares_of(plan: Plan) -> list[tuple[float, float, str]]:
    """The parts [low, high) of the buckets and their variants: the plan's spans, else by weight in the order of the variants.

    Weights are summed from left to right, as ``arrayCumSum`` does it, and as the assigner does.
    """
    if plan.spans:
        return [(float(span.low), float(span.high), span.variant) for span in plan.spans]
    uppers = list(accumulate(variant.weight for variant in plan.variants))
    if not uppers[-1] > 0:
        return []
    bounds = [0.0, *(upper / uppers[-1] for upper in uppers[:-1]), 1.0]
    shares = zip(bounds, bounds[1:], plan.variants, strict=False)
    return [(low, high, variant.name) for low, high, variant in shares if low < high]
