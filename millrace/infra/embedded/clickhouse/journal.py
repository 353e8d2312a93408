"""A log line and the metrics of each query. Takes the place of ``system.query_log``, which this engine does not have."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


@dataclass(slots=True)
class Entry:
    """What is told of one query; ``error`` is ClickHouse's code, 0 for none."""

    query_id: str
    user: str = ""
    kind: str = ""
    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    body_bytes: int = 0
    error: int = 0


class Journal:
    """Writes log lines, whole ones, to stdout and counts what it writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        labels = ("user", "kind")
        self._queries = Counter("clickhouse_endpoint_queries", "Queries answered", (*labels, "error"), registry=self.registry)
        self._seconds = Histogram("clickhouse_endpoint_query_seconds", "Time from request to answer", labels, registry=self.registry)
        self._rows = Counter("clickhouse_endpoint_rows", "Rows answered or inserted", labels, registry=self.registry)
        self._bytes = Counter("clickhouse_endpoint_answer_bytes", "Bytes answered, before compression", labels, registry=self.registry)
        self.running = Gauge("clickhouse_endpoint_running", "Requests in progress", registry=self.registry)
        self.spooled = Gauge("clickhouse_endpoint_spooled_bytes", "Bodies held in memory", registry=self.registry)

    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def query(self, entry: Entry) -> None:
        """Log and count one query."""
        labels = (entry.user, entry.kind)
        self._queries.labels(*labels, str(entry.error)).inc()
        self._seconds.labels(*labels).observe(entry.seconds)
        self._rows.labels(*labels).inc(entry.rows)
        self._bytes.labels(*labels).inc(entry.bytes)
        fields = {name: getattr(entry, name) for name in Entry.__slots__}
        self.line("query", **{**fields, "seconds": round(entry.seconds, 6)})

    def line(self, message: str, **fields: str | int | float) -> None:
        """One JSON line: a fixed message and its fields."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps({"time": now, "message": message, **fields}, ensure_ascii=False)
        with self._lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
