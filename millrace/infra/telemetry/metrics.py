"""The catalogue of metrics. Every one carries ``worker`` and ``slot``; names end in their unit.

A metric is updated once a poll with a sum, never once a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector, generate_latest

M = TypeVar("M", Counter, Gauge, Histogram)

OWN = ("worker", "slot")
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


class Family(Generic[M]):
    """One metric of this process: called with the values of its own labels, it gives the series to update."""

    def __init__(self, metric: M, own: tuple[str, str]) -> None:
        self._metric: M = metric
        self._own = own

    def __call__(self, *labels: str) -> M:
        series: M = self._metric.labels(*self._own, *labels)
        return series

    def remove(self, *labels: str) -> None:
        """Stop showing a series, e.g. the lag of a partition that went to another worker."""
        try:
            self._metric.remove(*self._own, *labels)
        except KeyError:
            return  # it was never shown


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, worker: str, slot: str) -> None:
        self.registry = CollectorRegistry()
        self._own = (worker, slot)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._runner()
        self._holding()
        self._inference()
        self._archiver()
        self.ready().set(0)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _runner(self) -> None:
        self.records_in = self._counter("millrace_records_in", "Records taken in.", "topic")
        self.events_out = self._counter("millrace_events_out", "Events committed.", "topic")
        self.poll_records = self._histogram("millrace_poll_records", "Records in one poll.", RECORDS)
        self.stage_seconds = self._histogram("millrace_stage_seconds", "Time of one poll in each stage.", SECONDS, "stage")
        self.commit_seconds = self._histogram("millrace_commit_seconds", "Time from asking for a commit to its answer.", SECONDS)
        self.transactions = self._counter("millrace_transactions", "Transactions ended, by how.", "outcome")
        self.lag_records = self._gauge("millrace_lag_records", "Records not yet taken in.", "topic", "partition")
        self.lag_seconds = self._gauge(
            "millrace_lag_seconds", "Age of the newest record taken in, while there are more.", "topic", "partition"
        )
        self.ends_unknown = self._counter("millrace_ends_unknown", "Times that Kafka did not tell where a log ends.", "topic")
        self.assigned = self._gauge("millrace_assigned_partitions", "Partitions that this worker owns.")
        self.ready = self._gauge("millrace_ready", "1 while the worker is ready.")
        self.restarts = self._counter("millrace_restarts", "Restarts of a supervised process.", "process")
        self.errors = self._counter("millrace_errors", "Internal errors, by the event that tells of them.", "event")

    def _holding(self) -> None:
        self.dead_letters = self._counter("millrace_dead_letters", "Records that can never be used.", "topic")
        self.held_groups = self._gauge("millrace_held_groups", "Partition groups on hold, by why.", "why")
        self.control_ignored = self._counter("millrace_control_ignored", "Control records that were ignored.", "topic")
        self.lacking = self._gauge("millrace_control_lacking", "1 for each name on control topics that cannot be used yet.", "what")
        self.restored_records = self._counter("millrace_restored_records", "Changelog records read to restore state.", "topic")

    def _inference(self) -> None:
        self.predictions = self._counter("millrace_predictions", "Predictions, by how they were answered.", "model", "status")
        self.model_seconds = self._histogram("millrace_model_seconds", "Time of one run of a model.", SECONDS, "model")
        self.model_records = self._histogram("millrace_model_records", "Requests in one run of a model.", RECORDS, "model")
        self.models_loaded = self._gauge("millrace_models_loaded", "Model versions in memory.")

    def _archiver(self) -> None:
        self.rows_inserted = self._counter("millrace_rows_inserted", "Rows inserted into ClickHouse.", "table")
        self.rows_undecoded = self._counter("millrace_rows_undecoded", "Rows of records that could not be decoded.", "table")
        self.blocks_refused = self._counter("millrace_blocks_refused", "Blocks that ClickHouse refused.", "table")
        self.insert_seconds = self._histogram("millrace_insert_seconds", "Time of one insert.", SECONDS, "table")
        self.block_rows = self._histogram("millrace_block_rows", "Rows in one block.", RECORDS, "table")
        self.place_up = self._gauge("millrace_place_up", "1 while a place that is needed answers.", "place")
        self.place_errors = self._counter("millrace_place_errors", "Calls that a place did not answer.", "place")

    def _counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        return Family(Counter(name, text, [*OWN, *labels], registry=self.registry), self._own)

    def _gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        return Family(Gauge(name, text, [*OWN, *labels], registry=self.registry), self._own)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Family[Histogram]:
        return Family(Histogram(name, text, [*OWN, *labels], buckets=buckets, registry=self.registry), self._own)
