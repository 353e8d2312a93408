"""The sums over features from which a contextual policy is learnt, as the stream folds them: of its reward, by partition and variant.

Each feature is cut to its range, scaled to [-1, 1] and read in whole steps by the same arithmetic on doubles, in the same order.
"""

from __future__ import annotations

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.infra.clickhouse.experiments.moments import units
from millrace.infra.clickhouse.experiments.pieces import exposures, joined, marked_outcomes, outcome_names
from millrace.schemas.metric import Metric
from millrace.schemas.policy_state import STEPS, Feature, Gram
from millrace.schemas.tables import quoted


def grams_sql(as_of: AsOf, metric: Metric) -> str:
    """Rows of partition, variant, n, the upper triangle of the sum of x x' by rows, and the sum of x r, as decimal text."""
    features = as_of.plan.learnt_over(metric.name)
    parts = [
        exposures(as_of),
        marked_outcomes(as_of, outcome_names((metric,))),
        joined(as_of, metric),
        units(as_of, metric),
        _logged(as_of),
        _scaled(features),
    ]
    return (
        "WITH\n"
        + ",\n".join(parts)
        + """
SELECT partition, variant, toString(count()) AS n,
    arrayMap(s -> toString(s), sumForEach(
        arrayFlatten(arrayMap((a, i) -> arrayMap(b -> a * b, arraySlice(x, i)), x, arrayEnumerate(x))))) AS products,
    arrayMap(s -> toString(s), sumForEach(arrayMap(a -> a * y, x))) AS rewards
FROM scaled
GROUP BY partition, variant
ORDER BY partition, variant"""
    )


def grams(client: Client, as_of: AsOf, metric: Metric) -> dict[tuple[int, str], Gram]:
    """The sums over features of each partition and variant; none of a metric that no policy learns from. Raises Refusal or Unavailable."""
    if not as_of.plan.learnt_over(metric.name):
        return {}
    return {
        (int(partition), str(variant)): Gram(int(n), tuple(map(int, products)), tuple(map(int, rewards)))
        for partition, variant, n, products, rewards in client.rows(grams_sql(as_of, metric))
    }


def _logged(as_of: AsOf) -> str:
    return f"""logged AS (
    -- The features of the record that exposed.
    SELECT _partition AS partition, {as_of.subject} AS subject, argMinIf(features, _offset, exposed AND NOT override) AS features
    FROM v_assignment_records
    WHERE {as_of.assignments()}
    GROUP BY partition, subject
)"""


def _scaled(features: tuple[Feature, ...]) -> str:
    lines = ",\n        ".join([f"toInt256({STEPS})", *map(_steps, features)])
    known = " AND ".join(f"mapContains(l.features, {quoted(feature.name)})" for feature in features)
    return f"""scaled AS (
    -- x: 1 and the features, scaled, in steps of 1 / {STEPS}. A request that lacks one is not learnt from.
    SELECT u.partition AS partition, u.arms[1] AS variant, u.y AS y, [
        {lines}
    ] AS x
    FROM units AS u INNER JOIN logged AS l ON l.partition = u.partition AND l.subject = u.subject
    WHERE {known}
)"""


def _steps(feature: Feature) -> str:
    low, high, width = feature.low, feature.high, feature.high - feature.low
    clipped = f"least(greatest(l.features[{quoted(feature.name)}], {low!r}), {high!r})"
    return f"toInt256(toInt64(roundBankers((({clipped} - {low!r}) / {width!r} * 2 - 1) * {STEPS})))"
