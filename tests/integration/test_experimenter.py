"""The experimenter on a real broker, killed at every named point of a transaction: each unit and each outcome is counted once."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from millrace.infra.kafka.control import Control
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Plan, State, Variant
from millrace.schemas.metric import Metric, Role, Source
from millrace.schemas.moments import from_sums
from millrace.schemas.record import Record
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, MOMENTS, OUTCOMES_BY_UNIT, Topic
from tests.driver import CODECS, START_MS, decoded
from tests.folding import assigned, outcome
from tests.integration.harness import Rig, WorkerProcess
from tests.integration.harness.rig import FOLDING
from tests.integration.test_runner_kill import POINTS
from tests.oracle import truth
from tests.stack import Broker, wait_until

PLAN = Plan(
    name="e",
    version=1,
    state=State.RUNNING,
    time=from_ms(START_MS - 10 * 86_400_000),
    salt="s",
    variants=(Variant(name="a"), Variant(name="b")),
    metrics=(
        Metric(name="mean", outcome="paid", role=Role.PRIMARY, covariate_days=3),
        Metric(name="share", outcome="paid", kind=Kind.PROPORTION),
        Metric(name="ratio", outcome="paid", kind=Kind.RATIO, denominator=Source(outcome="visit")),
    ),
)


class Feed:
    """Publishes assignments and outcomes, some of them twice, late or in a second variant, until the block is left."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._chance, self._stop = settings, random.Random(4), threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.05):
            publish(self._settings, [_outgoing(event) for event in self._events(number, 20)])
            number += 20

    def _events(self, first: int, count: int) -> Iterator[Any]:
        chance = self._chance
        for number in range(first, first + count):
            unit, time_ms = f"u{chance.randrange(200)}", START_MS + number
            if number % 3:
                own = f"o{chance.choice([number, number, number - 1])}"
                late_ms = chance.choice([0, 0, 0, 86_400_000, 3_601_000])
                yield outcome(own, unit, chance.uniform(-5, 50), time_ms - late_ms, chance.choice(["paid", "visit"]))
            else:
                yield assigned("e", unit, START_MS, chance.choice("aaaaaaab"), segments={"c": chance.choice("xy")})


def _outgoing(event: Any) -> Outgoing:
    topic = ASSIGNMENTS if hasattr(event, "experiment") else OUTCOMES_BY_UNIT
    return Outgoing(topic.name, event.unit_id.encode(), CODECS[topic.name].encode(event))


def by_partition(settings: Settings, topic: Topic) -> dict[int, list[Record]]:
    """A topic's committed records, decoded, in the order of each partition."""
    found: dict[int, list[Record]] = {}
    for record in read_whole(settings, topic):
        found.setdefault(record.partition, []).append(decoded(_short(record, topic)))
    return {number: sorted(records, key=lambda record: record.offset) for number, records in found.items()}


def _short(record: Record, topic: Topic) -> Record:
    return Record(topic.name, record.partition, record.offset, record.appended_ms, record.key, record.value, record.headers)


def told(settings: Settings) -> dict[int, Any]:
    """The newest record of each key, by source partition: moments by metric, and the counts of the arms."""
    newest = {record.key: CODECS[MOMENTS.name].decode(record.value, record.headers) for record in read_whole(settings, MOMENTS)}
    found: dict[int, Any] = {}
    for event in newest.values():
        moments, arms = found.setdefault(event.partition, ({}, {}))
        if event.metric:
            sums = {label: tuple(msgspec.structs.astuple(from_sums(sums))) for label, sums in event.moments.items()}
            moments[("e", event.metric)] = sums
        else:
            whole = {variant: msgspec.structs.asdict(arm) for variant, arm in event.arms.items()}
            arms |= {variant: {name: n for name, n in arm.items() if n and name != "segments"} for variant, arm in whole.items()}
    return found


def wanted(settings: Settings) -> dict[int, Any]:
    """The same by the oracle, from all that stands on the topics."""
    assignments, outcomes = by_partition(settings, ASSIGNMENTS), by_partition(settings, OUTCOMES_BY_UNIT)
    truths = {number: truth([PLAN], records, outcomes.get(number, [])) for number, records in assignments.items()}
    return {number: (found.moments, found.arms["e"]) for number, found in truths.items()}


def test_killed_at_each_point_everything_is_counted_once(broker: Broker, tmp_path: Path) -> None:
    rig = Rig.on(broker, tmp_path, FOLDING).provision()
    Control[Plan](rig.settings, EXPERIMENTS).append("e", lambda version: PLAN)
    with Feed(rig.settings):
        for point in POINTS:
            with WorkerProcess(rig, point, 2) as worker:
                assert worker.wait() == -9
    shutil.rmtree(rig.settings.stack.folder / "state")  # what was committed is on the changelog
    right = wanted(rig.settings)
    assert sum(arm["outcomes"] for _, arms in right.values() for arm in arms.values()) > 50
    with WorkerProcess(rig) as worker:
        wait_until(lambda: told(rig.settings) == right, 60, "the oracle's moments")
        worker.drain()
