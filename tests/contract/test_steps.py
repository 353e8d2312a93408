"""The contract of a step (``millrace/streams/step.py``), asked of every step. One that has no line in ``STEPS`` fails a test."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import millrace.streams
from millrace.schemas.errors import NotNow
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Allocation, Analysis, Looks, Policy, Rule, Unit
from millrace.schemas.limits import Limits
from millrace.schemas.metric import Aggregation, Direction, Metric, Role, Source
from millrace.schemas.record import Emit, Format, Record
from millrace.schemas.topics import ASSIGNMENTS, MOMENTS, OUTCOMES, OUTCOMES_BY_UNIT, REQUESTS, Topic
from millrace.streams.experiment.fold import Fold
from millrace.streams.intake import Intake
from millrace.streams.judge.step import Judge
from millrace.streams.merge import Merge
from millrace.streams.predict import Decide, DecideSettings
from millrace.streams.step import Batch, Step
from tests.counting import INPUTS, CountingJoin
from tests.driver import CODECS, Driver, Failing, Log, MemoryStore, as_bytes, replayed
from tests.echo import Echo
from tests.folding import assigned, outcome
from tests.integration.harness.publish import assignment, prediction, request
from tests.judging import PAID, counted, experiment, published, sealed
from tests.models import NOW, MemoryModels, control, least, manifest, plan, route


@dataclass(frozen=True)
class Case:
    """A step, how it is made, and a log of its inputs. ``varying`` fields of its events may depend on how a backlog is cut.

    One that ``refuses`` nothing reads topics that millrace alone writes. One that ``sums`` tells at times what it has come to by then: of
    each key the last word is compared.
    """

    name: str
    make: Callable[[], Step]
    inputs: Sequence[Topic]
    fill: Callable[[Log, random.Random], None]
    stateless: bool = False
    varying: frozenset[str] = frozenset()
    refuses: bool = True
    sums: bool = False

    def log(self, seed: int = 1) -> Log:
        log = Log(partitions=2)
        self.fill(log, random.Random(seed))
        return log


def pairs(log: Log, chance: random.Random) -> None:
    """Assignments and predictions of some units in any order, some never, some too late, some refused."""
    waiting: list[tuple[str, Any, str]] = []
    for number in range(60):
        unit = f"u{chance.randrange(5)}"
        both = [
            ("assignments", assignment(number, unit), unit),
            ("predictions", prediction(number, unit, "refuse" if number % 13 == 0 else ""), unit),
        ]
        waiting += both[: chance.choice([1, 2, 2, 2])]
    chance.shuffle(waiting)
    for topic, event, unit in waiting:
        log.append(topic, unit, event)
        log.advance(chance.choice([0, 0, 1, 5, 40, 300]))


def requests(log: Log, chance: random.Random) -> None:
    """Requests for the echo."""
    for number in range(60):
        words = {"do": "refuse"} if number % 7 == 0 else {}
        log.append(REQUESTS.name, f"u{chance.randrange(5)}", request(number, f"u{number % 5}", **words))


def decisions(log: Log, chance: random.Random) -> None:
    """Requests of every kind that is answered, and some that are refused."""
    for number in range(60):
        value = least(number, features={"a": float(number)} if number % 5 else {"a": "x"})
        log.append_raw(REQUESTS.name, chance.randrange(2), None, msgspec.json.encode(value))


def outcomes(log: Log, chance: random.Random) -> None:
    """Outcomes with and without an id, some of them twice, and some that are refused."""
    for number in range(60):
        value = {"unit_id": f"u{chance.randrange(5)}", "metric": "paid" if number % 9 else "", "value": number}
        if number % 3:
            value |= {"id": f"o{number // 2}", "time": "2023-11-14T22:13:20Z"}
        log.append_raw(OUTCOMES.name, chance.randrange(2), None, msgspec.json.encode(value))
        log.advance(chance.choice([0, 1, 40]))


def sums(log: Log, chance: random.Random) -> None:
    """Sealed sums of four source partitions of four experiments, some of them again; one experiment harms, one learns."""
    for number in range(80):
        name, partition = f"e{number % 4}", chance.randrange(4)
        hits = {"a": counted(1_000 + number, 100), "b": counted(1_000 + number, 100 + 5 * (number % 4) * (number // 8))}
        for event in published(sealed({"paid": hits, "errors": hits}, partition=partition)):
            log.append(MOMENTS.name, name, replace(event, experiment=name))
        log.advance(chance.choice([0, 5, 300, 1_200]))


def judging() -> Judge:
    guard = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.5)
    judge = Judge()
    looks = Looks(units=8_000, fractions=(0.25, 0.5, 1.0))
    rules: dict[int, dict[str, Any]] = {2: {"rule": Rule.MSPRT, "tau": 0.1}, 3: {"rule": Rule.GROUP_SEQUENTIAL, "looks": looks}}
    for number in range(4):
        learning: dict[str, Any] = {"allocation": Allocation(policy=Policy.THOMPSON, metric="paid", every_seconds=3), "unit": Unit.REQUEST}
        analysis = Analysis(minimal_seconds=5, maximal_seconds=20, stop_on_harm=True, **rules.get(number, {}))
        given = experiment(PAID, guard, analysis=analysis, **(learning if number == 1 else {}))
        assert judge.observe(control(replace(given, name=f"e{number}")))
    return judge


def events(log: Log, chance: random.Random) -> None:
    """Assignments of many units to five experiments, and outcomes before and after, some of them twice."""
    for number in range(400):
        unit = f"u{chance.randrange(160)}"
        if number % 3:
            log.append(OUTCOMES_BY_UNIT.name, unit, outcome(f"o{number // 2 * 2}", unit, float(number), log.now_ms))
        else:
            log.append(ASSIGNMENTS.name, unit, assigned(f"e{number % 5}", unit, log.now_ms))
        log.advance(chance.choice([0, 1, 40, 300]))


def folding() -> Fold:
    mean = Metric(name="mean", outcome="paid", role=Role.PRIMARY, covariate_days=2)
    ratio = Metric(name="ratio", outcome="paid", kind=Kind.RATIO, denominator=Source(outcome="paid", aggregation=Aggregation.UNIQUE))
    fold = Fold()
    for number in range(5):
        assert fold.observe(control(replace(experiment(mean, PAID, ratio), name=f"e{number}")))
    return fold


def decide() -> Decide:
    step = Decide(MemoryModels(), DecideSettings(batch_records=3))
    for event in (manifest(defaults={"b": 0.5}), manifest(version=2), route(serves=((1, 3.0), (2, 1.0))), plan("all")):
        step.observe(control(event))
    step.settle()
    return step


TOLD_AT = frozenset({"id", "time", "offsets"})
"""What says when sums were told, and as of which offsets."""
STEPS = [
    Case("counting", lambda: CountingJoin(100), INPUTS, pairs),
    Case("echo", Echo, (REQUESTS,), requests, stateless=True),
    Case("decide", decide, (REQUESTS,), decisions, stateless=True, varying=frozenset({"batch_records"})),
    Case("intake", lambda: Intake(Limits()), (OUTCOMES,), outcomes, stateless=True),
    Case("judge", judging, (MOMENTS,), sums, refuses=False),
    Case("fold", folding, (ASSIGNMENTS, OUTCOMES_BY_UNIT), events, varying=TOLD_AT, refuses=False, sums=True),
]
EACH = pytest.mark.parametrize("case", STEPS, ids=lambda case: case.name)
STATEFUL = pytest.mark.parametrize("case", [case for case in STEPS if not case.stateless], ids=lambda case: case.name)


def compared(case: Case, driver: Driver) -> list[tuple[str, str, Any]]:
    """All that was stated, by group of the key, without the fields that may vary; or the last word of each key."""
    if not case.sums:
        return [(topic, key, stripped(value, case.varying)) for topic, key, value in driver.facts()]
    driver.clock_ms += 10_000
    driver.poll()
    return sorted({(topic, key): (topic, key, stripped(value, case.varying)) for topic, key, value in driver.facts()}.values(), key=repr)


def stripped(value: bytes, varying: frozenset[str]) -> Any:
    if not varying or not value.startswith(b"{"):
        return value
    return {name: field for name, field in msgspec.json.decode(value).items() if name not in varying}


CALLS = ("observe", "process", "tick")


def classes() -> Iterator[type]:
    """All classes that ``streams`` defines."""
    for found in pkgutil.walk_packages(millrace.streams.__path__, "millrace.streams."):
        module = importlib.import_module(found.name)
        yield from (kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__)


def is_step(kind: type) -> bool:
    """Whether it has what the runner calls: the protocol itself is none."""
    return kind is not Step and all(callable(getattr(kind, name, None)) for name in CALLS)


def test_every_step_is_enrolled() -> None:
    steps = {kind for kind in classes() if is_step(kind)}
    assert Decide in steps
    assert steps - {type(case.make()) for case in STEPS} == set()


@EACH
def test_there_is_something_to_compare(case: Case) -> None:
    facts = replayed(case.make, case.log(), case.inputs, stateless=case.stateless).facts()
    assert len(facts) > 30
    topics = {topic for topic, _, _ in facts}
    assert ("refused" in topics) == case.refuses
    assert topics - {"refused"}


@EACH
def test_the_same_calls_give_the_same_events(case: Case) -> None:
    once, again = (replayed(case.make, case.log(), case.inputs, stateless=case.stateless, records=7) for _ in range(2))
    assert once.facts() == again.facts()
    assert {number: store.image() for number, store in once.stores.items()} == {n: store.image() for n, store in again.stores.items()}


@EACH
def test_inputs_are_left_alone(case: Case) -> None:
    log, step = case.log(), case.make()
    for number in range(log.partitions):
        merge = Merge(topic.name for topic in case.inputs)
        for topic in case.inputs:
            merge.push(log.read(topic.name, number))
        given = merge.ready({topic.name for topic in case.inputs})
        before = [(msgspec.structs.astuple(record), encoded(record)) for record in given]
        list(step.process(Batch(number, given, NOW), MemoryStore()))
        assert [(msgspec.structs.astuple(record), encoded(record)) for record in given] == before


def encoded(record: Record) -> bytes:
    return CODECS[record.topic].encode(record.event, Format.JSON)


@EACH
@pytest.mark.parametrize("records", [1, 2, 3, 10])
def test_however_a_backlog_is_cut_the_same_comes_out(case: Case, records: int) -> None:
    """The order within a group is the same; a stateless step's groups are mixed by the poll, so its answers are compared by partition."""
    whole = compared(case, replayed(case.make, case.log(), case.inputs, stateless=case.stateless))
    cut = compared(case, replayed(case.make, case.log(), case.inputs, stateless=case.stateless, records=records))
    if case.stateless:
        whole.sort(key=repr)
        cut.sort(key=repr)
    assert cut == whole


