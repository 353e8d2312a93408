"""``millrace bench guardrail``: how many records, and how many seconds, from planted harm to the experiment's stop.

The real experimenter and judge on one partition. Units are assigned and fail as often in both arms, until a result is there; then the
treatment begins to fail more often, at a steady rate of units, and the plan's version that stops it is waited for. Statistics need most of
the records: those up to the decisive one, as of which the judge's own test first says that there is harm. What comes after is the stream's:
from that record's append to that of the stop.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.embedded.launch import wrapped
from millrace.infra.kafka.clients import admin, full_name, producer
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.follow import Follower
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings, process_environment
from millrace.schemas.assignment import Assignment
from millrace.schemas.errors import Stop, Unavailable
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis, Plan, State, Variant
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.record import Record
from millrace.schemas.result import Harm, Result
from millrace.schemas.signal import SignalKind
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, OUTCOMES_BY_UNIT, READERS, RESULTS, SIGNALS, TOPICS, Topic, changelog
from millrace.schemas.wire import codec, derived_id
from millrace.streams.buckets import bucket
from millrace.workers.bench.decisive import decisive
from millrace.workers.bench.place import broker, ended
from millrace.workers.results import look_up

ROLES = ("experimenter", "judge")
NAME = "bench"
HEALTHY_UNITS = 2_000
HARMS = (0.05, 0.10, 0.20, 0.50)
SLICE_SECONDS = 0.02
PATIENCE_SECONDS = 180.0
CODECS = {topic.name: codec(topic) for topic in (ASSIGNMENTS, OUTCOMES_BY_UNIT, RESULTS, SIGNALS)}


class Harmful(Struct, frozen=True):
    """What is planted: how often units fail, before and then in the treatment, and how many come in a second."""

    failing: float
    harm: float
    units_per_second: float


class Stopped(Struct, frozen=True, kw_only=True):
    """What became of one harm. Records are assignments and outcomes; each time is from append to append."""

    harm: float
    records_needed: int
    """From the first harmful one to the decisive one."""
    records: int
    """From the first harmful one to the stop's append."""
    seconds: float
    """From the first harmful record to the stop."""
    seconds_needed: float
    """From the first harmful record to the decisive one."""
    seconds_added: float
    """From the decisive record to the stop: what the stream takes."""
    signal_seconds: float
    """From the first harmful record to the signal."""
    p_value: float
    """Of the look that stopped it."""


class Report(Struct, frozen=True):
    """What ``millrace bench guardrail`` found."""

    failing: float
    units_per_second: float
    stopped: tuple[Stopped, ...]


class Traffic:
    """Units one after another: each is assigned, and some fail."""

    def __init__(self, settings: Settings, planted: Harmful) -> None:
        self._client, self._planted, self._chance = producer(settings), planted, random.Random(5)
        self._names = {topic.name: full_name(settings, topic) for topic in (ASSIGNMENTS, OUTCOMES_BY_UNIT)}
        self._units = 0
        self.records = 0

    def send(self, units: int, *, harmful: bool) -> None:
        """The next units."""
        for _ in range(units):
            unit, now = f"unit-{self._units:07d}", datetime.now(UTC)
            self._units += 1
            place = bucket(f"{NAME}:variant:{unit}".encode())
            treated = place >= 0.5
            self._produce(ASSIGNMENTS.name, unit, _assignment(unit, place, now))
            if self._chance.random() < (self._planted.harm if harmful and treated else self._planted.failing):
                failed = UnitOutcome(id=derived_id(unit), unit_id=unit, metric="failed", value=1.0, time=datetime.now(UTC), outcome_id=unit)
                self._produce(OUTCOMES_BY_UNIT.name, unit, failed)
        if left := self._client.flush(30):
            raise Unavailable(f"Kafka did not take {left} records within 30 s")

    def _produce(self, topic: str, key: str, event: Any) -> None:
        self._client.produce(self._names[topic], CODECS[topic].encode(event), key)
        self.records += 1


def compare(settings: Settings, failing: float, harms: Sequence[float], rate: float, tell: Callable[[str], None]) -> Report:
    """Plant one harm after the other, each in an experiment of its own."""
    with broker(settings) as placed:
        return Report(failing, rate, tuple(measure(placed, Harmful(failing, harm, rate), tell) for harm in harms))


