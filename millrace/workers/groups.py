"""What a worker keeps for each partition group that it owns: positions, caps, state, and whether it is held."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from millrace.infra.kafka.changelog import Restore
from millrace.infra.kafka.positions import Metadata, Place, Position, Remedies
from millrace.infra.state import GroupStore, Mark, Writes
from millrace.schemas.errors import CommitLost, Stop
from millrace.schemas.record import Emit, Record, Refused
from millrace.streams.cap import Cap, CapLimits
from millrace.streams.merge import Merge

Spot = tuple[str, int, int]
"""A record's topic, partition and offset."""


class Why(Enum):
    """Why a group is held."""

    NOT_NOW = "not-now"
    DEAD_LETTERS = "dead-letters"


class Hold(Struct, frozen=True):
    """A held group: why, and until when on the monotonic clock; None means until a person allows it."""

    why: Why
    reason: str
    until: float | None = None


class Group:
    """One partition number of all the joined inputs: the unit of order, state, holding and dead-letter caps."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.positions: dict[Place, Position] = {}
        self.store: GroupStore | None = None
        self.restore: Restore | None = None
        self.merge: Merge | None = None
        self.hold: Hold | None = None
        self.crowded = False
        self.watermark_ms = 0
        self.last_ms = 0
        self.writes: Writes = {}
        self.changelog_end = -1
        self._settled: dict[Place, int] = {}

    @property
    def places(self) -> list[Place]:
        """Its partitions, one of each input."""
        return list(self.positions)

    @property
    def working(self) -> bool:
        """Whether records of it may be processed now."""
        return self.hold is None and self.restore is None

    def due(self) -> bool:
        """Whether a hold has run its time."""
        return self.hold is not None and self.hold.until is not None and time.monotonic() >= self.hold.until

    def offsets(self) -> dict[Place, int]:
        """The next offset to process of each place."""
        return {place: position.offset for place, position in self.positions.items()}

    def go_back_to(self, positions: Mapping[Place, Position], remedies: Remedies) -> None:
        """Stand where the group has committed. Raises CommitLost where that is before a commit of ours that was answered."""
        for place in self.places:
            committed, settled = positions[place].offset, self._settled.get(place, 0)
            if committed < settled:
                raise CommitLost(
                    f"Kafka answered the commit of {place[0]}/{place[1]} up to {settled}, and now says {committed}. What was decided from "
                    f"there on may be there already: going on would decide it again. Stop the role first. {remedies.lost}"
                )
            self.positions[place] = positions[place]

    def advance(self, place: Place, offset: int, cap: Cap) -> None:
        """Everything of the place below ``offset`` is done."""
        metadata = Metadata(self.positions[place].metadata.topic_id, run=cap.run, seen=cap.seen, dead=cap.dead)
        self.positions[place] = Position(offset, metadata)

    def cap(self, place: Place) -> Cap:
        """How close dead-lettering of the place is to its cap."""
        metadata = self.positions[place].metadata
        return Cap(metadata.run, metadata.seen, metadata.dead)

    def ready(self, quiet: Iterable[str]) -> list[Record]:
        """The held-aside records whose turn is certain."""
        return self.merge.ready(quiet) if self.merge is not None else []

    def start_over(self, topics: Iterable[str]) -> None:
        """Hold nothing aside any more: all of it comes again, and so does its time."""
        self.merge = Merge(topics) if self.merge is not None else None
        self.watermark_ms = 0
        self.crowded = False

    def waiting(self) -> bool:
        """Whether records are held aside because an input has nothing to compare them with."""
        return self.merge is not None and bool(self.merge.waiting_for())

    def watermark(self, quiet: Iterable[str], quiet_ms: int) -> int:
        """The watermark as it is certain now; not below the one that timers were given."""
        found = self.merge.watermark_ms(quiet, quiet_ms) if self.merge is not None else 0
        return max(self.watermark_ms, found)

    def ticks(self, watermark_ms: int, *, records: bool) -> bool:
        """Whether timers are due to be asked: after records, and where time has gone on."""
        return records or watermark_ms > self.watermark_ms

    def fullest(self, short: Callable[[str], str]) -> list[Place]:
        """The places whose records are held aside: the ones to pause when there are too many."""
        waiting = self.merge.waiting_for() if self.merge is not None else set()
        return [place for place in self.places if short(place[0]) not in waiting]

    def delivered(self, error: Any, message: Any) -> None:
        """Remember how far the changelog reaches; a failed delivery fails the commit by itself."""
        if error is None:
            self.changelog_end = max(self.changelog_end, message.offset() + 1)

    def settle(self, topic_id: str) -> None:
        """Write to disk what the commit made durable, and remember how far that was."""
        self._settled = self.offsets()
        if self.store is not None and self.writes:
            if self.changelog_end < 0:
                raise Stop("a transaction was committed without delivery reports for its state; restart to restore from the changelog")
            self.store.apply(self.writes, Mark(topic_id, self.changelog_end, time.time()))
        self.writes = {}

    def close(self) -> None:
        """Close the state; what was not committed is forgotten."""
        if self.restore is not None:
            self.restore.close()
            self.restore = None
        if self.store is not None:
            self.store.close()
            self.store = None


class Verdicts(Struct):
    """What became of the records of one place in one call: how far it may go, the cap after that, and whether that reached it."""

    end: int
    cap: Cap
    reached: bool


def judge(records: Iterable[Record], refused: Container[Spot], before: Verdicts, allowed: int, limits: CapLimits) -> Verdicts:
    """Count more of one place's records, in order, towards its cap; stop before the dead letter that would be one too many.

    ``allowed`` is the last offset that an operator lets be dead-lettered; such a record clears the count.
    """
    end, cap = before.end, before.cap
    for record in records:
        dead = record.spot in refused
        counted = dead and record.offset > allowed
        if counted and cap.reached(limits):
            return Verdicts(end, cap, True)
        cap = Cap() if dead and not counted else cap.after(dead=dead, limits=limits)
        end = record.offset + 1
    return Verdicts(end, cap, False)


class Facts(Struct):
    """What the steps of one poll stated, taken apart."""

    emits: list[Emit]
    refused: dict[Spot, str]

    @staticmethod
    def of(facts: Iterable[Emit | Refused]) -> Facts:
        """Run a step's generator to its end."""
        emits: list[Emit] = []
        refused: dict[Spot, str] = {}
        for fact in facts:
            if isinstance(fact, Emit):
                emits.append(fact)
            else:
                refused[fact.record.spot] = fact.reason
        return Facts(emits, refused)
