"""From the records of one poll to what one transaction will hold. No socket here: the steps, the caps and the bookkeeping."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from msgspec import Struct

from millrace.infra.kafka.clients import Slot, full_name
from millrace.infra.kafka.positions import Place
from millrace.infra.settings import Settings
from millrace.infra.state import NoStore
from millrace.schemas import wire
from millrace.schemas.commit import Commit, Range
from millrace.schemas.dead_letter import DeadLetter
from millrace.schemas.errors import DecodeError, NotNow, Stop
from millrace.schemas.record import Emit, Record
from millrace.schemas.topics import COMMITS, DEAD_LETTERS, Topic
from millrace.streams.cap import Cap, CapLimits
from millrace.streams.letter import fitted
from millrace.streams.step import Batch, Step
from millrace.workers.groups import Facts, Group, Hold, Spot, Verdicts, Why, judge

NO_STORE = NoStore()
WHOLE = -1
_place = attrgetter("topic", "partition")
_partition = attrgetter("partition")


class Allowed(Protocol):
    """Who knows what an operator allowed, how far control topics were read, and what of them cannot be used yet."""

    @property
    def versions(self) -> dict[str, int]: ...

    @property
    def lacking(self) -> Mapping[str, str]: ...

    def allowed(self, topic: str, partition: int) -> int: ...


class Turn:
    """What one transaction will hold: events in order, the groups it touched, and the groups that are to be held after it."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.emits: list[Emit] = []
        self.touched: list[Group] = []
        self.holds: list[tuple[Group, Hold]] = []
        self.ranges: list[Range] = []
        self.watermarks: dict[int, int] = {}
        self.records = 0

    def touch(self, group: Group) -> None:
        """The transaction carries the offsets of this group, changed or not."""
        if group not in self.touched:
            self.touched.append(group)

    def dead_letters(self) -> Iterator[dict[str, Any]]:
        """For the log: topic, number, and place and reason of the first dead letter of each topic."""
        letters = sorted((emit.event for emit in self.emits if emit.topic == DEAD_LETTERS.name), key=attrgetter("topic"))
        for topic, same in groupby(letters, attrgetter("topic")):
            first, *others = same
            place = f"{topic}/{first.partition}@{first.offset}"
            yield {"topic": topic, "records": 1 + len(others), "place": place, "reason": first.reason}


class Called(Struct):
    """What one call of a step comes to: its events and dead letters, how far each place may go, what is to be held, how many records."""

    emits: list[Emit]
    verdicts: dict[Place, Verdicts]
    holds: list[tuple[Group, Hold]]
    records: int


