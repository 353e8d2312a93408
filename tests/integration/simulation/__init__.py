"""The whole stack of experiments for one test: five real worker processes on topics of their own, four of which are killed at random.

``Live`` has the places and the workers, ``World`` makes up what happens and knows what an experiment on it must come to.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from millrace.infra.clickhouse.client import Client
from millrace.infra.kafka.clients import describe, full_name, producer
from millrace.infra.kafka.offsets import committed
from millrace.infra.kafka.provision import provision
from millrace.infra.models import inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import Settings
from millrace.schemas.result import Result
from millrace.schemas.topics import ASSIGNMENTS, OUTCOMES, OUTCOMES_BY_UNIT, REQUESTS, Topic
from millrace.workers.commands.models import add_model
from millrace.workers.results import look_up
from tests.integration.harness import Rig, Supervised
from tests.integration.harness.readback import in_order
from tests.integration.harness.rig import INTAKE
from tests.integration.simulation.world import MODEL, World
from tests.stack import Broker, ClickHouse, wait_until

__all__ = ["Live", "World", "covers", "live"]

KILLED = ("intake", "inference", "experimenter", "judge")
PATIENCE_SECONDS = 240.0
AT_ONCE = 250


class Live:
    """Four workers that are started again when they end, and an archiver. Leave it through ``live``."""

    def __init__(self, rig: Rig, stack: ExitStack) -> None:
        self.settings: Settings = rig.settings
        self.workers = {role: stack.enter_context(_supervised(rig, role)) for role in (*KILLED, "archiver")}
        self.kills: list[str] = []
        self._sent = {REQUESTS: 0, OUTCOMES: 0}
        self._producer: Producer = producer(self.settings)

    def kill(self, role: str) -> None:
        """End a worker as a crash would, as soon as one runs; it is started again at once."""
        self.wait(lambda: self.workers[role].worker.alive, f"{role} runs")
        doomed = self.workers[role].worker
        doomed.kill()
        assert doomed.wait() == -signal.SIGKILL
        self.kills.append(role)

    def send(self, topic: Topic, values: Iterable[bytes]) -> None:
        """Publish without keys, to one partition after the other: an outside producer knows nothing of units."""
        name, partitions = full_name(self.settings, topic), self.settings.kafka.partitions
        for value in values:
            self._producer.produce(name, value, partition=self._sent[topic] % partitions)
            self._sent[topic] += 1
        if left := self._producer.flush(60):
            raise AssertionError(f"{left} records could not be published")

    def stream(self, world: World, deaths: int, seed: int, requests_per_second: float) -> None:
        """Publish what happens, requests and outcomes mixed, while so many times a worker is killed at a moment drawn at random."""
        chance = random.Random(seed)
        parts = list(world.stream(AT_ONCE))
        roles = [KILLED[(2 + number) % len(KILLED)] for number in range(deaths)]
        due = sorted(zip(chance.choices(range(len(parts)), k=deaths), roles, strict=True))
        began = time.monotonic()
        for number, (requests, outcomes) in enumerate(parts):
            time.sleep(max(0.0, began + number * AT_ONCE / requests_per_second - time.monotonic()))
            self.send(REQUESTS, requests)
            self.send(OUTCOMES, outcomes)
            while due and due[0][0] == number:
                self.kill(due.pop(0)[1])

    def decided(self) -> None:
        """Wait until every request that was sent is decided."""
        self._consumed("inference", REQUESTS)

    def moved(self) -> None:
        """Wait until every outcome that was sent stands on its unit's partition, or is refused."""
        self._consumed("intake", OUTCOMES)

    def judged(self, name: str) -> Result:
        """Wait for a result that covers every assignment and outcome of its world that stands now; the last ones must change it."""
        ends = {topic.name: self.ends(topic, name) for topic in (ASSIGNMENTS, OUTCOMES_BY_UNIT)}
        found: list[Result] = []

        def covered() -> bool:
            newest = look_up(self.settings, name)
            if newest is None or not covers(newest.offsets, ends):
                return False
            found.append(newest)
            return True

        self.wait(covered, f"a result of {name} up to {ends}")
        return found[0]

    def ends(self, topic: Topic, name: str) -> dict[int, int]:
        """By partition, the offset behind the last record that names an experiment's world."""
        mark = name.encode()
        return {record.partition: record.offset + 1 for record in in_order(self.settings, topic) if mark in (record.value or b"")}

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until the condition holds; fails at once with the log of a worker that ended by itself."""

        def checked() -> bool:
            failed = {role: worker.failures for role, worker in self.workers.items() if worker.failures}
            assert not failed, failed
            return condition()

        wait_until(checked, PATIENCE_SECONDS, what)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What ClickHouse answers, about this test's database."""
        client = Client(self.settings.clickhouse)
        return [tuple(row) for row in client.rows(sql.replace("FROM ", f"FROM {client.database}."))]

    def _consumed(self, role: str, topic: Topic) -> None:
        infos = describe(self.settings, [full_name(self.settings, topic)])
        wanted = self._sent[topic]
        self.wait(lambda: sum(committed(self.settings, role, infos).values()) >= wanted, f"{wanted} of {topic.name} consumed by {role}")


def covers(offsets: Mapping[str, Mapping[str, int]], ends: Mapping[str, Mapping[int, int]]) -> bool:
    """Whether offsets by partition and topic reach ends by topic and partition."""
    return all(offsets.get(str(number), {}).get(topic, 0) >= end for topic, places in ends.items() for number, end in places.items())


@contextmanager
def live(broker: Broker, clickhouse: ClickHouse, folder: Path, partitions: int = 2) -> Iterator[Live]:
    """A stack that runs for as long as the block lasts, with a model that answers."""
    base = Rig.on(broker, folder, INTAKE, partitions)
    places = {"address": clickhouse.url, "database": base.tree["topic_prefix"].strip("-")}
    rig = base.at(clickhouse=places, archiver={"block_seconds": 0.3})
    provision(rig.settings)
    data = perceptron((2, 4, 1))
    add_model(rig.settings, MODEL, (inspect(data), data))
    with ExitStack() as stack:
        found = Live(rig, stack)
        for worker in found.workers.values():
            worker.worker.wait_for("Assigned")
        yield found
        assert {role: worker.failures for role, worker in found.workers.items() if worker.failures} == {}


def _supervised(rig: Rig, role: str) -> Supervised:
    return Supervised(Rig(replace(rig.bench, name=role, role=role), rig.tree), f"millrace.workers.{role}")
