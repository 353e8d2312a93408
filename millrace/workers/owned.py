"""The partition groups that a worker owns: their state opened and restored, held and let go, rewound, and kept from growing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from millrace.infra.kafka.changelog import Restore
from millrace.infra.kafka.clients import Slot, full_name
from millrace.infra.kafka.inputs import Inputs
from millrace.infra.kafka.positions import Place, Position
from millrace.infra.settings import Settings
from millrace.infra.state import GroupStore
from millrace.infra.telemetry import EndUnknown, Held, Released, Restored, StoreWiped, Telemetry
from millrace.schemas.record import Record
from millrace.schemas.topics import Topic, changelog
from millrace.streams.merge import Merge
from millrace.workers.groups import Group, Hold, Why

RESTORE_SECONDS = 0.05
_place = attrgetter("topic", "partition")


class Owned:
    """The groups by number, and how far each of their partitions was fetched. A stateless worker's groups have no store and no merge."""

    def __init__(self, settings: Settings, slot: Slot, topics: Iterable[Topic], inputs: Inputs, telemetry: Telemetry) -> None:
        self._settings, self._slot, self._inputs, self._telemetry = settings, slot, inputs, telemetry
        self._topics = tuple(topic.name for topic in topics)
        self._names = {name: full_name(settings, name) for name in self._topics}
        self.changelog = full_name(settings, changelog(slot.role))
        self.changelog_id = ""
        """The changelog's topic id; empty for a stateless worker."""
        self.groups: dict[int, Group] = {}
        self._fetched: dict[Place, int] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups.values())

    def take(self, positions: dict[Place, Position]) -> None:
        """Begin with newly assigned partitions."""
        for place, position in sorted(positions.items()):
            self.groups.setdefault(place[1], Group(place[1])).positions[place] = position
        self._fetched = {place: position.offset for place, position in positions.items()}
        for group in self:
            self._open(group)

    def give_up(self, numbers: Iterable[int]) -> None:
        """Close the groups and forget them; what was not committed is gone."""
        for number in numbers:
            if (group := self.groups.pop(number, None)) is not None:
                self._release(group)
                group.close()

    def begin_again(self, positions: dict[Place, Position]) -> None:
        """Bring every group to its committed positions, and read on from there."""
        for group in self:
            group.go_back_to(positions, self._inputs.remedies)
            self._open(group)
            self._go_back(group)

    def reached(self, ends: dict[Place, int]) -> None:
        """These places were read up to these ends."""
        for place, end in ends.items():
            if place in self._fetched:
                self._fetched[place] = max(self._fetched[place], end)

    def read_out(self) -> Iterator[tuple[Group, Place, int]]:
        """The places that were read up to an end, beyond where their group stands though nothing of it waits, with those ends.

        No committed reader finds anything in between: there are markers of transactions, and records of those that were aborted.
        """
        for group in self:
            if group.working and not group.merge:
                for place, position in group.positions.items():
                    if (end := self._fetched.get(place, 0)) > position.offset:
                        yield group, place, end

    def push(self, records: Iterable[Record]) -> None:
        """Put fetched records into their groups' merges; those of a held group come again when it goes on."""
        for (topic, number), run in groupby(records, _place):
            group = self.groups[number]
            if group.working and group.merge is not None:
                place, taken = (self._names[topic], number), list(run)
                self._fetched[place] = max(self._fetched[place], taken[-1].offset + 1)
                group.merge.push(taken)

    def quiet(self, groups: list[Group]) -> tuple[dict[int, set[str]], int]:
        """For each of these groups the inputs read up to their ends as they are now, and a time before which all of that was appended."""
        if not groups:
            return {}, 0
        # Append times have a resolution of a millisecond: what is appended after this pause is later than anything read before it.
        time.sleep(0.002)
        asked_ms = int((time.time() - self._settings.runner.clock_skew_seconds) * 1_000)
        told = self._inputs.ends(place for group in groups for place in group.places)
        for place, reason in told.silent.items():
            self._telemetry.emit(EndUnknown(topic=self._inputs.short(place[0]), partition=place[1], reason=reason))
        reached = {place for place, end in told.offsets.items() if self._fetched.get(place, -1) >= end}
        return {group.number: {self._inputs.short(place[0]) for place in group.places if place in reached} for group in groups}, asked_ms

    def restore(self) -> bool:
        """Restore a little of each group that needs it; True while one still does."""
        restoring = [(group, group.restore) for group in self if group.restore is not None]
        for group, restore in restoring:
            if restore.advance(RESTORE_SECONDS):
                self._telemetry.emit(
                    Restored(topic=self.changelog, partition=group.number, records=restore.records, seconds=restore.seconds)
                )
                group.restore = None
                if group.hold is None:
                    self._inputs.resume(group.places)
        return bool(restoring)

    def hold(self, group: Group, hold: Hold) -> None:
        """Fetch no more of a group, and go back to where it stands."""
        if group.hold is None:
            self._telemetry.emit(Held(group=group.number, why=hold.why.value, reason=hold.reason))
        group.hold = hold
        self._inputs.pause(group.places)
        self._go_back(group)

    def retry(self) -> None:
        """Let go of groups whose time is over."""
        for group in self:
            if group.due():
                self._go_on(group)

    def allow(self, allowed: Callable[[Group], bool]) -> None:
        """Let go of groups whose blocking record an operator lets pass."""
        for group in self:
            if group.hold is not None and group.hold.why is Why.DEAD_LETTERS and allowed(group):
                self._go_on(group)

    def crowd(self, group: Group) -> None:
        """Back-pressure: fetch no more for a group that holds too much aside, until half of it has gone."""
        held, limit = len(group.merge) if group.merge is not None else 0, self._settings.runner.held_aside_records
        if not group.crowded and held > limit:
            group.crowded = True
            self._inputs.pause(group.fullest(self._inputs.short))
        elif group.crowded and held <= limit // 2:
            group.crowded = False
            self._inputs.resume(group.places)

    def lag(self) -> dict[tuple[str, int], tuple[int, float]]:
        """How far behind each partition is, in records and in seconds; without those whose end was never told."""
        now_ms = time.time() * 1_000
        lag = {}
        for group in self:
            for place, position in group.positions.items():
                if (end := self._inputs.log_ends.known(place)) is None:
                    continue
                behind = max(0, end - max(position.offset, self._fetched.get(place, 0)))
                seconds = max(0.0, now_ms - group.last_ms) / 1_000 if behind and group.last_ms else 0.0
                lag[(self._inputs.short(place[0]), place[1])] = (behind, seconds)
        return lag

    def why_not_ready(self) -> str:
        """Why a group does not work now; empty while all do."""
        for group in self:
            if group.hold is not None:
                return f"partition group {group.number} is held: {group.hold.why.value}: {group.hold.reason}"
            if group.restore is not None:
                return f"partition group {group.number} restores its state"
        return ""

    def _open(self, group: Group) -> None:
        """Bring a group's state to where its positions are; nothing of it is read until then."""
        if not self.changelog_id:
            return
        if group.store is None:
            group.store = GroupStore(Path(self._settings.stack.folder) / "state" / str(self._slot) / str(group.number))
        group.store.discard()
        if group.restore is not None:
            group.restore.close()
        group.merge = Merge(self._topics)
        group.restore = Restore(self._settings, self.changelog, self.changelog_id, group.number, group.store)
        if group.restore.wiped:
            self._telemetry.emit(StoreWiped(topic=self.changelog, partition=group.number, reason="not the image of this changelog"))
        self._inputs.pause(group.places)

    def _go_on(self, group: Group) -> None:
        self._release(group)
        if group.working:
            self._inputs.resume(group.places)

    def _release(self, group: Group) -> None:
        if group.hold is not None:
            self._telemetry.emit(Released(group=group.number, why=group.hold.why.value))
            group.hold = None

    def _go_back(self, group: Group) -> None:
        """Drop what is held aside, and read on from the group's positions."""
        offsets = group.offsets()
        group.start_over(self._topics)
        self._fetched.update(offsets)
        self._inputs.rewind(offsets)
