"""What was logged of each decision of an experiment: the variant, the chance it had, and the reward it brought, at named offsets."""

from __future__ import annotations

from msgspec import Struct

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.infra.clickhouse.experiments.moments import units
from millrace.infra.clickhouse.experiments.pieces import exposures, joined, marked_outcomes, outcome_names
from millrace.schemas.metric import Metric

FOLDS = 5
"""Into so many parts decisions are split by a hash: a reward model is fitted on all parts but the one that it is asked about."""


class Decision(Struct, frozen=True):
    """One decision: what was done, the chance that it had, the reward in the metric's own units, and the part it is in."""

    variant: str
    propensity: float
    reward: float
    fold: int


def logged_sql(as_of: AsOf, metric: Metric) -> str:
    """A row for each unit or request that counts, in an order that does not depend on how it is stored."""
    parts = [exposures(as_of), marked_outcomes(as_of, outcome_names((metric,))), joined(as_of, metric), units(as_of, metric)]
    return (
        "WITH\n"
        + ",\n".join(parts)
        + f""",
chances AS (
    -- The propensity of the record that exposed.
    SELECT _partition AS partition, {as_of.subject} AS subject, argMinIf(propensity, _offset, exposed AND NOT override) AS propensity
    FROM v_assignment_records
    WHERE {as_of.assignments()}
    GROUP BY partition, subject
)
SELECT u.arms[1] AS variant, c.propensity AS propensity, toFloat64(u.y) * {metric.step!r} AS reward,
    toUInt8(sipHash64(u.subject) % {FOLDS}) AS fold
FROM units AS u INNER JOIN chances AS c ON c.partition = u.partition AND c.subject = u.subject
ORDER BY sipHash64(u.subject), u.subject, u.partition"""
    )


def logged(client: Client, as_of: AsOf, metric: Metric) -> list[Decision]:
    """Every decision that counts. Raises Refusal or Unavailable."""
    return [Decision(*row) for row in client.rows(logged_sql(as_of, metric))]