@STATEFUL
def test_live_traffic_gives_what_a_backlog_gives(case: Case) -> None:
    """Polled after each record, with time told in between, or all at once."""
    source = case.log()
    records = sorted(
        (record for topic in case.inputs for number in range(source.partitions) for record in source.read(topic.name, number)),
        key=lambda record: (record.appended_ms, [topic.name for topic in case.inputs].index(record.topic), record.partition, record.offset),
    )
    log = Log(source.partitions)
    live = Driver(log, case.make(), case.inputs)
    for record in records:
        log.now_ms = record.appended_ms
        live.poll()
        log.load([record])
    log.now_ms = source.now_ms
    live.drain()
    live.poll()
    backlog = replayed(case.make, source, case.inputs, stateless=False)
    assert compared(case, live) == compared(case, backlog)


@STATEFUL
def test_snapshot_and_restore_change_nothing(case: Case) -> None:
    whole = replayed(case.make, case.log(), case.inputs, stateless=False, records=3)
    restarted = Driver(case.log(), case.make(), case.inputs)
    while restarted.poll(3):
        restarted.restart(case.make())
    assert compared(case, restarted) == compared(case, whole)


@STATEFUL
def test_a_call_that_fails_half_way_leaves_nothing_and_can_be_made_again(case: Case) -> None:
    """All memory is in the store: whichever write fails, once it is undone the same call gives the same again."""
    log, step = case.log(), case.make()
    merge = Merge(topic.name for topic in case.inputs)
    for topic in case.inputs:
        merge.push(log.read(topic.name, 0))
    batch = Batch(0, merge.ready({topic.name for topic in case.inputs}), NOW)
    store = MemoryStore()
    wanted, image = called(case.make(), batch, MemoryStore(), log.now_ms)
    for writes in range(0, 60, 7):
        with pytest.raises(NotNow):
            called(step, batch, Failing(store, writes), log.now_ms)
        store.discard()
        assert store.image() == {}
    assert called(step, batch, store, log.now_ms) == (wanted, image)


