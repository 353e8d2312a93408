"""The statements' answers, with types."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.arms import SEGMENT_MARK, arms_sql
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.infra.clickhouse.experiments.moments import AS_JUDGED, Variation, moments_sql
from millrace.schemas.evidence import Moments
from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Metric
from millrace.schemas.moments import Arm, from_sums

Place = tuple[int, str]
"""A source partition, and an arm of it."""


def moments(client: Client, as_of: AsOf, metric: Metric, variation: Variation = AS_JUDGED) -> dict[Place, Moments]:
    """The moments of each partition and arm that has units. Raises Refusal or Unavailable."""
    return {(int(row[0]), str(row[1])): from_sums(tuple(row[2:])) for row in client.rows(moments_sql(as_of, metric, variation))}


def arms(client: Client, as_of: AsOf, versions: Sequence[Plan]) -> dict[Place, Arm]:
    """What was seen of each variant on each partition. Raises Refusal or Unavailable."""
    found: dict[Place, Arm] = {}
    for partition, variant, counter, number in client.rows(arms_sql(as_of, versions)):
        arm = found.get((partition, variant), Arm())
        more = {"segments": {**arm.segments, counter: number}} if SEGMENT_MARK in counter else {counter: number}
        found[partition, variant] = replace(arm, **more)
    return found
