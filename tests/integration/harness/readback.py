"""Reads back what is there, and works out from the inputs what should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from msgspec import Struct

from millrace.infra.kafka.clients import describe, full_name
from millrace.infra.kafka.offsets import committed
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.infra.state import GroupStore
from millrace.schemas.commit import Commit
from millrace.schemas.dead_letter import DeadLetter
from millrace.schemas.errors import DecodeError
from millrace.schemas.record import Emit, Record
from millrace.schemas.topics import COMMITS, DEAD_LETTERS, Topic, changelog
from millrace.schemas.wire import codec, derived_id
from tests.driver import CODECS, Driver, Log, decoded
from tests.integration.harness.checker import Answer, Evidence
from tests.integration.harness.processes import WorkerProcess
from tests.integration.harness.publish import Publisher, assignment, prediction, request
from tests.integration.harness.rig import Bench, Rig
from tests.stack import wait_until

FAR_MS = 3_600_000
State = dict[tuple[int, bytes], bytes]


class Wanted(Struct):
    """What the inputs bring out: answers and dead letters in the order of their groups, and the state after all of it."""

    answers: list[Answer]
    state: State


def gather(rig: Rig, publisher: Publisher | None = None) -> Evidence:
    """Everything the checker asks for, as a committed reader sees it now."""
    settings, bench = rig.settings, rig.bench
    wanted = recomputed(rig)
    return Evidence(
        expected=wanted.answers,
        actual=outputs(rig) + dead_letters(rig),
        forbidden=frozenset(_brought_out(bench, publisher.aborted if publisher is not None else ())),
        commits=commits(settings),
        positions=positions(rig),
        expected_state=wanted.state,
        actual_state={} if bench.stateless else changelog_state(settings, bench.role),
    )


def settled(rig: Rig, worker: WorkerProcess | None = None, seconds: float = 60.0) -> None:
    """Wait until everything is there that the committed inputs bring out, state included; fail at once where ``worker`` has ended."""
    wanted = recomputed(rig)
    ids = {answer.id for answer in wanted.answers}

    def done() -> bool:
        if worker is not None and not worker.alive:
            raise AssertionError("the worker ended before it had answered everything")
        there = {answer.id for answer in outputs(rig) + dead_letters(rig)}
        return ids <= there and (rig.bench.stateless or changelog_state(rig.settings, rig.bench.role) == wanted.state)

    wait_until(done, seconds, f"{len(ids)} answers and their state")


def recomputed(rig: Rig, far_ms: int = FAR_MS) -> Wanted:
    """What a fresh step makes of the committed inputs, with time run on by ``far_ms``."""
    log, letters = inputs(rig)
    log.now_ms = log.last_ms + far_ms
    driver = Driver(log, rig.bench.make(), rig.bench.inputs, rig.bench.stateless)
    for topic in rig.bench.controls:
        for record in in_order(rig.settings, topic):
            with suppress(DecodeError):
                driver.step.observe(decoded(record))
    driver.drain()
    driver.poll()
    ids = _topic_ids(rig)
    for _, facts in sorted(driver.emitted.items()):
        letters += [fact.record for fact in facts if not isinstance(fact, Emit)]
    answers = [answer_of(fact) for _, facts in sorted(driver.emitted.items()) for fact in facts if isinstance(fact, Emit)]
    answers += [_letter(record, ids) for record in sorted(letters, key=lambda record: record.spot)]
    return Wanted(answers, {(number, key): value for number, store in driver.stores.items() for key, value in store.image().items()})


def inputs(rig: Rig) -> tuple[Log, list[Record]]:
    """The committed inputs as an in-memory log, and those that cannot be decoded."""
    log, bad = Log(rig.settings.kafka.partitions), []
    for topic in rig.bench.inputs:
        for record in in_order(rig.settings, topic):
            try:
                decoded(record)
            except DecodeError:
                bad.append(record)
            else:
                log.load([record])
    return log, bad


def outputs(rig: Rig) -> list[Answer]:
    """The answers that a committed reader sees, in the order of partitions and offsets."""
    topic = rig.bench.output
    return [_answer(CODECS[topic.name].decode(record.value, record.headers), record) for record in in_order(rig.settings, topic)]


def letters(settings: Settings) -> list[DeadLetter]:
    """The dead letters, in the order of partitions and offsets."""
    return [codec(DEAD_LETTERS).decode(record.value, record.headers) for record in in_order(settings, DEAD_LETTERS)]


def dead_letters(rig: Rig) -> list[Answer]:
    """The dead letters as answers; their time is the clock's and not compared."""
    return [Answer(letter.id, f"{letter.topic}/{letter.partition}", b"") for letter in letters(rig.settings)]


