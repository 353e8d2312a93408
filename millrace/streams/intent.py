"""How the records of one partition become rows for ever: by intent and lease. A state machine without clock or socket.

1. A block [start, end) of records is cut.
2. Offset ``start`` is committed with the intent ``{end, lease}``. The group's generation lets only the partition's owner do so.
3. The block is inserted under a token made of its range, with the lease in every row: the table refuses rows whose lease is over.
4. On success the next intent commits from ``end``; with nothing to follow, ``end`` is committed alone.

A retry inside the lease sends the same bytes under the same token. After the lease the intent is settled by looking: wait until the
lease and the longest insert are over by the server's clock, commit the intent anew (which fences an owner before us), read which
offsets are present, insert exactly the absent ones. Whoever finds an open intent when it is given the partition does the same.

Why it holds: intents form one chain, for only the current owner writes them; so ranges are identical or disjoint. Identical ones
race only inside a lease and under one token. After the lease nothing can arrive any more, and what is present is authoritative.
An intent that was settled by looking (``look``) inserts under a token of its own, and is never repeated blindly by a successor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from enum import Enum, auto

from msgspec import Struct

from millrace.schemas.record import Record
from millrace.streams.cut import Limits, cut, weight_bytes


class Intent(Struct, frozen=True):
    """The right to insert the records [start, end) of one partition, until ``lease_seconds`` (whole seconds, server's clock)."""

    start: int
    end: int
    lease_seconds: int
    look: bool = False
    """Whether some of its rows may be present: its owner looks before it inserts."""

    def token(self, topic_id: str, partition: int) -> str:
        """Under which the table drops a repeated insert."""
        token = f"{topic_id}:{partition}:{self.start}-{self.end}"
        return f"{token}:{self.lease_seconds}" if self.look else token


class Open(Struct, frozen=True):
    """Ask: which is the highest offset that is present at or above this one?"""

    at_least: int


class Commit(Struct, frozen=True):
    """Ask: commit this offset, with the intent that begins there, if any."""

    offset: int
    intent: Intent | None


class Look(Struct, frozen=True):
    """Ask: which offsets of this intent are present?"""

    intent: Intent
    records: Sequence[Record]


class Insert(Struct, frozen=True):
    """Ask: insert these records under this intent."""

    intent: Intent
    records: Sequence[Record]


Ask = Open | Commit | Look | Insert


class Settled(Struct, frozen=True):
    """A fact to tell: an intent was settled by looking, and so many of its records were absent."""

    intent: Intent
    absent: int


class Phase(Enum):
    """What a lane does."""

    OPENING = auto()
    """It must learn whether rows stand above its committed offset."""
    REBUILDING = auto()
    """It reads the records of an open intent again."""
    GATHERING = auto()
    """It gathers records for the next block."""
    INTENDING = auto()
    """A block is cut; its intent is to be committed."""
    LOOKING = auto()
    """The intent is committed; which of its rows are present is to be read."""
    INSERTING = auto()
    """The block is to be inserted, or inserted again."""
    WAITING = auto()
    """The lease is over, or rows may be under way from before us: wait until nothing can arrive any more."""


class Lane:
    """One partition on its way into its table. ``ask`` says what is to be done; each ask is answered once before the next.

    ``now`` is any clock in seconds that does not go back; ``server`` is the server's time in seconds since the epoch, never ahead of it.
    """

    def __init__(self, position: int, intent: Intent | None, limits: Limits) -> None:
        self.phase = Phase.OPENING
        self.gathered: list[Record] = []
        self._weights_bytes: list[int] = []
        """What each gathered record weighs."""
        self.gathered_bytes = 0
        self.settled: list[Settled] = []
        self._limits = limits
        self._start = position
        """Where the next block begins: everything below is in the table."""
        self._reached = position
        """Everything below has been gathered or is no record."""
        self._committed = position
        self._intent = intent
        self._found = intent
        """The open intent that we were given, until it is rebuilt."""
        self._block: list[Record] = []
        self._block_bytes = 0
        self._seen_until = -1
        """Rows at offsets below this may be present although nothing we know of put them there."""
        self._quiet_from = 0.0
        """By the server's clock, from when on no insert from before us can arrive."""
        self._asked = False
        self._due = 0.0
        self._since = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is gathered or under way and all that was finished is committed."""
        return self.phase is Phase.GATHERING and not self.gathered and self._committed == self._start

    @property
    def gathered_blocks(self) -> float:
        """How many full blocks what is gathered would make, by rows or by bytes."""
        return max(len(self.gathered) / self._limits.block_rows, self.gathered_bytes / self._limits.block_bytes)

    @property
    def full(self) -> bool:
        """Whether what is gathered makes a block as large as any."""
        return self.gathered_blocks >= 1

    @property
    def since(self) -> float:
        """When the oldest gathered record came."""
        return self._since

    @property
    def start(self) -> int:
        """Everything below is in the table."""
        return self._start

    @property
    def writing(self) -> bool:
        """Whether a block is on its way, other than one that waits for a lease to end."""
        return self.phase in (Phase.INTENDING, Phase.LOOKING, Phase.INSERTING)

    @property
    def stuck(self) -> bool:
        """Whether it waits for something that may take long."""
        return self.phase in (Phase.OPENING, Phase.REBUILDING, Phase.WAITING)

    @property
    def held_blocks(self) -> float:
        """How many full blocks its records would make, those of the block under way included."""
        return self.gathered_blocks + max(len(self._block) / self._limits.block_rows, self._block_bytes / self._limits.block_bytes)

    @property
    def busy(self) -> bool:
        """Whether an ask waits for its answer."""
        return self._asked

    @property
    def next_offset(self) -> int:
        """Everything below has been gathered."""
        return self._reached

    def oldest_ms(self) -> int | None:
        """The append time of the oldest record that is not in the table yet."""
        records = self._block or self.gathered
        return records[0].appended_ms if records else None

    def take(self, records: Sequence[Record], now: float) -> None:
        """Records of the partition, in the order of their offsets."""
        fresh = [record for record in records if record.offset >= self._reached]
        if not fresh:
            return
        if not self.gathered:
            self._since = now
        weights = list(map(weight_bytes, fresh))
        self.gathered.extend(fresh)
        self._weights_bytes.extend(weights)
        self.gathered_bytes += sum(weights)
        self._reached = fresh[-1].offset + 1

    def reach(self, end: int) -> None:
        """The log was read up to here; what lay between the last record and this is none that a committed reader sees."""
        self._reached = max(self._reached, end)

    def due(self, now: float) -> bool:
        """Whether a block should be cut of what is gathered."""
        return bool(self.gathered) and (self.full or now - self._since >= self._limits.block_seconds)

    def ask(self, now: float, server: float, *, cut_now: bool = False) -> Ask | None:
        """What is to be done next, if anything. ``cut_now``: cut what is gathered, however little; finished blocks are committed."""
        if self._asked:
            return None
        found = self._next(now, server, cut_now)
        self._asked = found is not None
        return found

    def farewell(self) -> Commit | None:
        """What to commit before the partition is given up: the end of a block that was finished with no other begun."""
        finished = self.phase is Phase.GATHERING and not self._asked and self._start > self._committed
        return Commit(self._start, None) if finished else None

    def opened(self, highest: int | None, server: float) -> None:
        """The answer to Open: the highest offset present at or above the one asked for."""
        self._asked = False
        if highest is not None:
            self._seen_until = highest + 1
            self._quiet_from = server + self._limits.lease_seconds + self._limits.insert_seconds + 1
        self.phase = Phase.REBUILDING if self._found else Phase.GATHERING

    def committed(self, commit: Commit, now: float) -> None:
        """The answer to Commit: it is durable, and nobody else owned the partition."""
        self._asked = False
        self._committed = commit.offset
        if commit.intent is not None:
            self.phase = Phase.LOOKING if commit.intent.look else Phase.INSERTING
            self._due = now

    def looked(self, present: Collection[int]) -> None:
        """The answer to Look: the offsets that are there. What is absent is inserted."""
        self._asked = False
        intent = self._known()
        self._block = [record for record in self._block if record.offset not in present]
        self.settled.append(Settled(intent, len(self._block)))
        if self._block:
            self.phase = Phase.INSERTING
        else:
            self._finish(intent)

    def inserted(self) -> None:
        """The answer to Insert: the block is in the table."""
        self._asked = False
        self._finish(self._known())

    def failed(self, now: float, *, lease_over: bool = False) -> None:
        """The answer to any ask but Commit: it did not happen, or nobody knows. ``lease_over``: the table said that the lease is over."""
        self._asked = False
        self._due = now + self._limits.retry_seconds
        if lease_over:
            self._wait()

    def uncommitted(self, now: float) -> None:
        """The answer to Commit: it may or may not have happened; the same is asked again."""
        self._asked = False
        self._due = now + self._limits.retry_seconds

    def _next(self, now: float, server: float, cut_now: bool) -> Ask | None:
        match self.phase:
            case Phase.OPENING:
                return Open(self._found.end if self._found else self._start) if now >= self._due else None
            case Phase.REBUILDING:
                return self._rebuilt(now, server)
            case Phase.GATHERING:
                return self._gather(now, server, cut_now)
            case Phase.INTENDING:
                return self._commit() if now >= self._due else None
            case Phase.LOOKING:
                return Look(self._known(), self._block) if now >= self._due else None
            case Phase.INSERTING:
                return self._insert(now, server)
            case Phase.WAITING:
                return self._settle(server)

    def _gather(self, now: float, server: float, cut_now: bool) -> Ask | None:
        if self.due(now) or (cut_now and self.gathered):
            self._since = now
            return self._cut(server)
        if not self.gathered:
            self._start = max(self._start, self._reached)
        if self._start > self._committed and (cut_now or now >= self._due):
            return Commit(self._start, None)
        return None

    def _cut(self, server: float) -> Ask | None:
        count = cut(self.gathered, self._weights_bytes, self._limits)
        whole = count == len(self.gathered)
        self._take_block(count, self._reached if whole else self.gathered[count - 1].offset + 1)
        return self._plan(server)

    def _take_block(self, count: int, end: int) -> None:
        self._block, self.gathered = self.gathered[:count], self.gathered[count:]
        self._block_bytes = sum(self._weights_bytes[:count])
        del self._weights_bytes[:count]
        self.gathered_bytes -= self._block_bytes
        self._intent = Intent(self._start, end, 0)

    def _plan(self, server: float) -> Ask | None:
        """A cut block's first step: its intent, or, where rows of it may be present, to wait until none can arrive."""
        intent = self._known()
        if intent.start < self._seen_until:
            self.phase = Phase.WAITING
            return self._settle(server)
        self._intent = Intent(intent.start, intent.end, self._lease(server))
        self.phase = Phase.INTENDING
        return self._commit()

    def _rebuilt(self, now: float, server: float) -> Ask | None:
        found = self._found
        if found is None or self._reached < found.end:
            return None
        self._found = None
        count = sum(record.offset < found.end for record in self.gathered)
        self._take_block(count, found.end)
        self._intent, self._since = found, now
        if not self._block:
            self._finish(found)
            return self._next(now, server, False)
        if found.look or server > found.lease_seconds:
            self._wait()
        else:
            self.phase = Phase.INSERTING
        self._due = now
        return self._next(now, server, False)

    def _insert(self, now: float, server: float) -> Ask | None:
        intent = self._known()
        if server > intent.lease_seconds + 1:
            self._wait()
            return self._settle(server)
        return Insert(intent, self._block) if now >= self._due else None

    def _wait(self) -> None:
        self._quiet_from = max(self._quiet_from, self._known().lease_seconds + 1 + self._limits.insert_seconds)
        self.phase = Phase.WAITING

    def _settle(self, server: float) -> Ask | None:
        if server <= self._quiet_from:
            return None
        intent = self._known()
        self._intent = Intent(intent.start, intent.end, self._lease(server), look=True)
        self.phase = Phase.INTENDING
        return self._commit()

    def _commit(self) -> Commit:
        return Commit(self._known().start, self._intent)

    def _lease(self, server: float) -> int:
        return math.ceil(server + self._limits.lease_seconds)

    def _finish(self, intent: Intent) -> None:
        self._start = intent.end
        self._reached = max(self._reached, intent.end)
        self._block, self._block_bytes, self._intent = [], 0, None
        self.phase = Phase.GATHERING

    def _known(self) -> Intent:
        if self._intent is None:
            raise RuntimeError("a lane without an intent was asked for one")
        return self._intent
