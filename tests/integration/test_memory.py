"""Does a worker hold no more of a backlog in memory than its settings say?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.settings import Settings
from millrace.schemas.topics import REQUESTS
from tests.echo import SLOW
from tests.integration.archive import archive_rig, archiver, settle
from tests.integration.harness import ECHO, Rig, WorkerProcess
from tests.integration.harness.publish import pause
from tests.integration.harness.readback import outputs, positions
from tests.stack import Broker, ClickHouse, wait_until

MEBIBYTE = 1 << 20
RECORD_BYTES = 100_000
RECORDS = 2_500
BOUND_BYTES = 100 * MEBIBYTE
"""Less than half of the backlog: who took all of it would hold it at least once."""
SMALL = {"fetch_queue_bytes": 4 * MEBIBYTE, "poll_records": 50}


def backlog(settings: Settings, records: int) -> None:
    """Publish so many large requests."""
    fill = b" " * RECORD_BYTES
    publish(settings, (Outgoing(REQUESTS.name, b"%d" % n, b'{"id": "r%d", "unit_id": "u"%b}' % (n, fill)) for n in range(records)))


def resident(worker: WorkerProcess, what: str = "VmRSS") -> int:
    """Its resident size in bytes: now, or the largest there was (``VmHWM``)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def stays_small(worker: WorkerProcess, before: int) -> None:
    """Its peak is within the bound."""
    growth = resident(worker, "VmHWM") - before
    assert growth < BOUND_BYTES, f"grew by {growth >> 20} MiB over a backlog of {RECORDS * RECORD_BYTES >> 20} MiB"


@pytest.mark.timeout(600)
def test_a_runner_takes_of_a_backlog_what_its_queue_and_its_poll_allow(broker: Broker, tmp_path: Path) -> None:
    """Its step takes long at first, so that Kafka could bring all of it meanwhile."""
    rig = Rig.on(broker, tmp_path, ECHO, session_timeout_seconds=60.0, **SMALL).provision()
    with WorkerProcess(rig) as worker:
        worker.wait_for("Assigned")
        backlog(rig.settings, 20)
        wait_until(lambda: len(outputs(rig)) == 20, 60, "warm")
        worker.freeze()
        slow = b'{"id": "slow", "unit_id": "u", "context": {"do": "%b"}}' % SLOW.encode()
        publish(rig.settings, [Outgoing(REQUESTS.name, b"slow", slow)])
        backlog(rig.settings, RECORDS)
        before = resident(worker)
        worker.thaw()
        wait_until(lambda: sum(positions(rig).values()) == RECORDS + 21, 120, "the backlog is read")
        stays_small(worker, before)
        worker.drain()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_archiver_without_clickhouse_holds_a_few_blocks(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    rig = archive_rig(broker, clickhouse, tmp_path)
    small = {"block_bytes": 4 * MEBIBYTE, "fetch_queue_bytes": 4 * MEBIBYTE}
    rig = rig.at(archiver=rig.tree["archiver"] | small, runner=rig.tree["runner"] | SMALL)
    with archiver(rig) as worker:
        worker.wait_for("Assigned")
        backlog(rig.settings, 20)
        settle(rig)
        before = resident(worker)
        clickhouse.kill()
        try:
            backlog(rig.settings, RECORDS)
            worker.wait_for("PlaceUnavailable", 3)
            pause(5)  # for as long as it would go on reading
            stays_small(worker, before)
        finally:
            clickhouse.start()
        settle(rig, 120)
        stays_small(worker, before)
        worker.drain()
