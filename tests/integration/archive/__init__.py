"""What it takes to harm archivers on a real broker and a real ClickHouse, and to see afterwards that every record is one row."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import Producer

from millrace.infra.settings import Settings
from millrace.schemas.topics import PREDICTIONS, TOPICS
from millrace.workers.archiver import ROLE
from millrace.workers.verify import Report, verify
from tests.echo import Echo
from tests.integration.harness.processes import WorkerProcess
from tests.integration.harness.rig import Bench, Rig
from tests.stack import Broker, ClickHouse, wait_until

ARCHIVER = Bench(ROLE, ROLE, TOPICS, PREDICTIONS, Echo)
LEASE_SECONDS = 2.0
INSERT_SECONDS = 1.0
QUICK = {
    "block_rows": 300,
    "block_seconds": 0.1,
    "lease_seconds": LEASE_SECONDS,
    "insert_timeout_seconds": INSERT_SECONDS,
    "retry_seconds": 0.2,
}


def archive_rig(broker: Broker, clickhouse: ClickHouse, folder: Path, partitions: int = 2) -> Rig:
    """Topics, a group and a database of their own, provisioned."""
    rig = Rig.on(broker, folder, ARCHIVER, partitions, identity_check_seconds=0.5)
    database = rig.tree["topic_prefix"].strip("-")
    places = {"address": clickhouse.url, "database": database}
    return rig.at(clickhouse=places, archiver=QUICK, telemetry={"log_level": "DEBUG"}).provision()


def archiver(rig: Rig, point: str = "", nth: int = 1, action: str = "kill") -> WorkerProcess:
    """An archiver process; ``point``, ``nth`` and ``action`` name where it kills or freezes itself."""
    return WorkerProcess(rig, point, nth, action, "tests.integration.archive.worker")


def settle(rig: Rig, seconds: float = 60.0) -> Report:
    """Wait until the archiver has caught up, and see that every record is one row."""
    report = verify(rig.settings, seconds)
    assert report.behind == 0, f"{report.behind} partitions behind"
    assert report.clean, [checked for checked in report.partitions if not checked.clean]
    return report


class Load:
    """Publishes without pause until the ``with`` block is left: in transactions, some of which abort, with some records that are poison."""

    def __init__(self, settings: Settings, seed: int = 0, pause_seconds: float = 0.02, batch: int = 60) -> None:
        self._prefix = settings.topic_prefix
        self._random = random.Random(seed)
        self._pause_seconds, self._batch = pause_seconds, batch
        self._stop = threading.Event()
        self.committed = 0
        self._producer = Producer(
            {"bootstrap.servers": settings.kafka.address, "transactional.id": f"{self._prefix}load{seed}", "linger.ms": 0, "log_level": 3}
        )
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._producer.init_transactions(30)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)

    def reach(self, records: int, seconds: float = 60.0) -> None:
        """Wait until so many more records have been committed."""
        wanted = self.committed + records
        wait_until(lambda: self.committed >= wanted, seconds, f"{records} records published")

    def _run(self) -> None:
        while not self._stop.is_set():
            self._transaction(aborted=self._random.random() < 0.15)
            time.sleep(self._pause_seconds)

    def _transaction(self, *, aborted: bool) -> None:
        self._producer.begin_transaction()
        for _ in range(self._batch):
            self._publish()
        self._producer.flush(30)
        if aborted:
            self._producer.abort_transaction(30)
            return
        self._producer.commit_transaction(30)
        self.committed += self._batch

    def _publish(self) -> None:
        number = self._random.randrange(1 << 40)
        chance = self._random.random()
        if chance < 0.7:
            self._send("requests", {"id": f"r{number}", "unit_id": f"u{number % 97}", "model": "m", "features": {"a": number}})
        elif chance < 0.98:
            self._send("outcomes", {"unit_id": f"u{number % 97}", "metric": "paid", "value": 1.5, "request_id": f"r{number}"})
        else:
            self._producer.produce(self._prefix + "requests", b"poison" if chance < 0.99 else None, partition=number % 2)

    def _send(self, topic: str, value: dict[str, Any]) -> None:
        self._producer.produce(self._prefix + topic, json.dumps(value).encode(), value["unit_id"])