def commits(settings: Settings) -> list[Commit]:
    """The transactions, as they are told on ``commits``."""
    return [codec(COMMITS).decode(record.value, record.headers) for record in in_order(settings, COMMITS)]


def in_order(settings: Settings, topic: Topic | str) -> list[Record]:
    """The committed records of a topic by partition and offset."""
    return sorted(read_whole(settings, topic), key=lambda record: (record.partition, record.offset))


def positions(rig: Rig) -> dict[tuple[str, int], int]:
    """The group's committed offsets, by unprefixed topic."""
    settings = rig.settings
    infos = describe(settings, [full_name(settings, topic) for topic in rig.bench.inputs])
    found = committed(settings, rig.bench.role, infos)
    return {(name.removeprefix(settings.topic_prefix), number): offset for (name, number), offset in found.items()}


def changelog_state(settings: Settings, role: str) -> State:
    """The newest value of each key in a changelog."""
    state: State = {}
    for record in in_order(settings, changelog(role)):
        key = (record.partition, record.key or b"")
        if record.value is None:
            state.pop(key, None)
        else:
            state[key] = record.value
    return state


def local_state(rig: Rig) -> State:
    """What stands in the local stores of a slot whose process has ended."""
    state: State = {}
    for folder in sorted((rig.settings.stack.folder / "state" / f"{rig.bench.role}-{rig.settings.ordinal}").iterdir()):
        store = GroupStore(folder)
        state.update({(int(folder.name), key): value for key, value in store.scan(b"", b"\xff" * 64)})
        store.close()
    return state


def answer_of(fact: Emit) -> Answer:
    """An emitted fact as an answer."""
    value = CODECS[fact.topic].encode(fact.event)
    return Answer(fact.event.id, fact.key, value, fact.cause.spot if fact.cause is not None else None, _count(fact.event))


def _answer(event: object, record: Record) -> Answer:
    return Answer(getattr(event, "id"), (record.key or b"").decode(), record.value or b"", None, _count(event))  # noqa: B009


def _letter(record: Record, topic_ids: dict[str, str]) -> Answer:
    name = derived_id(topic_ids[record.topic], str(record.partition), str(record.offset))
    return Answer(name, f"{record.topic}/{record.partition}", b"", record.spot)


def _topic_ids(rig: Rig) -> dict[str, str]:
    infos = describe(rig.settings, [full_name(rig.settings, topic) for topic in rig.bench.inputs])
    return {name.removeprefix(rig.settings.topic_prefix): info.topic_id for name, info in infos.items()}


def _count(event: object) -> int | None:
    return int(getattr(event, "value")) if getattr(event, "metric", "") == "match" else None  # noqa: B009


def _brought_out(bench: Bench, numbers: Iterable[int]) -> Iterator[str]:
    """The ids of all answers that these numbers alone would bring out."""
    log = Log(1)
    for number in numbers:
        unit = "u"
        if bench.stateless:
            log.append("requests", unit, request(number, unit))
        else:
            log.append("assignments", unit, assignment(number, unit))
            log.append("predictions", unit, prediction(number, unit))
    driver = Driver(log, bench.make(), bench.inputs, bench.stateless)
    driver.drain()
    for fact in driver.emitted[-1 if bench.stateless else 0]:
        if isinstance(fact, Emit):
            yield fact.event.id
