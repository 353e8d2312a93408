"""A few assignments and outcomes on topics of their own, put into ClickHouse as the archiver would put them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments import answers
from millrace.infra.clickhouse.experiments.as_of import AsOf, Ends
from millrace.infra.clickhouse.experiments.moments import AS_JUDGED, Variation
from millrace.infra.clickhouse.store import Store
from millrace.schemas.evidence import Moments
from millrace.schemas.experiment import Analysis, Plan, State, Variant
from millrace.schemas.metric import Metric
from millrace.schemas.moments import Arm
from millrace.schemas.record import Record
from millrace.schemas.tables import TABLES

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
NOON_US = 1_794_312_000_000_000
SECOND_US, DAY_US, WEEK_MS = 1_000_000, 86_400_000_000, 604_800_000
EXPERIMENT = "checkout"
_numbers = itertools.count()


def metric(name: str = "m", **more: Any) -> Metric:
    """A metric of the outcome ``paid`` in whole ones, within an hour."""
    return Metric(**{"name": name, "outcome": "paid", "resolution": 1.0, "window_seconds": 3_600.0, **more})


def plan(*metrics: Metric, **more: Any) -> Plan:
    """A running plan of two equal variants, written long before noon."""
    written = NOON - timedelta(days=30)
    fixed: dict[str, Any] = {"name": EXPERIMENT, "version": 1, "state": State.RUNNING, "time": written, "created": written, "salt": "s"}
    arms = (Variant(name="a"), Variant(name="b"))
    return Plan(**{**fixed, "variants": arms, "metrics": metrics, "analysis": Analysis(lateness_seconds=600.0), **more})


def encoded(topic: str, partition: int, events: Sequence[tuple[int, int, bytes]]) -> list[Record]:
    """Records of one partition: (offset, append time in ms, value)."""
    return [Record(topic, partition, offset, appended_ms, None, value) for offset, appended_ms, value in events]


def insert(client: Client, topic: str, topic_id: str, records: Sequence[Record]) -> None:
    """Store records of a topic, as of one that Kafka calls ``topic_id``."""
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    for partition in sorted({record.partition for record in records}):
        block = Builder(TABLES[topic]).build([r for r in records if r.partition == partition], Place(topic_id, partition, lease))
        Store(client, 20).insert(topic, block, f"{topic_id}-{topic}-{partition}")


class Scenario:
    """What happened, in the order of the calls. Times are microseconds from noon; a record is appended when it happens, unless it says."""

    def __init__(self, client: Client, plan: Plan, assignments_id: str = "", outcomes_id: str = "") -> None:
        """Topics have ids of their own unless they are named."""
        number = next(_numbers)
        self.client, self.plan = client, plan
        self.ids = {"assignments": assignments_id or f"assigned-{number}", "outcomes-by-unit": outcomes_id or f"happened-{number}"}
        self._records: dict[str, list[Record]] = {"assignments": [], "outcomes-by-unit": []}
        self._stored = False

    def meets(self, unit: str, variant: str = "a", at: int = 0, **more: Any) -> None:
        """A unit is assigned, and exposed unless it says otherwise."""
        fixed = {"request_id": f"r{len(self._records['assignments'])}", "plan_version": 1, "bucket": 0.5, "propensity": 0.5}
        fields = {"id": "x", **fixed, "unit_id": unit, "experiment": EXPERIMENT, "variant": variant, **more}
        self._add("assignments", at, fields)

    def happens(self, unit: str, value: float = 1.0, at: int = 0, **more: Any) -> None:
        """An outcome of a unit, under an id of its own unless it says otherwise."""
        fields = {"id": f"o{len(self._records['outcomes-by-unit'])}", "unit_id": unit, "metric": "paid", "value": value, **more}
        self._add("outcomes-by-unit", at, fields)

    def _add(self, topic: str, at: int, fields: dict[str, Any]) -> None:
        time_us = NOON_US + at
        appended_ms = NOON_US // 1_000 + fields.pop("appended") // 1_000 if "appended" in fields else time_us // 1_000
        partition, offset = fields.pop("partition", 0), fields.pop("offset", len(self._records[topic]))
        value = msgspec.json.encode({**fields, "time": NOON + timedelta(microseconds=at)})
        self._records[topic].append(Record(topic, partition, offset, appended_ms, None, value))

    @property
    def records(self) -> list[Record]:
        """What happened, as it stands in Kafka."""
        return [record for records in self._records.values() for record in records]

    def as_of(self, *ends: Ends, **more: Any) -> AsOf:
        """Everything there is on partition 0, unless it says otherwise."""
        if not self._stored:
            for topic, records in self._records.items():
                insert(self.client, topic, self.ids[topic], records)
            self._stored = True
        return AsOf(self.plan, self.ids["assignments"], self.ids["outcomes-by-unit"], ends or (Ends(0, 1_000, 1_000),), **more)

    def moments(self, name: str = "m", *ends: Ends, variation: Variation = AS_JUDGED, **more: Any) -> dict[str, Moments]:
        """A metric's moments by arm, over partitions."""
        as_of = self.as_of(*ends, **more)
        found: dict[str, Moments] = {}
        for (_, arm), one in answers.moments(self.client, as_of, as_of.metric(name), variation).items():
            found[arm] = found.get(arm, Moments()) + one
        return found

    def total(self, name: str = "m", arm: str = "a", **more: Any) -> int:
        """The sum of the values of an arm's units."""
        return self.moments(name, **more)[arm].total

    def arms(self, *versions: Plan, **more: Any) -> dict[str, Arm]:
        """What was seen of each arm on partition 0."""
        return {arm: one for (_, arm), one in answers.arms(self.client, self.as_of(**more), versions or (self.plan,)).items()}
