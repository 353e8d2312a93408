"""``millrace bench experiments``: events a second of the real experimenter, exactly once, and whether more units make each one dearer.

One partition and one experiment with three metrics (a sum with a covariate, a proportion, a ratio). For each number of units: each unit
is assigned once, and that is folded without being measured, so that the state is as large as the units make it. Then events of random
units (one in ten is an assignment again) are published, the worker is started on that state, and what it has committed is looked at.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.embedded.launch import wrapped
from millrace.infra.kafka.clients import admin, describe, full_name
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.offsets import committed
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings, process_environment
from millrace.schemas.assignment import Assignment
from millrace.schemas.errors import Stop, Unavailable
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis, Plan, State, Variant
from millrace.schemas.metric import Metric, Role, Source
from millrace.schemas.moments import PartitionMoments
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, MOMENTS, OUTCOMES_BY_UNIT, READERS, TOPICS, Topic, changelog
from millrace.schemas.wire import codec, derived_id
from millrace.streams.buckets import bucket
from millrace.workers.bench.place import broker, ended
from millrace.workers.bench.place import send as send_all
from millrace.workers.experimenter import ROLE

TARGET_EVENTS = 20_000
TARGET_RATIO = 1.5
TARGET_BYTES = 2 << 30
FEWEST, MOST = 10_000, 1_000_000
WARM_SHARE = 0.1
PATIENCE_SECONDS = 900.0
LOOK_SECONDS = 0.1
EXPERIMENT = "bench"
WINDOW_SECONDS = 14 * 86_400.0


class Cost(Struct, frozen=True):
    """What events cost with so many units: events a second, microseconds of the process each, its peak memory."""

    units: int
    events_per_second: float
    microseconds: float
    """Of processor time, all threads of the process."""
    peak_bytes: int


class Report(Struct, frozen=True):
    """What ``millrace bench experiments`` found."""

    events: int
    costs: tuple[Cost, ...]
    events_per_second: float
    ratio: float
    """Processor time an event, with the most units, to that with the fewest."""
    peak_bytes: int
    target_events: int
    target_ratio: float
    target_bytes: int
    met: bool


def compare(settings: Settings, units: int, events: int, tell: Callable[[str], None]) -> Report:
    """Measure with few units, with ``units``, and with very many."""
    costs = []
    with broker(settings) as placed:
        for number in sorted({min(FEWEST, units), units, max(MOST, units)} if units >= FEWEST else {units}):
            costs.append(measure(placed, number, events, tell))
            tell(f"{number:,} units: {costs[-1].events_per_second:,.0f} events/s, {costs[-1].microseconds:.1f} us of CPU an event")
    rate = next(cost.events_per_second for cost in costs if cost.units == units)
    ratio, peak = costs[-1].microseconds / costs[0].microseconds, max(cost.peak_bytes for cost in costs)
    met = rate >= TARGET_EVENTS and ratio <= TARGET_RATIO and peak <= TARGET_BYTES
    return Report(events, tuple(costs), rate, round(ratio, 3), peak, TARGET_EVENTS, TARGET_RATIO, TARGET_BYTES, met)


def measure(settings: Settings, units: int, events: int, tell: Callable[[str], None]) -> Cost:
    """Assign all units, then measure events of theirs."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as data, topics(settings, data) as fresh:
        tell(f"{units:,} units: publishing and folding their assignments")
        send(fresh, assigned(range(units)))
        with worker(fresh) as child:
            watch(fresh, units, child)
        tell(f"{units:,} units: publishing and folding {events:,} events")
        send(fresh, happened(units, events))
        with worker(fresh) as child:
            seen = watch(fresh, units + events, child)
            peak = peak_bytes(child.pid)
            check(fresh, units, events)
    first = next(at for at, (_, _, done) in enumerate(seen) if done - units >= events * WARM_SHARE)
    (began, cpu, done), (end, cpu_end, done_end) = seen[min(first, len(seen) - 2)], seen[-1]
    return Cost(
        units=units,
        events_per_second=round((done_end - done) / max(1e-3, end - began)),
        microseconds=round((cpu_end - cpu) / max(1, done_end - done) * 1e6, 2),
        peak_bytes=peak,
    )


@contextlib.contextmanager
def topics(settings: Settings, data: str) -> Iterator[Settings]:
    """Fresh topics of one partition with the plan on them, deleted afterwards."""
    fresh = replace(
        settings,
        topic_prefix=f"{settings.topic_prefix}bench-{uuid.uuid4().hex[:8]}-",
        kafka=replace(settings.kafka, partitions=1),
        stack=replace(settings.stack, data=data),
    )
    provision(fresh, Wanted(topics=TOPICS, readers={ROLE: READERS[ROLE]}, changelogs=(changelog(ROLE),)))
    client = admin(fresh)  # kept until the topics are deleted: a client that is let go of takes its calls with it
    try:
        Control[Plan](fresh, EXPERIMENTS).append(EXPERIMENT, lambda version: plan(version))
        yield fresh
    finally:
        names = [*(full_name(fresh, topic) for topic in TOPICS), full_name(fresh, changelog(ROLE))]
        for future in client.delete_topics(names).values():
            future.exception(30)


