"""A step that is slower than any poll allows for: its member may be thrown out once, but not for ever on the same records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from millrace.infra.telemetry import Polled
from millrace.schemas.record import Emit, Refused
from millrace.streams.step import Batch, Store
from tests.echo import Echo
from tests.integration.harness import ECHO, InThread, Publisher, Rig, check, gather, settled
from tests.stack import Broker

RECORDS = 400


class Slow(Echo):
    """Takes its time over each request, until it is ``fast``."""

    fast = False

    def process(self, batch: Batch, store: Store) -> Iterator[Emit | Refused]:
        if not self.fast:
            time.sleep(0.01 * len(batch.records))
        return super().process(batch, store)


def test_a_backlog_that_a_slow_step_cannot_do_in_one_poll_interval_is_done_all_the_same(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, ECHO, partitions=1, session_timeout_seconds=1.0, max_poll_interval_seconds=2.0).provision()
    step = Slow()
    slow = Rig(replace(ECHO, make=lambda: step), rig.tree)
    with Publisher(rig) as publisher:
        publisher.burst(RECORDS)
        with InThread(slow) as worker:
            settled(rig, seconds=40)
            sizes = [sum(polled.records.values()) for polled in worker.seen(Polled)]
            assert sizes[0] > 200, "one poll takes longer than the interval"
            assert max(sizes[2:]) <= 80
            step.fast = True
            worker.events.clear()
            for _ in range(12):
                publisher.burst(RECORDS)
            settled(rig)
            assert max(sum(polled.records.values()) for polled in worker.seen(Polled)) > 200, "and it grows back"
        assert check(gather(rig, publisher)) == []