def called(step: Step, batch: Batch, store: Any, watermark_ms: int) -> tuple[list[tuple[str, str, bytes]], dict[bytes, bytes | None]]:
    facts = [*step.process(batch, store), *step.tick(watermark_ms, NOW, store)]
    return [as_bytes(fact) for fact in facts], dict(store.pending)


def test_steps_on_one_log_are_a_topology() -> None:
    """What the echo answers is matched by the join, each on its own clock."""
    log = Log(partitions=2)
    echo = Driver(log, Echo(), (REQUESTS,), stateless=True, sink=log)
    join = Driver(log, CountingJoin(100), INPUTS, sink=log)
    for number in range(10):
        log.append(REQUESTS.name, f"u{number % 3}", request(number, f"u{number % 3}"))
        log.append("assignments", f"u{number % 3}", assignment(number, f"u{number % 3}"))
    log.advance(50)
    echo.drain()
    join.drain()
    assert [outcome.metric for outcome in log.events("outcomes")] == ["match"] * 10
    log.append("assignments", "u1", assignment(99, "u1"))
    join.drain()
    log.advance(101)
    join.poll()
    assert [outcome.metric for outcome in log.events("outcomes")].count("timeout") == 1
    assert all(isinstance(fact, Emit) for facts in join.emitted.values() for fact in facts)