def plan(version: int) -> Plan:
    """Two variants and three metrics."""
    return Plan(
        name=EXPERIMENT,
        version=version,
        state=State.RUNNING,
        time=datetime.now(UTC) - timedelta(days=30),
        salt=EXPERIMENT,
        variants=(Variant(name="control"), Variant(name="treatment")),
        metrics=(
            Metric(name="revenue", outcome="revenue", role=Role.PRIMARY, window_seconds=WINDOW_SECONDS, covariate_days=7, cap=1_000.0),
            Metric(name="bought", outcome="revenue", kind=Kind.PROPORTION, window_seconds=WINDOW_SECONDS),
            Metric(
                name="revenue-per-visit",
                outcome="revenue",
                kind=Kind.RATIO,
                denominator=Source(outcome="visit"),
                window_seconds=WINDOW_SECONDS,
            ),
        ),
        analysis=Analysis(lateness_seconds=3_600.0),
    )


Sent = tuple[Topic, str, bytes]


def assigned(units: Iterable[int]) -> Iterator[Sent]:
    """One assignment for each of these units."""
    encode, now = codec(ASSIGNMENTS).json.encode, datetime.now(UTC)
    for number in units:
        unit = f"unit-{number:07d}"
        place = bucket(f"{EXPERIMENT}:variant:{unit}".encode())
        request = f"request-{number:09d}"
        event = Assignment(
            id=derived_id(request, EXPERIMENT),
            request_id=request,
            unit_id=unit,
            time=now,
            experiment=EXPERIMENT,
            plan_version=1,
            variant="control" if place < 0.5 else "treatment",
            bucket=place,
            propensity=0.5,
        )
        yield ASSIGNMENTS, unit, encode(event)


def happened(units: int, events: int) -> Iterator[Sent]:
    """Events of random units: one in ten is assigned again, the others visit or buy; one in fifty is there twice."""
    chance, encode = random.Random(3), codec(OUTCOMES_BY_UNIT).json.encode
    now = datetime.now(UTC)
    for number in range(events):
        which = chance.randrange(units)
        if number % 10 == 0:
            yield from assigned((which,))
            continue
        unit, metric = f"unit-{which:07d}", "visit" if number % 2 else "revenue"
        event = UnitOutcome(
            id=derived_id(unit, metric, str(number)),
            unit_id=unit,
            metric=metric,
            value=1.0 if number % 2 else round(chance.uniform(0, 50), 2),
            time=now + timedelta(milliseconds=number // 20),
            outcome_id=str(number),
        )
        yield OUTCOMES_BY_UNIT, unit, encode(event)


def send(settings: Settings, values: Iterable[Sent]) -> None:
    """Put these on their topics."""
    names = {topic.name: full_name(settings, topic) for topic in (ASSIGNMENTS, OUTCOMES_BY_UNIT)}
    send_all(settings, ((names[topic.name], key, value) for topic, key, value in values))


@contextlib.contextmanager
def worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The experimenter as a process, ended afterwards."""
    variables = process_environment() | {
        "MILLRACE_KAFKA": settings.kafka.address,
        "MILLRACE_TOPIC_PREFIX": settings.topic_prefix,
        "MILLRACE_DATA": str(settings.stack.folder),
    }
    with tempfile.TemporaryFile() as log:
        command = (sys.executable, "-m", "millrace.workers.experimenter")
        with ended(subprocess.Popen(wrapped(command), stdout=log, stderr=log, env=variables)) as child:
            yield child
            if child.poll() is not None:
                log.seek(0)
                raise Unavailable(f"the experimenter ended by itself: {log.read().decode(errors='replace')[-2_000:]}")


def watch(settings: Settings, records: int, child: subprocess.Popen[bytes]) -> list[tuple[float, float, int]]:
    """Times, the process's CPU seconds and how many records it had committed, until all were."""
    names = [full_name(settings, topic) for topic in READERS[ROLE]]
    infos, deadline = describe(settings, names), time.monotonic() + PATIENCE_SECONDS
    seen: list[tuple[float, float, int]] = []
    while child.poll() is None:
        done = sum(max(0, offset) for offset in committed(settings, ROLE, infos).values())
        seen.append((time.monotonic(), cpu_seconds(child.pid), done))
        if done >= records:
            return seen
        if time.monotonic() > deadline:
            raise Unavailable(f"the experimenter committed {done} of {records} events within {PATIENCE_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
    return seen


def check(settings: Settings, units: int, events: int) -> None:
    """Raise Stop unless all was counted once: a rate of half the work is none. The last word may be a second away from being emitted."""
    deadline, told, outcomes = time.monotonic() + 10, -1, events - len(range(0, events, 10))
    decode = codec(MOMENTS).decode
    while time.monotonic() < deadline:
        told = _counted(decode(record.value, record.headers) for record in read_whole(settings, MOMENTS))
        if told == units + outcomes:
            return
        time.sleep(0.5)
    raise Stop(f"of {units} units and {outcomes} outcomes {told} were counted")


def _counted(sealed: Iterable[PartitionMoments]) -> int:
    """Units and outcomes by the newest record of the arms."""
    newest = {event.experiment: event.arms for event in sealed if not event.metric}
    return sum(arm.exposed + arm.outcomes for arm in newest.get(EXPERIMENT, {}).values())


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
