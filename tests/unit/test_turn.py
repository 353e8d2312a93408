"""What one turn makes of a poll: verdicts of the dead-letter cap, holds, and all of a call or nothing of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pytest

from millrace.infra.kafka.clients import Slot
from millrace.infra.kafka.positions import Metadata, Position
from millrace.infra.settings import convert
from millrace.schemas.dead_letter import DeadLetter
from millrace.schemas.errors import NotNow, Stop
from millrace.schemas.record import Emit, Record, Refused
from millrace.schemas.request import Request
from millrace.schemas.topics import ASSIGNMENTS, PREDICTIONS, REQUESTS, Topic
from millrace.schemas.wire import codec
from millrace.streams.merge import Merge
from millrace.streams.step import Batch, Facts, Step, Store
from millrace.workers.groups import Group, Why
from millrace.workers.turn import Processor, Turn
from tests.counting import CountingJoin
from tests.driver import MemoryStore
from tests.echo import Echo
from tests.integration.harness.publish import assignment, prediction

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Controls:
    """Allowances by hand."""

    def __init__(self) -> None:
        self.through: dict[tuple[str, int], int] = {}
        self.versions: dict[str, int] = {}
        self.lacking: dict[str, str] = {}

    def allowed(self, topic: str, partition: int) -> int:
        return self.through.get((topic, partition), -1)


def processor(step: Step, inputs: tuple[Topic, ...], controls: Controls, run: int = 3) -> Processor:
    settings = convert({"runner": {"dead_letter_run": run, "dead_letter_ratio": 1.0}})
    return Processor("inference", Slot("inference", 0), step, inputs, settings, controls)


def group(number: int, topics: Iterable[Topic], store: MemoryStore | None = None) -> Group:
    made = Group(number)
    made.positions = {(topic.name, number): Position(0, Metadata("id")) for topic in topics}
    if store is not None:
        made.store = store  # type: ignore[assignment]  # the in-memory twin
        made.merge = Merge(topic.name for topic in topics)
    return made


def requests(words: str, partition: int = 0, start: int = 0) -> list[Record]:
    """One request a letter: ``.`` is good, ``x`` is refused by the step, ``!`` cannot be decoded."""
    encode = codec(REQUESTS).encode
    records = []
    for offset, word in enumerate(words, start):
        context = {"do": "refuse"} if word == "x" else {}
        value = b"{" if word == "!" else encode(Request(id=f"r{partition}-{offset}", unit_id="u", context=context))
        records.append(Record(REQUESTS.name, partition, offset, 1_000 + offset, b"u", value))
    return records


def whole(step: Processor, records: list[Record], groups: dict[int, Group]) -> Turn:
    return step.whole(records, step.decode(records), groups, NOW)


def held(turn: Turn) -> set[int]:
    return {group.number for group, _ in turn.holds}


def letters(turn: Turn) -> list[int]:
    return [emit.event.offset for emit in turn.emits if isinstance(emit.event, DeadLetter)]


def test_dead_letters_and_answers_go_in_the_same_turn() -> None:
    groups = {0: group(0, [REQUESTS])}
    turn = whole(processor(Echo(), (REQUESTS,), Controls()), requests(".x!."), groups)
    assert letters(turn) == [1, 2]
    assert [emit.event.request_id for emit in turn.emits if not isinstance(emit.event, DeadLetter)] == ["r0-0", "r0-3"]
    assert groups[0].offsets() == {("requests", 0): 4}
    assert groups[0].cap(("requests", 0)).run == 0
    assert not turn.holds


def test_how_partitions_came_mixed_changes_nothing() -> None:
    """A replay knows the ranges, not the order in which the consumer gave them."""
    turns = []
    for records in (
        requests(".x.!") + requests("..", 1),
        [*requests(".", 1), *requests(".x"), *requests(".", 1, 1), *requests(".!", 0, 2)],
    ):
        step, groups = processor(Echo(), (REQUESTS,), Controls()), {0: group(0, [REQUESTS]), 1: group(1, [REQUESTS])}
        turns.append((step, whole(step, records, groups)))
    (one, first), (other, second) = turns
    assert [emit.event for emit in first.emits] == [emit.event for emit in second.emits]
    assert len(first.emits) == 6
    assert one.commit_record(first).event == other.commit_record(second).event


def test_the_cap_holds_before_the_dead_letter_that_is_one_too_many() -> None:
    groups = {0: group(0, [REQUESTS])}
    turn = whole(processor(Echo(), (REQUESTS,), Controls()), requests("..xxxxx"), groups)
    assert letters(turn) == [2, 3, 4]
    assert groups[0].offsets() == {("requests", 0): 5}
    assert groups[0].cap(("requests", 0)).run == 3
    assert held(turn) == {0}


def test_the_cap_of_a_partition_whose_records_come_in_several_runs() -> None:
    """A poll mixes partitions: what stands before the cap in an earlier run is done, not forgotten."""
    groups = {0: group(0, [REQUESTS]), 1: group(1, [REQUESTS])}
    records = requests("..xxx") + requests("..", 1) + requests("xx.", 0, start=5) + requests(".", 1, start=2)
    turn = whole(processor(Echo(), (REQUESTS,), Controls()), records, groups)
    assert letters(turn) == [2, 3, 4]
    assert groups[0].offsets() == {("requests", 0): 5}
    assert groups[1].offsets() == {("requests", 1): 3}
    assert held(turn) == {0}


def test_an_allowance_lets_pass_through_its_offset_and_clears_the_count() -> None:
    groups, controls = {0: group(0, [REQUESTS])}, Controls()
    controls.through[("requests", 0)] = 4
    turn = whole(processor(Echo(), (REQUESTS,), controls), requests("xxxxxxxxx"), groups)
    assert letters(turn) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert groups[0].offsets() == {("requests", 0): 8}


def test_not_now_holds_every_partition_of_the_poll_and_does_nothing() -> None:
    groups = {0: group(0, [REQUESTS]), 1: group(1, [REQUESTS]), 2: group(2, [REQUESTS])}
    needing = codec(REQUESTS).encode(Request(id="r", unit_id="u", context={"needs": "e"}))
    records = [*requests("."), Record(REQUESTS.name, 1, 0, 1, b"u", needing)]
    turn = whole(processor(Echo(), (REQUESTS,), Controls()), records, groups)
    assert held(turn) == {0, 1}
    assert (turn.emits, turn.touched, turn.ranges) == ([], [], [])
    assert groups[0].offsets() == {("requests", 0): 0}


def test_what_cannot_be_decoded_on_a_topic_of_our_own_stops() -> None:
    step = processor(CountingJoin(), (ASSIGNMENTS, PREDICTIONS), Controls())
    with pytest.raises(Stop, match=r"predictions/0@0 cannot be decoded, and its topic is written by millrace alone"):
        step.decode([Record(PREDICTIONS.name, 0, 0, 1, b"u", b"{")])


def joined(*records: tuple[str, int, int, str]) -> list[Record]:
    """(topic, offset, append time, error) of one partition, all of request and unit of the same number."""
    made = []
    for topic, offset, appended_ms, error in records:
        event = assignment(offset, "u") if topic == "assignments" else prediction(offset, "u", error)
        made.append(
            Record(topic, 0, offset, appended_ms, b"u", codec(ASSIGNMENTS if topic == "assignments" else PREDICTIONS).encode(event))
        )
    return made


class Ticked(CountingJoin):
    """Keeps the watermarks that it was given, and may refuse to tick for now."""

    def __init__(self, patience: int = 1_000) -> None:
        super().__init__(50)
        self.watermarks: list[int] = []
        self.patience = patience

    def tick(self, watermark_ms: int, now: object, store: Store) -> Facts:
        self.watermarks.append(watermark_ms)
        if len(self.watermarks) > self.patience:
            raise NotNow("no tick now")
        return super().tick(watermark_ms, now, store)


def grouped(step: Processor, one: Group, records: list[Record], quiet: Iterable[str] = (), quiet_ms: int = 0) -> Turn:
    turn = Turn(NOW)
    bad = step.decode(records)
    assert one.merge is not None
    one.merge.push(records)
    step.group(one, one.ready(quiet), bad, turn, quiet=quiet, quiet_ms=quiet_ms)
    return turn


def test_a_join_held_at_its_cap_gets_no_tick_past_what_comes_again() -> None:
    """The records behind the cap were taken out of the merge and will come again: time may not pass them."""
    store, verb = MemoryStore(), Ticked()
    one, step = group(0, (ASSIGNMENTS, PREDICTIONS), store), processor(verb, (ASSIGNMENTS, PREDICTIONS), Controls(), run=1)
    assigned = joined(("assignments", 0, 100, ""), ("assignments", 1, 400, ""))
    records = assigned + joined(("predictions", 0, 110, "refuse"), ("predictions", 1, 300, "refuse"))
    turn = grouped(step, one, records, {"assignments", "predictions"}, 10_000)
    assert held(turn) == {0}
    assert one.offsets() == {("assignments", 0): 1, ("predictions", 0): 1}
    assert letters(turn) == [0]
    assert all(mark <= 300 for mark in verb.watermarks)
    assert all(mark <= 300 for mark in turn.watermarks.values())


def test_a_tick_that_cannot_now_undoes_its_group_and_nothing_stays() -> None:
    store, verb = MemoryStore(), Ticked(patience=0)
    one, step = group(0, (ASSIGNMENTS, PREDICTIONS), store), processor(verb, (ASSIGNMENTS, PREDICTIONS), Controls())
    turn = grouped(step, one, joined(("assignments", 0, 100, ""), ("predictions", 0, 110, "")), {"assignments", "predictions"}, 5_000)
    assert held(turn) == {0}
    assert [hold.why for _, hold in turn.holds] == [Why.NOT_NOW]
    assert (turn.emits, turn.touched, turn.ranges, turn.records, turn.watermarks) == ([], [], [], 0, {})
    assert store.pending == {}
    assert one.offsets() == {("assignments", 0): 0, ("predictions", 0): 0}


def test_a_group_whose_time_alone_wrote_is_touched_and_carries_its_watermark() -> None:
    store, verb = MemoryStore(), Ticked()
    one, step = group(0, (ASSIGNMENTS, PREDICTIONS), store), processor(verb, (ASSIGNMENTS, PREDICTIONS), Controls())
    grouped(step, one, joined(("assignments", 0, 100, "")), {"predictions"}, 120)
    store.commit()
    quiet = {"assignments", "predictions"}
    turn = grouped(step, one, [], quiet, 200)
    assert [emit.event.metric for emit in turn.emits] == ["timeout"]
    assert (turn.touched, turn.watermarks, turn.ranges) == ([one], {0: 200}, [])
    store.commit()
    idle = grouped(step, one, [], quiet, 900)
    assert (idle.touched, idle.watermarks) == ([], {})


class Wandering:
    """Refuses a record from its tick, where there is none."""

    def observe(self, record: Record) -> bool:
        return False

    def settle(self) -> dict[str, str]:
        return {}

    def process(self, batch: Batch, store: Store) -> Facts:
        return ()

    def tick(self, watermark_ms: int, now: datetime, store: Store) -> Iterator[Emit | Refused]:
        yield Refused(Record("assignments", 0, 0, 0, None, None), "no")


def test_a_tick_has_nothing_to_refuse() -> None:
    step = processor(Wandering(), (ASSIGNMENTS, PREDICTIONS), Controls())
    with pytest.raises(Stop, match="refused a record from its tick"):
        grouped(step, group(0, (ASSIGNMENTS, PREDICTIONS), MemoryStore()), [], {"assignments", "predictions"}, 1)


class Waiting:
    """Answers requests as ``Echo`` does, but for those of these offsets, by partition: they wait."""

    def __init__(self, offsets: dict[int, int]) -> None:
        self.offsets = offsets
        self._echo = Echo()

    def observe(self, record: Record) -> bool:
        return False

    def settle(self) -> dict[str, str]:
        return {}

    def process(self, batch: Batch, store: Store) -> Facts:
        for record in batch.records:
            if record.offset == self.offsets.get(record.partition):
                raise NotNow("not yet", 1.0, {(record.topic, record.partition): record.offset})
        return self._echo.process(batch, store)

    def tick(self, watermark_ms: int, now: datetime, store: Store) -> Facts:
        return ()


def test_what_waits_in_one_partition_holds_that_one_from_there_on_and_no_other() -> None:
    groups = {number: group(number, [REQUESTS]) for number in range(3)}
    step = processor(Waiting({0: 2, 1: 0}), (REQUESTS,), Controls())
    turn = whole(step, requests("....") + requests("..", 1) + requests("...", 2), groups)
    assert [emit.event.request_id for emit in turn.emits] == ["r0-0", "r0-1", "r2-0", "r2-1", "r2-2"]
    assert {number: one.offsets()["requests", number] for number, one in groups.items()} == {0: 2, 1: 0, 2: 3}
    assert {(one.number, hold.why, hold.reason) for one, hold in turn.holds} == {(0, Why.NOT_NOW, "not yet"), (1, Why.NOT_NOW, "not yet")}


def test_a_cap_before_what_waits_is_not_forgotten() -> None:
    groups = {0: group(0, [REQUESTS])}
    turn = whole(processor(Waiting({0: 5}), (REQUESTS,), Controls()), requests("xxxx.."), groups)
    assert letters(turn) == [0, 1, 2]
    assert turn.holds[-1][1].why is Why.DEAD_LETTERS


def test_what_is_lacking_is_recorded_with_the_transaction() -> None:
    controls, groups = Controls(), {0: group(0, [REQUESTS])}
    controls.versions, controls.lacking = {"models": 3}, {"m/2": "is being loaded"}
    step = processor(Echo(), (REQUESTS,), controls)
    commit = step.commit_record(whole(step, requests("."), groups)).event
    assert (commit.control, commit.lacking) == ({"models": 3}, {"m/2": "is being loaded"})
