"""Local state that is gone, old or of another topic: the changelog decides, and the answers stay the same."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.infra.kafka.changelog import TRUSTED_SECONDS
from millrace.infra.state import GroupStore, Mark
from millrace.infra.telemetry import Restored, StoreWiped
from tests.integration.harness import COUNTING, InThread, Publisher, Rig, check, gather, settled
from tests.integration.harness.readback import local_state, recomputed
from tests.stack import Broker


def folders(rig: Rig) -> list[Path]:
    return sorted((rig.settings.stack.folder / "state" / "counter-0").iterdir())


def gone(rig: Rig) -> None:
    shutil.rmtree(rig.settings.stack.folder / "state")


def marked(change: Callable[[Mark], Mark]) -> Callable[[Rig], None]:
    """Plant a wrong value under a mark that says why it may not be trusted."""

    def plant(rig: Rig) -> None:
        for folder in folders(rig):
            store = GroupStore(folder)
            assert store.mark is not None
            store.apply({b"cu1": b"1000"}, change(store.mark))
            store.close()

    return plant


of_another_topic = marked(lambda mark: Mark("another", mark.offset, mark.written))
too_old = marked(lambda mark: Mark(mark.topic_id, mark.offset, time.time() - TRUSTED_SECONDS - 60))
ahead = marked(lambda mark: Mark(mark.topic_id, mark.offset + 1_000_000, mark.written))


@pytest.mark.parametrize(
    ("harm", "wiped"), [(gone, 0), (of_another_topic, 2), (too_old, 2), (ahead, 2)], ids=["gone", "topic", "old", "ahead"]
)
def test_state_that_cannot_be_trusted_is_restored_as_a_whole(
    broker: Broker, tmp_path: Path, harm: Callable[[Rig], None], wiped: int
) -> None:
    rig = Rig.on(broker, tmp_path, COUNTING).provision()
    with Publisher(rig) as publisher:
        publisher.burst(100)
        with InThread(rig):
            settled(rig)
        harm(rig)
        with InThread(rig) as worker:
            publisher.burst(50)
            settled(rig)
            assert len(worker.seen(StoreWiped)) == wiped
            assert sum(event.records for event in worker.seen(Restored)) > 100
    assert check(gather(rig, publisher)) == []
    assert local_state(rig) == recomputed(rig).state


def test_outdated_state_is_brought_up_to_date(broker: Broker, tmp_path: Path) -> None:
    """A backup put back, or what a machine kept whose partitions were elsewhere meanwhile."""
    rig = Rig.on(broker, tmp_path / "data", COUNTING).provision()
    with Publisher(rig) as publisher:
        publisher.burst(100)
        with InThread(rig):
            settled(rig)
        shutil.copytree(tmp_path / "data" / "state", tmp_path / "backup")
        with InThread(rig):
            publisher.burst(100)
            settled(rig)
        shutil.rmtree(tmp_path / "data" / "state")
        shutil.copytree(tmp_path / "backup", tmp_path / "data" / "state")
        with InThread(rig) as worker:
            publisher.burst(50)
            settled(rig)
            assert not worker.seen(StoreWiped)
    assert check(gather(rig, publisher)) == []
    assert local_state(rig) == recomputed(rig).state
