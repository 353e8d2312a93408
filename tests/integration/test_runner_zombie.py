"""A worker that freezes inside a transaction while a successor takes its slot: it wakes up fenced, and nothing stands there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.harness import COUNTING, ECHO, Bench, Publisher, Rig, WorkerProcess, check, gather, settled
from tests.stack import Broker, wait_until


def another_machine(rig: Rig, folder: Path) -> Rig:
    """The same slot with local state elsewhere."""
    return rig.at(stack={"data": str(folder)})


@pytest.mark.parametrize("bench", [ECHO, COUNTING], ids=lambda bench: bench.name)
@pytest.mark.parametrize("point", ["after produce", "before commit", "after commit"])
def test_a_zombie_is_fenced(broker: Broker, tmp_path: Path, bench: Bench, point: str) -> None:
    # Longer than the freeze on any machine: after its session a zombie may take its place in the group back, and the successor ends.
    rig = Rig.on(broker, tmp_path / "first", bench, session_timeout_seconds=60.0).provision()
    with Publisher(rig) as publisher:
        publisher.keep_on(300)
        with WorkerProcess(rig, point, 5, "stop") as zombie:
            wait_until(lambda: zombie.frozen, 60, f"frozen at {point}")
            with WorkerProcess(another_machine(rig, tmp_path / "second")) as successor:
                successor.wait_for("Assigned")
                publisher.burst(100)
                zombie.thaw()
                assert zombie.wait() == 1
                assert zombie.wait_for("Failed")["error"] == "Fenced"
                publisher.stop()
                settled(rig, successor)
                assert not successor.events("Failed")
                successor.drain()
        assert check(gather(rig, publisher)) == []


def test_a_successor_on_the_same_state_says_who_is_in_its_way(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    with Publisher(rig) as publisher:
        publisher.burst(50)
        with WorkerProcess(rig, "before commit", 1, "stop") as zombie:
            wait_until(lambda: zombie.frozen, 60, "frozen")
            with WorkerProcess(rig) as successor:
                assert successor.wait() == 1
                failed = successor.wait_for("Failed")
                assert failed["error"] == "PathInUse"
                assert "another process" in failed["reason"]
            zombie.kill()
        with WorkerProcess(rig) as worker:
            settled(rig, worker)
            worker.drain()
        assert check(gather(rig, publisher)) == []
