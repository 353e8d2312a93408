"""The moments of one metric, as the stream folds them: nine integer sums for each source partition and arm.

``toInt256`` holds them all: a unit's value is below 2^110 (a million outcomes of 1e15 in steps of 1e-9), its square below 2^220.
"""

from __future__ import annotations

from msgspec import Struct

from millrace.infra.clickhouse.experiments.as_of import AsOf, denominator_of, has_covariate
from millrace.infra.clickhouse.experiments.pieces import exposures, joined, marked_outcomes, outcome_names, unit_value
from millrace.schemas.metric import Metric, Role

OVERALL = "[any(variant)]"
BY_SEGMENT = (
    "arrayMap(segment -> concat(any(variant), segment), arrayConcat([''],\n"
    "            arrayMap((field, value) -> concat('|', field, '=', value), mapKeys(any(segments)), mapValues(any(segments)))))"
)


class Variation(Struct, frozen=True):
    """What a report asks differently from what the judge saw; as it stands, nothing.

    ``cap_level``: units' values are cut to [-c, c], c being this quantile of the values that are not 0, in size, over all arms.
    ``exposed_from_us``: units exposed earlier are left out. ``segments``: None leaves it to the metric's role.
    """

    cap_level: float | None = None
    exposed_from_us: int | None = None
    segments: bool | None = None


AS_JUDGED = Variation()


def moments_sql(as_of: AsOf, metric: Metric, variation: Variation = AS_JUDGED) -> str:
    """Rows of partition, arm (``variant`` or ``variant|field=value``) and the nine sums of ``Moments`` as decimal text."""
    wanted = metric.role is Role.PRIMARY if variation.segments is None else variation.segments
    parts = [
        exposures(as_of),
        marked_outcomes(as_of, outcome_names((metric,))),
        joined(as_of, metric, variation.exposed_from_us),
        units(as_of, metric, BY_SEGMENT if wanted else OVERALL),
    ]
    source = "units"
    if variation.cap_level is not None:
        parts.append(_capped(variation.cap_level))
        source = "capped"
    return "WITH\n" + ",\n".join(parts) + "\n" + sums(source, "partition", "arrayJoin(arms)")


def units(as_of: AsOf, metric: Metric, arms: str = OVERALL) -> str:
    """One row for each unit that counts: y, a ratio's z and the covariate x, and the arms that it counts for."""
    y = unit_value(metric, metric.value, "value_steps", "is_value")
    z = x = "toInt256(0)"
    if denominator := denominator_of(metric):
        z = unit_value(metric, denominator, "denominator_steps", "is_denominator")
    if has_covariate(as_of.plan, metric):
        x = unit_value(metric, metric.value, "value_steps", "is_covariate")
    return f"""units AS (
    -- One row for each that counts, in whole steps of {metric.step!r}: y, of a ratio the denominator z, and the covariate x.
    SELECT partition, subject, {arms} AS arms, any(exposed_us) AS first_us,
        {y} AS y,
        {z} AS z,
        {x} AS x
    FROM joined
    GROUP BY partition, subject
)"""


def _capped(level: float) -> str:
    """Quantiles over the units that a window sees all of, so that ``units`` stands once."""
    cuts = {name: f"quantileExactIf({level!r})(toInt256(abs({name})), {name} != 0) OVER ()" for name in "yz"}
    columns = ", ".join(f"greatest(-{name}_cap, least({name}_cap, {name})) AS {name}" for name in "yz")
    return f"""capped AS (
    SELECT partition, arms, {columns}, x
    FROM (SELECT partition, arms, y, z, x, {cuts["y"]} AS y_cap, {cuts["z"]} AS z_cap FROM units)
)"""


def sums(source: str, by: str, arm: str = "arm") -> str:
    """The nine sums of ``Moments`` over rows of y, z and x, as decimal text: they outgrow what clients read as numbers."""
    return f"""SELECT {by}, {arm} AS arm, toString(count()) AS n,
    toString(sum(y)) AS total, toString(sum(y * y)) AS squares,
    toString(sum(z)) AS denominator_total, toString(sum(z * z)) AS denominator_squares, toString(sum(y * z)) AS cross,
    toString(sum(x)) AS covariate_total, toString(sum(x * x)) AS covariate_squares, toString(sum(y * x)) AS covariate_cross
FROM {source}
GROUP BY {by}, arm
ORDER BY {by}, arm"""
