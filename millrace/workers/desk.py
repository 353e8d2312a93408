"""Where the archiver's lanes have their asks to ClickHouse answered, a few at a time, outside of the poll loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from msgspec import Struct

from millrace.infra.clickhouse.blocks import Block, Builder, Place, warm_up
from millrace.infra.clickhouse.client import Client, Refusal
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.clickhouse.store import Clock, LeaseOver, Offsets, Span, Store
from millrace.infra.settings import Settings
from millrace.infra.telemetry import BlockInserted, RowsUndecoded, Telemetry
from millrace.schemas.errors import Unavailable
from millrace.schemas.tables import TABLES
from millrace.streams.intent import Ask, Commit, Insert, Intent, Lane, Look, Open

AT_ONCE = 2
"""How many asks are under way at a time: one is built while another one is inserted."""


class Berth(Struct):
    """A lane and where it lies."""

    topic: str
    topic_id: str
    partition: int
    lane: Lane
    ask: Ask | None = None
    answer: Future[Answer] | None = None
    built: tuple[Intent, Block] | None = None
    """The block of the intent under way, so that a repeat sends the same bytes."""
    paused: bool = False
    refused: str = ""
    """Why the table takes none of its rows, since the last that it took."""

    @property
    def table(self) -> str:
        return TABLES[self.topic].name

    @property
    def writing(self) -> bool:
        """Whether a block is on its way, and nothing says that it will not get there."""
        return self.lane.writing and not self.refused

    @property
    def waits(self) -> bool:
        """Whether its next block may take long."""
        return self.lane.stuck or bool(self.refused)

    def why_not_ready(self) -> str:
        """What keeps its records from their table for now; empty where nothing does."""
        if self.refused:
            return f"ClickHouse refuses rows of {self.table}: {self.refused}"
        return f"{self.topic}/{self.partition} is {self.lane.phase.name.lower()}" if self.lane.stuck else ""

    def span(self, start: int, end: int = 1 << 62) -> Span:
        """A range of offsets of this partition."""
        return Span(self.topic, self.topic_id, self.partition, start, end)


class Highest(Struct, frozen=True):
    """The highest offset present, if any."""

    offset: int | None


class Present(Struct, frozen=True):
    """The offsets present."""

    offsets: frozenset[int]


class Stored(Struct, frozen=True):
    """The block is in the table."""


class Over(Struct, frozen=True):
    """The table said that the lease is over."""


class Trouble(Struct, frozen=True):
    """It did not happen, or nobody knows. ``code`` is None where ClickHouse did not answer at all."""

    reason: str
    code: int | None = None


Answer = Highest | Present | Stored | Over | Trouble


class Desk:
    """Answers asks by threads of its own. ``at`` is called with the name of each point that is passed."""

    def __init__(self, settings: Settings, telemetry: Telemetry, at: Callable[[str], None]) -> None:
        self._settings, self._telemetry, self._at = settings, telemetry, at
        warm_up()
        self._builders = {topic: Builder(table) for topic, table in TABLES.items()}
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="clickhouse")
        self._under_way: set[Future[Answer]] = set()
        self._client: Client | None = None

    def connect(self) -> list[str]:
        """Connect and migrate; what was migrated. Raises Unavailable, or Refusal."""
        seconds = self._settings.archiver.insert_timeout_seconds
        client = Client(self._settings.clickhouse, seconds)
        done = migrate(client)
        self._client, self._store, self._clock = client, Store(client, seconds), Clock(client)
        self._clock.ask()
        return done

    def now(self) -> float:
        """The server's time, never ahead of it."""
        return self._clock.now()

    @property
    def free(self) -> bool:
        """Whether another ask can be begun at once."""
        self._under_way = {answer for answer in self._under_way if not answer.done()}
        return len(self._under_way) < AT_ONCE

    def submit(self, berth: Berth, ask: Ask) -> None:
        """Begin to answer an ask of a lane."""
        berth.ask, berth.answer = ask, self._threads.submit(self._answer, berth, ask)
        self._under_way.add(berth.answer)

    def close(self) -> None:
        """End when what is under way has ended."""
        self._threads.shutdown(cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _answer(self, berth: Berth, ask: Ask) -> Answer:
        try:
            if self._clock.stale:
                self._clock.ask()
            return self._told(berth, ask)
        except LeaseOver:
            return Over()
        except Refusal as error:
            return Trouble(str(error), error.code)
        except Unavailable as error:
            return Trouble(str(error))

    def _told(self, berth: Berth, ask: Ask) -> Answer:
        match ask:
            case Open(at_least):
                return Highest(self._store.highest(berth.span(at_least)))
            case Look(intent, _):
                return Present(_as_set(self._store.present(berth.span(intent.start, intent.end))))
            case Insert():
                return self._insert(berth, ask)
            case Commit():
                raise RuntimeError("a commit is asked of Kafka")

    def _insert(self, berth: Berth, ask: Insert) -> Stored:
        began = time.monotonic()
        if berth.built is None or berth.built[0] != ask.intent:
            place = Place(berth.topic_id, berth.partition, ask.intent.lease_seconds)
            berth.built = (ask.intent, self._builders[berth.topic].build(ask.records, place))
        block = berth.built[1]
        self._at("before insert")
        self._store.insert(berth.topic, block, ask.intent.token(berth.topic_id, berth.partition))
        self._at("after insert")
        self._telemetry.emit(BlockInserted(table=berth.table, rows=block.rows, seconds=time.monotonic() - began))
        if block.undecoded:
            self._telemetry.emit(RowsUndecoded(table=berth.table, rows=block.undecoded))
        berth.built = None
        return Stored()


def _as_set(offsets: Offsets) -> frozenset[int]:
    return frozenset(offsets.tolist())