def measure(placed: Settings, planted: Harmful, tell: Callable[[str], None]) -> Stopped:
    """Plant harm, and wait for the stop. Raises Unavailable where it does not come within three minutes."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as data, _topics(placed, data) as fresh:
        with _worker("experimenter", fresh) as experimenter, _worker("judge", fresh) as judge:
            traffic = Traffic(fresh, planted)
            tell(f"{HEALTHY_UNITS:,} healthy units, until they are judged")
            traffic.send(HEALTHY_UNITS, harmful=False)
            _until(lambda: _judged(fresh), (experimenter, judge), "the healthy units were not judged")
            before = traffic.records
            tell(f"harm: {planted.failing:.1%} fail, {planted.harm:.1%} of the treatment's, at {planted.units_per_second:g} units/s")
            stop = _stopped(fresh, traffic, planted.units_per_second, (experimenter, judge))
        return _report(fresh, planted, before, stop)


def _stopped(settings: Settings, traffic: Traffic, rate: float, children: tuple[subprocess.Popen[bytes], ...]) -> Record:
    """Send harmful units at a rate until the stop is there."""
    follower = Follower(settings, [EXPERIMENTS])
    try:
        records = follower.start()
        began, sent = time.monotonic(), 0
        while len(records) < 2:
            due = int((time.monotonic() - began) * rate) + 1
            traffic.send(due - sent, harmful=True)
            sent = due
            records += follower.read(SLICE_SECONDS)
            _check(children, began, "harm was not found: is there enough of it?")
        return records[1]
    finally:
        follower.close()


def _report(settings: Settings, planted: Harmful, before: int, stop: Record) -> Stopped:
    records = _in_order(settings)
    place = decisive(_plan(1), [record.event for record in records], before)
    if place is None:
        raise Stop("the experiment was stopped, but its records show no harm: please report it")
    first_ms, last_ms, signal_ms = records[before].appended_ms, records[place].appended_ms, _signalled(settings).appended_ms
    deciding = next(harm for result in _events(settings, RESULTS) if (harm := _breach(result)) is not None)
    return Stopped(
        harm=planted.harm,
        records_needed=place + 1 - before,
        records=sum(record.appended_ms <= stop.appended_ms for record in records[before:]),
        seconds=(stop.appended_ms - first_ms) / 1_000,
        seconds_needed=(last_ms - first_ms) / 1_000,
        seconds_added=(stop.appended_ms - last_ms) / 1_000,
        signal_seconds=(signal_ms - first_ms) / 1_000,
        p_value=deciding.p_value,
    )


def _in_order(settings: Settings) -> list[Record]:
    """Assignments and outcomes as they came, decoded."""
    records = [record for topic in READERS["experimenter"] for record in read_whole(settings, topic)]
    for record in records:
        record.event = CODECS[record.topic].decode(record.value, record.headers)
    return sorted(records, key=attrgetter("appended_ms", "topic", "offset"))


def _signalled(settings: Settings) -> Record:
    """The signal of the breach, which is in the transaction of its result."""
    decode = CODECS[SIGNALS.name].decode
    return next(one for one in read_whole(settings, SIGNALS) if decode(one.value, one.headers).kind is SignalKind.GUARDRAIL)


def _breach(result: Result) -> Harm | None:
    harms = [one.harm for metric in result.metrics for one in metric.comparisons]
    return next((harm for harm in harms if isinstance(harm, Harm) and harm.breached), None)


def _events(settings: Settings, topic: Topic) -> Iterator[Any]:
    decode = CODECS[topic.name].decode
    return (decode(record.value, record.headers) for record in read_whole(settings, topic))


def _judged(settings: Settings) -> bool:
    found = look_up(settings, NAME)
    return found is not None and found.units == HEALTHY_UNITS


def _until(done: Callable[[], bool], children: tuple[subprocess.Popen[bytes], ...], otherwise: str) -> None:
    began = time.monotonic()
    while not done():
        _check(children, began, otherwise)
        time.sleep(0.2)


def _check(children: tuple[subprocess.Popen[bytes], ...], began: float, otherwise: str) -> None:
    if any(child.poll() is not None for child in children):
        raise Unavailable("a worker ended by itself")
    if time.monotonic() - began > PATIENCE_SECONDS:
        raise Unavailable(f"{otherwise} within {PATIENCE_SECONDS:g} s")


@contextlib.contextmanager
def _topics(settings: Settings, data: str) -> Iterator[Settings]:
    """Fresh topics of one partition with the plan on them, deleted afterwards."""
    prefix = f"{settings.topic_prefix}bench-{uuid.uuid4().hex[:8]}-"
    fresh = replace(settings, topic_prefix=prefix, kafka=replace(settings.kafka, partitions=1), stack=replace(settings.stack, data=data))
    logs = tuple(map(changelog, ROLES))
    provision(fresh, Wanted(topics=TOPICS, readers={role: READERS[role] for role in ROLES}, changelogs=logs))
    client = admin(fresh)  # kept until the topics are deleted: a client that is let go of takes its calls with it
    try:
        Control[Plan](fresh, EXPERIMENTS).append(NAME, _plan)
        yield fresh
    finally:
        for future in client.delete_topics([*(full_name(fresh, topic) for topic in TOPICS), *(prefix + log for log in logs)]).values():
            future.exception(30)


def _plan(version: int) -> Plan:
    now = datetime.now(UTC)
    decides = Metric(name="failing", outcome="failed", kind=Kind.PROPORTION, role=Role.PRIMARY, direction=Direction.DECREASE)
    guard = replace(decides, name="failures", role=Role.GUARDRAIL)
    return Plan(
        name=NAME,
        version=version,
        state=State.RUNNING,
        time=now,
        created=now,
        started=now,
        salt=NAME,
        variants=(Variant(name="control"), Variant(name="treatment")),
        metrics=(guard, decides),
        analysis=Analysis(difference="absolute", stop_on_harm=True),
    )


def _assignment(unit: str, place: float, now: datetime) -> Assignment:
    return Assignment(
        id=derived_id(unit, NAME),
        request_id=unit,
        unit_id=unit,
        time=now,
        experiment=NAME,
        plan_version=1,
        variant="treatment" if place >= 0.5 else "control",
        bucket=place,
        propensity=0.5,
    )


@contextlib.contextmanager
def _worker(role: str, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as a process, ended afterwards."""
    variables = process_environment() | {
        "MILLRACE_KAFKA": settings.kafka.address,
        "MILLRACE_TOPIC_PREFIX": settings.topic_prefix,
        "MILLRACE_DATA": str(settings.stack.folder),
    }
    with (
        tempfile.TemporaryFile() as log,
        ended(
            subprocess.Popen(wrapped((sys.executable, "-m", f"millrace.workers.{role}")), stdout=log, stderr=log, env=variables)
        ) as child,
    ):
        yield child
        if child.poll() is not None:
            log.seek(0)
            raise Unavailable(f"the {role} ended by itself: {log.read().decode(errors='replace')[-2_000:]}")
