"""What the archiver asks of ClickHouse: the time, which offsets are present, and to store a block once."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from msgspec import Struct

from millrace.infra.clickhouse.blocks import FORMAT, Block
from millrace.infra.clickhouse.client import Client, Refusal, is_lease_over
from millrace.schemas.errors import MillraceError
from millrace.schemas.tables import LEASE_CONSTRAINT, MARKS, TABLES

Offsets = np.ndarray[Any, np.dtype[np.int64]]
CLOCK_SECONDS = 5.0


class LeaseOver(MillraceError):
    """The table refused a block because its writer's right to insert it is over."""


class Span(Struct, frozen=True):
    """The offsets [start, end) of one partition of one topic."""

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int


class Clock:
    """The server's time, never ahead of it: asked for now and then, and moved on by a monotonic clock in between."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._server = 0.0
        self._asked = -math.inf

    @property
    def stale(self) -> bool:
        """Whether it should be asked again."""
        return time.monotonic() - self._asked > CLOCK_SECONDS

    def ask(self) -> None:
        """Ask the server. Raises Unavailable or Refusal."""
        answer = float(self._client.rows("SELECT toFloat64(now64(3))")[0][0])
        self._server, self._asked = answer, time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._server + time.monotonic() - self._asked


class Store:
    """The tables, as the archiver uses them."""

    def __init__(self, client: Client, insert_seconds: float) -> None:
        self._client = client
        self._insert_seconds = insert_seconds
        self._columns = {topic: [c.name for c in table.columns] + [mark.name for mark in MARKS] for topic, table in TABLES.items()}

    def highest(self, span: Span) -> int | None:
        """The highest offset that is present at or above the span's start; None where there is none."""
        sql = f"SELECT max(_offset), count() FROM {self._table(span)} WHERE {WHERE_PLACE} AND _offset >= {{start:Int64}}"
        highest, count = self._client.rows(sql, _parameters(span))[0]
        return int(highest) if count else None

    def present(self, span: Span) -> Offsets:
        """The offsets of a span that are present, in order; one that stands in two rows stands there twice."""
        sql = f"SELECT _offset FROM {self._table(span)} WHERE {WHERE_SPAN} ORDER BY _offset"
        return np.frombuffer(self._client.raw(sql, "RowBinary", _parameters(span)), np.int64)

    def insert(self, topic: str, block: Block, token: str) -> None:
        """Store a block once, however often it is sent. Raises LeaseOver, Refusal, or Unavailable where nobody knows."""
        settings = {
            "insert_deduplication_token": token,
            "deduplicate_blocks_in_dependent_materialized_views": 1,
            "async_insert": 0,
            "wait_end_of_query": 1,
            "max_execution_time": self._insert_seconds,
            "log_comment": token,
        }
        try:
            self._client.insert(f"{self._client.database}.{TABLES[topic].name}", self._columns[topic], FORMAT, block.data, settings)
        except Refusal as error:
            if is_lease_over(error, LEASE_CONSTRAINT):
                raise LeaseOver(f"the lease of {token} is over: {error}") from None
            raise

    def _table(self, span: Span) -> str:
        return f"{self._client.database}.{TABLES[span.topic].name}"


WHERE_PLACE = "_topic_id = {topic_id:String} AND _partition = {partition:Int32}"
WHERE_SPAN = f"{WHERE_PLACE} AND _offset >= {{start:Int64}} AND _offset < {{end:Int64}}"


def _parameters(span: Span) -> dict[str, Any]:
    return {"topic_id": span.topic_id, "partition": span.partition, "start": span.start, "end": span.end}
