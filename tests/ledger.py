"""A table in memory that keeps ClickHouse's rules for inserts, with a clock that is moved by hand, and owners that die or freeze.

Rules: a row whose lease is over when its insert begins is refused; an insert under a token that is known is dropped; an insert that runs
longer than its limit is ended by the server; what is acknowledged is there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from millrace.infra.clickhouse.store import LeaseOver
from millrace.schemas.record import Record
from millrace.streams.cut import Limits
from millrace.streams.intent import Ask, Commit, Insert, Intent, Lane, Look, Open

TOPIC_ID = "topic-id"
LIMITS = Limits(block_rows=5, block_bytes=10_000, block_seconds=1.0, lease_seconds=10.0, insert_seconds=5.0, retry_seconds=0.5)
EPOCH = 1_795_000_000.0


def record(offset: int, appended_ms: int = 1_795_000_000_000, value: bytes = b"{}") -> Record:
    """A record of which only the place matters."""
    return Record("requests", 0, offset, appended_ms, None, value)


@dataclass
class Flight:
    """An insert that the server has begun."""

    token: str
    offsets: list[int]
    until: float


@dataclass
class MemoryTable:
    """One table: its rows by offset, the tokens it knows, and its server's clock."""

    insert_seconds: float
    now: float = EPOCH
    rows: Counter[int] = field(default_factory=Counter)
    tokens: dict[str, float] = field(default_factory=dict)
    """Each known token, and when it came."""
    flights: list[Flight] = field(default_factory=list)

    def begin(self, intent: Intent, offsets: list[int]) -> Flight:
        """Begin an insert; raises LeaseOver."""
        if int(self.now) > intent.lease_seconds:
            raise LeaseOver("the lease is over")
        flight = Flight(intent.token(TOPIC_ID, 0), offsets, self.now + self.insert_seconds)
        self.flights.append(flight)
        return flight

    def land(self, flight: Flight) -> bool:
        """Let an insert end well, if the server has not ended it."""
        if flight not in self.flights:
            return False
        self.flights.remove(flight)
        if flight.token not in self.tokens:
            self.tokens[flight.token] = self.now
            self.rows.update(flight.offsets)
        return True

    def advance(self, seconds: float) -> None:
        """Time passes; the server ends inserts that run too long."""
        self.now += seconds
        self.flights = [flight for flight in self.flights if flight.until >= self.now]

    def forget(self, older_than_seconds: float) -> None:
        """Forget old tokens: the table's window is limited."""
        self.tokens = {token: came for token, came in self.tokens.items() if self.now - came <= older_than_seconds}

    def insert(self, intent: Intent, offsets: list[int]) -> None:
        """Begin an insert and let it end well."""
        self.land(self.begin(intent, offsets))

    def highest(self, at_least: int) -> int | None:
        return max((offset for offset in self.rows if offset >= at_least), default=None)

    def present(self, intent: Intent) -> frozenset[int]:
        return frozenset(offset for offset in self.rows if intent.start <= offset < intent.end)


@dataclass
class Group:
    """The consumer group of one partition: its log, the committed offset with its intent, and who may commit."""

    log: list[Record]
    end: int
    offset: int = 0
    intent: Intent | None = None
    generation: int = 0


class Owner:
    """A process that was given the partition: its lane, and what it asked but has not heard the answer of."""

    def __init__(self, group: Group, table: MemoryTable, limits: Limits = LIMITS) -> None:
        group.generation += 1
        self.generation = group.generation
        self._group, self._table = group, table
        self.lane = Lane(group.offset, group.intent, limits)
        self.pending: Ask | None = None
        self.flight: Flight | None = None

    def poll(self, count: int = 100) -> None:
        """Read on in the log."""
        fresh = [record for record in self._group.log if record.offset >= self.lane.next_offset][:count]
        self.lane.take(fresh, self._table.now)
        if not fresh or fresh[-1] is self._group.log[-1]:
            self.lane.reach(self._group.end)

    def ask(self, *, cut_now: bool = False) -> Ask | None:
        """Ask the lane what is to be done, unless an answer is waited for."""
        if self.pending is None:
            self.pending = self.lane.ask(self._table.now, self._table.now, cut_now=cut_now)
        return self.pending

    def do(self) -> None:
        """Do what was asked and hear the answer; an insert that was begun ends well, or was ended by the server."""
        ask, self.pending = self.pending, None
        now = self._table.now
        match ask:
            case None:
                return
            case Open(at_least):
                self.lane.opened(self._table.highest(at_least), now)
            case Look(intent, _):
                self.lane.looked(self._table.present(intent))
            case Commit():
                self._commit(ask)
            case Insert():
                self._insert(ask)

    def begin(self) -> None:
        """Begin a pending insert without waiting for its end."""
        if isinstance(self.pending, Insert) and self.flight is None:
            try:
                self.flight = self._table.begin(self.pending.intent, [record.offset for record in self.pending.records])
            except LeaseOver:
                self.pending = None
                self.lane.failed(self._table.now, lease_over=True)

    def lose(self) -> None:
        """The answer to what was asked is lost; an insert may have been begun, and may still end well."""
        ask, self.pending, self.flight = self.pending, None, None
        if isinstance(ask, Commit):
            self.lane.uncommitted(self._table.now)
        elif ask is not None:
            self.lane.failed(self._table.now)

    def _commit(self, ask: Commit) -> None:
        if self.generation == self._group.generation:
            self._group.offset, self._group.intent = ask.offset, ask.intent
            self.lane.committed(ask, self._table.now)
        else:
            self.lane.uncommitted(self._table.now)

    def _insert(self, ask: Insert) -> None:
        self.pending = ask
        self.begin()
        flight, self.flight = self.flight, None
        if self.pending is None or flight is None:
            return
        self.pending = None
        if self._table.land(flight):
            self.lane.inserted()
        else:
            self.lane.failed(self._table.now)
