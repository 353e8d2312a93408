"""Workers that join and leave under load: state moves with its partition, and each record is answered by one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.harness import COUNTING, ECHO, Bench, Publisher, Rig, WorkerProcess, check, gather, settled
from tests.integration.harness.publish import pause
from tests.integration.harness.readback import commits, local_state, recomputed
from tests.stack import Broker, wait_until


@pytest.mark.parametrize("bench", [pytest.param(ECHO, marks=pytest.mark.slow), COUNTING], ids=lambda bench: bench.name)
def test_a_second_worker_joins_and_leaves_under_load(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench, partitions=4, session_timeout_seconds=10.0).provision()
    with Publisher(rig) as publisher, WorkerProcess(rig) as first:
        publisher.keep_on(500)
        first.wait_for("Assigned")
        with WorkerProcess(rig.at(ordinal=1)) as second:
            assert all(len(numbers) == 2 for numbers in second.wait_for("Assigned")["partitions"].values())
            wait_until(lambda: f"{bench.role}-1" in {commit.slot for commit in commits(rig.settings)}, 60, "the second one commits")
            second.drain()
        first.wait_for("Assigned", 3)  # all, then half, then all again
        pause(0.3)
        publisher.stop()
        settled(rig, first, 120)
        first.drain()
    assert check(gather(rig, publisher)) == []
    assert {commit.slot for commit in commits(rig.settings)} == {f"{bench.role}-0", f"{bench.role}-1"}
    if not bench.stateless:
        assert local_state(rig) == recomputed(rig).state
    assert not first.events("Failed")


@pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)
def test_drained_under_load(broker: Broker, tmp_path: Path, bench: Bench) -> None:
    rig = Rig.on(broker, tmp_path, bench).provision()
    with Publisher(rig) as publisher:
        publisher.keep_on(1_500, burst=50)
        for _ in range(2):
            with WorkerProcess(rig) as worker:
                worker.wait_for("Assigned")
                pause(0.5)
                worker.drain()
                assert [line["signal"] for line in worker.events("Draining")] == ["SIGTERM"]
                assert worker.events("Stopped")
        publisher.stop()
        with WorkerProcess(rig) as worker:
            settled(rig, worker, 120)
            worker.drain()
    assert check(gather(rig, publisher)) == []