class Processor:
    """Calls the step for what was polled, counts dead letters towards their caps, and says what follows for each group."""

    def __init__(self, role: str, slot: Slot, step: Step, inputs: Sequence[Topic], settings: Settings, controls: Allowed) -> None:
        runner = settings.runner
        self._role, self._slot, self._step, self._controls = role, slot, step, controls
        self._order = _partition if len(inputs) == 1 else _place
        self._owned = {topic.name for topic in inputs if topic.owner == role}
        self._read = {topic.name: wire.codec(topic).read for topic in inputs}
        self._names = {topic.name: full_name(settings, topic) for topic in inputs}
        self._short = {full: name for name, full in self._names.items()}
        self._limits = CapLimits(runner.dead_letter_run, runner.dead_letter_ratio, runner.dead_letter_window_records)

    def decode(self, records: Iterable[Record]) -> dict[Spot, str]:
        """Decode in place; the records that cannot be, with the reason. Raises Stop for one on a topic that is not ours to judge."""
        read, bad = self._read, {}
        for record in records:
            try:
                read[record.topic](record)
            except DecodeError as error:
                if record.topic not in self._owned:
                    raise Stop(f"{record.place} cannot be decoded, and its topic is written by millrace alone: {error}") from None
                bad[record.spot] = str(error)
        return bad

    def whole(self, records: list[Record], bad: dict[Spot, str], groups: dict[int, Group], now: datetime) -> Turn:
        """The turn of a stateless step, which takes all groups' records at once.

        It takes them by topic, partition and offset, not as they came: what stands on ``commits`` then tells their order too.
        """
        turn = Turn(now)
        records = [record for record in records if groups[record.partition].working] if _any_held(groups) else records
        records = sorted(records, key=self._order)
        while records:
            try:
                called = self._call(WHOLE, records, bad, groups, turn.now, NO_STORE)
            except NotNow as error:
                going = _going(records, error)
                turn.holds.extend((groups[number], _not_now(error)) for number in _stopped(records, going))
                records = going
            else:
                self._take(called, groups, turn)
                break
        return turn

    def group(
        self, group: Group, records: list[Record], bad: dict[Spot, str], turn: Turn, quiet: Iterable[str] = (), quiet_ms: int = 0
    ) -> None:
        """One group's part of a turn, once a turn: its records, then its timers, as far as no earlier record can come.

        At a cap there is no tick: what stands behind the cap was taken out of the merge and comes again.
        """
        if group.store is None:
            return
        groups, watermark = {group.number: group}, group.watermark(quiet, quiet_ms)
        try:
            called = self._call(group.number, records, bad, groups, turn.now, group.store) if records else Called([], {}, [], 0)
            ticks = not called.holds and group.ticks(watermark, records=bool(records))
            brought_out = self._tick(group, watermark, turn.now) if ticks else []
        except NotNow as error:
            group.store.discard()
            turn.holds.append((group, _not_now(error)))
            return
        self._take(called, groups, turn)
        turn.emits.extend(brought_out)
        if called.emits or brought_out or group.store.pending:
            turn.touch(group)
        if ticks:
            group.watermark_ms = watermark
            if group in turn.touched:
                turn.watermarks[group.number] = watermark

    def pass_over(self, ends: Iterable[tuple[Group, Place, int]], turn: Turn) -> None:
        """Go to these ends, up to which there is no record: where a group stands must not be what a log drops next, with nothing in it."""
        for group, place, end in ends:
            self._go_to(group, place, end, group.cap(place), turn)

    def allowed(self, group: Group) -> bool:
        """Whether an operator lets the record pass at which a group is held."""
        return any(self._controls.allowed(place[0], place[1]) >= offset for place, offset in self._spots(group))

    def commit_record(self, turn: Turn) -> Emit:
        """The record of this transaction on ``commits``."""
        ranges = tuple(sorted(turn.ranges, key=lambda taken: (taken.topic, taken.partition, taken.start)))
        causes = [f"{taken.topic}/{taken.partition}@{taken.start}-{taken.end}" for taken in ranges]
        event = Commit(
            id=wire.derived_id(str(self._slot), turn.now.isoformat(), *causes),
            time=turn.now,
            worker=self._role,
            slot=str(self._slot),
            inputs=ranges,
            control=self._controls.versions,
            lacking=dict(self._controls.lacking),
            watermarks=turn.watermarks,
            records=turn.records,
            emitted=len(turn.emits),
        )
        return Emit(COMMITS.name, self._role, event)

    def _spots(self, group: Group) -> Iterator[tuple[Place, int]]:
        for place, offset in group.offsets().items():
            yield (self._short[place[0]], place[1]), offset

    def _call(
        self, number: int, records: list[Record], bad: dict[Spot, str], groups: dict[int, Group], now: datetime, store: Any
    ) -> Called:
        """Run the step; where a cap is reached on the way, forget it and run it again on what comes before."""
        holds: list[tuple[Group, Hold]] = []
        while True:
            good = [record for record in records if record.spot not in bad] if bad else records
            facts = Facts.of(self._step.process(Batch(number, good, now), store))
            refused = {record.spot: bad[record.spot] for record in records if record.spot in bad} if bad else {}
            refused.update(facts.refused)
            verdicts = self._judge(records, refused, groups)
            if not any(verdict.reached for verdict in verdicts.values()):
                letters = self._dead_letters(records, refused, groups, now) if refused else []
                return Called(facts.emits + letters, verdicts, holds, len(records))
            holds.extend(self._holds_at_cap(verdicts, groups))
            records = self._before(records, verdicts, together=number != WHOLE)
            if number != WHOLE:
                store.discard()

    def _before(self, records: list[Record], verdicts: dict[Place, Verdicts], *, together: bool) -> list[Record]:
        """What may still be processed: each place up to its cap, or, where places are joined, all up to the first cap."""
        ends = {place: verdict.end for place, verdict in verdicts.items() if verdict.reached}
        kept: list[Record] = []
        for record in records:
            end = ends.get((self._names[record.topic], record.partition))
            if end is None or record.offset < end:
                kept.append(record)
            elif together:
                break
        return kept

    def _judge(self, records: list[Record], refused: dict[Spot, Any], groups: dict[int, Group]) -> dict[Place, Verdicts]:
        """How far each place may go. Where nothing was refused, its records are counted at once, however the places are mixed."""
        if not refused:
            return self._all_good(records, groups)
        verdicts: dict[Place, Verdicts] = {}
        for (topic, partition), run in groupby(records, _place):
            place, group = (self._names[topic], partition), groups[partition]
            before = verdicts.get(place)
            if before is not None and before.reached:
                continue
            taken = list(run)
            end, cap = (before.end, before.cap) if before is not None else (-1, group.cap(place))
            group.last_ms = taken[-1].appended_ms
            verdicts[place] = judge(taken, refused, Verdicts(end, cap, False), self._controls.allowed(topic, partition), self._limits)
        return verdicts

    def _all_good(self, records: list[Record], groups: dict[int, Group]) -> dict[Place, Verdicts]:
        verdicts: dict[Place, Verdicts] = {}
        for (topic, partition), number in Counter(map(_place, records)).items():
            place = (self._names[topic], partition)
            verdicts[place] = Verdicts(-1, groups[partition].cap(place).after_good(number, self._limits), False)
        for (topic, partition), last in {_place(record): record for record in records}.items():
            verdicts[(self._names[topic], partition)].end = last.offset + 1
        for partition, last in {record.partition: record for record in records}.items():
            groups[partition].last_ms = last.appended_ms
        return verdicts

    def _holds_at_cap(self, verdicts: dict[Place, Verdicts], groups: dict[int, Group]) -> Iterator[tuple[Group, Hold]]:
        for place, verdict in verdicts.items():
            if verdict.reached:
                reason = (
                    f"{place[0]}/{place[1]} has too many dead letters "
                    f"({verdict.cap.run} in a row, {verdict.cap.dead} of {verdict.cap.seen}). "
                    f"Look at them with `millrace dead-letters list`, then run `millrace dead-letters allow {self._role}`."
                )
                yield groups[place[1]], Hold(Why.DEAD_LETTERS, reason)

    def _take(self, called: Called, groups: dict[int, Group], turn: Turn) -> None:
        """Make what a call said part of the turn."""
        self._advance(called.verdicts, groups, turn)
        turn.emits.extend(called.emits)
        turn.holds.extend(called.holds)
        turn.records += called.records

    def _advance(self, verdicts: dict[Place, Verdicts], groups: dict[int, Group], turn: Turn) -> None:
        for place, verdict in verdicts.items():
            if verdict.end < 0:
                continue
            self._go_to(groups[place[1]], place, verdict.end, verdict.cap, turn)

    def _go_to(self, group: Group, place: Place, end: int, cap: Cap, turn: Turn) -> None:
        start = group.positions[place].offset
        group.advance(place, end, cap)
        topic_id = group.positions[place].metadata.topic_id
        turn.ranges.append(Range(topic=self._short[place[0]], topic_id=topic_id, partition=place[1], start=start, end=end))
        turn.touch(group)

    def _tick(self, group: Group, watermark_ms: int, now: datetime) -> list[Emit]:
        facts = Facts.of(self._step.tick(watermark_ms, now, group.store)) if group.store is not None else Facts([], {})
        if facts.refused:
            raise Stop("a step refused a record from its tick, where there is none to refuse")
        return facts.emits

    def _dead_letters(self, records: list[Record], refused: dict[Spot, str], groups: dict[int, Group], now: datetime) -> list[Emit]:
        """The dead letters, in the order of their records."""
        letters = [self._dead_letter(record, refused[record.spot], groups, now) for record in records if record.spot in refused]
        if len(letters) != len(refused):
            raise Stop("a step refused a record that it was not given")
        return letters

    def _dead_letter(self, record: Record, reason: str, groups: dict[int, Group], now: datetime) -> Emit:
        place = (self._names[record.topic], record.partition)
        topic_id = groups[record.partition].positions[place].metadata.topic_id
        event = DeadLetter(
            id=wire.derived_id(topic_id, str(record.partition), str(record.offset)),
            time=now,
            worker=self._role,
            topic=record.topic,
            topic_id=topic_id,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
            key=record.key,
            value=record.value,
            headers=tuple((name, value or b"") for name, value in record.headers or ()),
        )
        return Emit(DEAD_LETTERS.name, record.topic, fitted(event))


def _not_now(error: NotNow) -> Hold:
    return Hold(Why.NOT_NOW, str(error), time.monotonic() + error.retry_seconds)


def _going(records: list[Record], error: NotNow) -> list[Record]:
    """What need not wait: each partition's records before the first one that does."""
    waits = error.at or {}
    going = [record for record in records if record.offset < waits.get(_place(record), record.offset + 1)] if waits else []
    return going if len(going) < len(records) else []


def _stopped(records: list[Record], going: list[Record]) -> set[int]:
    """The partitions of which a record has to wait."""
    kept = {record.spot for record in going}
    return {record.partition for record in records if record.spot not in kept}


def _any_held(groups: dict[int, Group]) -> bool:
    return any(not group.working for group in groups.values())
