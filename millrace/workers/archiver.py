"""The archiver: every record of every topic becomes one row of its table, for ever.

How, and why it holds, stands in ``streams/intent.py``. Here its lanes meet Kafka and ClickHouse. A turn of the loop:

1. poll, and hand each record to its partition's lane;
2. take the answers that ClickHouse gave meanwhile;
3. ask each lane what is to be done: all commits go to Kafka in one call, the rest to the desk;
4. pause partitions while too much is held, resume them when half of it is gone.

ClickHouse away: lanes fill up, their partitions pause, and what is under way is repeated for ever.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from operator import attrgetter

from msgspec.structs import replace

from millrace.infra.clickhouse.client import Refusal
from millrace.infra.kafka.clients import Slot
from millrace.infra.kafka.inputs import Inputs, Poll, Reading
from millrace.infra.kafka.positions import Metadata, Place, Position, Remedies
from millrace.infra.settings import ArchiverSettings, Settings
from millrace.infra.telemetry import (
    Assigned,
    BlockReconciled,
    BlockRefused,
    Draining,
    PlaceAnswers,
    PlaceUnavailable,
    Polled,
    RecordsGone,
    Revoked,
    Telemetry,
)
from millrace.schemas.errors import OffsetsLost, Unavailable
from millrace.schemas.topics import READERS
from millrace.streams.cut import Limits
from millrace.streams.intent import Commit, Intent, Lane, Phase
from millrace.workers.desk import Answer, Berth, Desk, Highest, Over, Present, Stored, Trouble
from millrace.workers.lag import LagReport
from millrace.workers.process import main

ROLE = "archiver"
PARTITION = attrgetter("topic", "partition")
CLICKHOUSE = "clickhouse"
BUSY_SECONDS = 0.02
IDLE_SECONDS = 0.1
GATHER_SECONDS = 0.005
STARTS_SECONDS = 10.0
PACE_SECONDS = 0.5
"""A table gets at most one block in so many seconds, unless blocks are full: a block for each of many partitions is many parts.

Two a second, and not one: partitions take turns, and a record of the default four is to arrive within about 2 s."""
REMEDIES = replace(
    Remedies.of(ROLE), lost="Run `millrace offsets reset archiver --to earliest`: rows that are there already are not inserted again."
)
"""It writes no transactions that the commits log could tell of."""
BLOCKS_AT_ONCE = 3
"""How many blocks are on their way: two at the desk and one in line. What is cut later is larger."""
HELD_BLOCKS = 8
"""How many full blocks are held in memory before partitions pause."""
RIPE_BLOCKS = 0.25
"""What a paused partition has gathered is cut at once from this size on: it would not grow by waiting."""


class Archiver:
    """Runs one slot of the archiver until it is asked to stop. ``at`` is called with the name of each point that is passed."""

    def __init__(self, settings: Settings, telemetry: Telemetry, at: Callable[[str], None] = lambda point: None) -> None:
        self._settings, self._telemetry, self._at = settings, telemetry, at
        self._limits = limits_of(settings.archiver)
        slot = Slot(ROLE, settings.ordinal)
        own = replace(settings, runner=replace(settings.runner, fetch_queue_bytes=settings.archiver.fetch_queue_bytes))
        reading = Reading(co_partitioned=False, begin=self._begin, remedies=REMEDIES)
        self._inputs = Inputs(own, slot, READERS[ROLE], self, reading)
        self._log_starts: dict[Place, int] = {}
        self._desk = Desk(settings, telemetry, at)
        self._berths: dict[Place, Berth] = {}
        self._by_record: dict[tuple[str, int], Berth] = {}
        self._paced: dict[str, float] = {}
        self._crowded = False
        self._trouble = ""
        self._retry_at = 0.0
        self._lag_report = LagReport(self._inputs, telemetry, self._lag)
        self._identity_due = 0.0
        self._stopping = ""

    def stop(self, why: str) -> None:
        """Finish what is gathered, commit it and end."""
        self._stopping = why

    @property
    def held_blocks(self) -> float:
        """How many full blocks the records in memory would make."""
        return sum(berth.lane.held_blocks for berth in self._berths.values())

    def run(self) -> None:
        """Work until ``stop``; raises Stop where going on could lose or double something."""
        if self._connect():
            self._work()
        self._drain()

    def assigned(self, positions: dict[Place, Position]) -> None:
        """Begin with newly assigned partitions, from inside a poll."""
        began = time.monotonic()
        for place, position in sorted(positions.items()):
            self._berths[place] = self._berth(place, position, self._log_starts[place])
        self._by_record = {(berth.topic, berth.partition): berth for berth in self._berths.values()}
        self._telemetry.emit(Assigned(partitions=self._by_topic(list(positions)), seconds=time.monotonic() - began))

    def revoked(self, places: list[Place], *, lost: bool) -> None:
        """Let what is under way end within one deadline, commit what is finished, and forget the partitions.

        What did not end in time is left as an open intent for the next owner.
        """
        leaving = {place: self._berths[place] for place in places if place in self._berths}
        if not lost:
            self._await(leaving.values(), time.monotonic() + self._settings.runner.revoke_deadline_seconds)
            self._commit({place: commit for place, berth in leaving.items() if (commit := berth.lane.farewell()) is not None})
        for place in leaving:
            del self._berths[place]
        self._by_record = {(berth.topic, berth.partition): berth for berth in self._berths.values()}
        self._telemetry.emit(Revoked(partitions=self._by_topic(places), lost=lost))

    def _work(self) -> None:
        self._inputs.start()
        while not self._stopping:
            self._turn()

    def _connect(self) -> bool:
        """Wait for ClickHouse, as long as it takes; False where we were asked to stop instead."""
        retry = self._limits.retry_seconds
        self._telemetry.health.not_ready("waiting for ClickHouse")
        while not self._stopping:
            self._telemetry.health.beat()
            try:
                self._desk.connect()
            except (Unavailable, Refusal) as error:
                self._telemetry.emit(PlaceUnavailable(place=CLICKHOUSE, reason=str(error), retry_seconds=retry))
                time.sleep(retry)
                continue
            self._telemetry.emit(PlaceAnswers(place=CLICKHOUSE))
            return True
        return False

    def _turn(self, *, cut_now: bool = False) -> None:
        self._telemetry.health.beat()
        busy = any(berth.answer is not None for berth in self._berths.values())
        began = time.monotonic()
        poll = self._inputs.poll(self._settings.runner.poll_records, BUSY_SECONDS if busy else IDLE_SECONDS, GATHER_SECONDS)
        seconds = time.monotonic() - began
        if counts := self._take(poll):
            self._telemetry.emit(Polled(records=counts, seconds=seconds))
        self._hear()
        while self._ask(cut_now):
            self._hear()
        self._flow(closed=cut_now)
        self._report()

    def _take(self, poll: Poll) -> Counter[str]:
        """Hand each record to its lane; how many came of each topic. Records of one partition come in long runs."""
        now = time.monotonic()
        counts: Counter[str] = Counter()
        for key, run in groupby(poll.records, PARTITION):
            records = list(run)
            counts[key[0]] += len(records)
            self._by_record[key].lane.take(records, now)
        for place, end in poll.ends.items():
            if place in self._berths:
                self._berths[place].lane.reach(end)
        return counts

    def _hear(self) -> None:
        """Give the lanes the answers that have come."""
        for berth in self._berths.values():
            if berth.answer is not None and berth.answer.done():
                self._tell(berth, berth.answer.result())

    def _tell(self, berth: Berth, answer: Answer) -> None:
        berth.ask = berth.answer = None
        lane, now = berth.lane, time.monotonic()
        match answer:
            case Highest(offset):
                lane.opened(offset, self._desk.now())
            case Present(offsets):
                lane.looked(offsets)
            case Stored():
                lane.inserted()
            case Over():
                lane.failed(now, lease_over=True)
            case Trouble():
                lane.failed(now)
        self._note(berth, answer)
        for settled in lane.settled:
            start, end = settled.intent.start, settled.intent.end
            self._telemetry.emit(BlockReconciled(table=berth.table, partition=berth.partition, start=start, end=end, absent=settled.absent))
        lane.settled.clear()

    def _note(self, berth: Berth, answer: Answer) -> None:
        """Tell of ClickHouse's troubles, and when they are over. Silence is everybody's trouble, a refusal that of its lane alone."""
        if isinstance(answer, Trouble) and answer.code is None:
            self._trouble, self._retry_at = answer.reason, time.monotonic() + self._limits.retry_seconds
            self._telemetry.emit(PlaceUnavailable(place=CLICKHOUSE, reason=answer.reason, retry_seconds=self._limits.retry_seconds))
            return
        if self._trouble:
            self._telemetry.emit(PlaceAnswers(place=CLICKHOUSE))
        self._trouble = ""
        match answer:
            case Trouble(reason, code):
                berth.refused = reason
                self._telemetry.emit(BlockRefused(table=berth.table, partition=berth.partition, code=code or 0, reason=reason))
            case Stored():
                berth.refused = ""

    def _ask(self, cut_now: bool) -> bool:
        """Ask every lane what is to be done; True where a commit may have brought more to do."""
        commits: dict[Place, Commit] = {}
        now, server = time.monotonic(), self._desk.now()
        for place, berth in sorted(self._berths.items(), key=lambda item: item[1].lane.since):
            ripe = cut_now or (self._crowded and berth.lane.gathered_blocks >= RIPE_BLOCKS)
            if berth.lane.busy or not self._may_ask(berth, now, ripe):
                continue
            ask = berth.lane.ask(now, server, cut_now=ripe)
            match ask:
                case None:
                    continue
                case Commit():
                    commits[place] = ask
                    self._paced[berth.topic] = now + PACE_SECONDS
                case _:
                    self._desk.submit(berth, ask)
        return self._commit(commits)

    def _may_ask(self, berth: Berth, now: float, cut_now: bool) -> bool:
        lane = berth.lane
        if lane.phase is Phase.GATHERING and lane.gathered:
            if self._trouble or sum(other.writing for other in self._berths.values()) >= BLOCKS_AT_ONCE:
                return False
            return cut_now or lane.full or now >= self._paced.get(berth.topic, 0.0)
        if lane.phase in (Phase.OPENING, Phase.LOOKING, Phase.INSERTING):
            return self._desk.free and (not self._trouble or now >= self._retry_at)
        return True

    def _commit(self, commits: dict[Place, Commit]) -> bool:
        if not commits:
            return False
        self._at("before intent")
        done = self._inputs.commit({place: self._position(place, commit) for place, commit in commits.items()})
        self._at("after intent")
        now = time.monotonic()
        for place, commit in commits.items():
            if place in done:
                self._berths[place].lane.committed(commit, now)
            else:
                self._berths[place].lane.uncommitted(now)
        return bool(done)

    def _position(self, place: Place, commit: Commit) -> Position:
        metadata = Metadata(self._inputs.topic_id(place[0]))
        if commit.intent is not None:
            intent = commit.intent
            metadata = replace(metadata, to=intent.end, lease=intent.lease_seconds, look=intent.look)
        return Position(commit.offset, metadata)

    def _flow(self, *, closed: bool) -> None:
        """Fetch what there is room for. A lane that rebuilds a block always has: only the whole of it can be inserted.

        Pausing drops what was fetched ahead, so it is done seldom and for long: at the full measure, until half of it is free.
        """
        self._crowded = self.held_blocks > (HELD_BLOCKS / 2 if self._crowded else HELD_BLOCKS)
        wanted = {place: self._is_shut(berth, closed) for place, berth in self._berths.items()}
        self._inputs.pause(place for place, shut in wanted.items() if shut and not self._berths[place].paused)
        self._inputs.resume(place for place, shut in wanted.items() if not shut and self._berths[place].paused)
        for place, shut in wanted.items():
            self._berths[place].paused = shut

    def _is_shut(self, berth: Berth, closed: bool) -> bool:
        """One that waits for long holds no more than its block and the next, so that it leaves room for the others."""
        lane = berth.lane
        if closed or lane.phase is Phase.REBUILDING:
            return closed
        return (self._crowded and bool(lane.gathered)) or (berth.waits and lane.full)

    def _report(self) -> None:
        if reason := self._why_not_ready():
            self._telemetry.health.not_ready(reason)
        else:
            self._telemetry.health.ready()
        self._lag_report.turn()
        if (now := time.monotonic()) >= self._identity_due:
            self._identity_due = now + self._settings.runner.identity_check_seconds
            self._inputs.identity.ask()
        self._inputs.identity.look()

    def _why_not_ready(self) -> str:
        if not self._inputs.joined:
            return "waiting for an assignment"
        if self._trouble:
            return f"ClickHouse: {self._trouble}"
        if self._inputs.identity.silent:
            return "Kafka does not answer"
        if self._inputs.uncommitted:
            return f"Kafka took no commit: {self._inputs.uncommitted}"
        return next((reason for berth in self._berths.values() if (reason := berth.why_not_ready())), "")

    def _lag(self) -> dict[tuple[str, int], tuple[int, float]]:
        """Records that are not in their tables yet, and how old the oldest known one is; without partitions whose end was never told."""
        now_ms = time.time() * 1_000
        lag = {}
        for place, berth in self._berths.items():
            if (end := self._inputs.log_ends.known(place)) is None:
                continue
            behind = max(0, end - berth.lane.start)
            oldest = berth.lane.oldest_ms()
            lag[(berth.topic, berth.partition)] = (behind, max(0.0, now_ms - oldest) / 1_000 if behind and oldest else 0.0)
        return lag

    def _drain(self) -> None:
        """Insert what is gathered and commit it, within the deadline; what did not end is left as an open intent."""
        self._telemetry.emit(Draining(signal=self._stopping))
        self._telemetry.health.not_ready("stopping")
        deadline = time.monotonic() + self._settings.runner.revoke_deadline_seconds
        while not all(berth.lane.idle or berth.waits for berth in self._berths.values()) and time.monotonic() < deadline:
            self._turn(cut_now=True)
        self._inputs.close()
        self._desk.close()

    def _await(self, berths: Iterable[Berth], deadline: float) -> None:
        """Hear the answers under way, until the deadline."""
        for berth in berths:
            if berth.answer is not None:
                try:
                    self._tell(berth, berth.answer.result(max(0.0, deadline - time.monotonic())))
                except TimeoutError:
                    continue

    def _begin(self, positions: Mapping[Place, Position]) -> dict[Place, int]:
        """Read on from the committed offsets, or from where the log begins, where that is later."""
        self._log_starts = self._starts(positions)
        return {place: max(position.offset, self._log_starts[place]) for place, position in positions.items()}

    def _starts(self, positions: Mapping[Place, Position]) -> dict[Place, int]:
        """Where each log begins."""
        deadline = time.monotonic() + STARTS_SECONDS
        starts = self._inputs.starts(positions)
        while len(starts) < len(positions):
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka did not tell where {', '.join(map(str, sorted(set(positions) - set(starts))))} begins")
            time.sleep(0.2)
            starts = self._inputs.starts(positions)
        return starts

    def _berth(self, place: Place, position: Position, log_start: int) -> Berth:
        topic, partition = self._inputs.short(place[0]), place[1]
        known = position.metadata
        intent = Intent(position.offset, known.to, known.lease, known.look) if known.to else None
        if log_start > position.offset:
            intent = self._cope(topic, partition, position.offset, log_start, intent)
        lane = Lane(position.offset, intent, self._limits)
        if log_start > position.offset:
            lane.reach(log_start)
        return Berth(topic, self._inputs.topic_id(place[0]), partition, lane)

    def _cope(self, topic: str, partition: int, start: int, log_start: int, intent: Intent | None) -> Intent:
        """The log dropped records of an open intent: settle it by looking, with what is left. Raises OffsetsLost for any others."""
        if intent is None or log_start > intent.end:
            raise OffsetsLost(
                f"{topic}/{partition}: records {start} to {log_start} were dropped by the log's retention before they were archived. "
                f"{REMEDIES.lost}"
            )
        self._telemetry.emit(RecordsGone(topic=topic, partition=partition, start=start, end=log_start))
        return replace(intent, look=True)

    def _by_topic(self, places: list[Place]) -> dict[str, list[int]]:
        topics: dict[str, list[int]] = {}
        for name, number in sorted(places):
            topics.setdefault(self._inputs.short(name), []).append(number)
        return topics


def limits_of(settings: ArchiverSettings) -> Limits:
    """The settings as the lanes know them."""
    return Limits(
        block_rows=settings.block_rows,
        block_bytes=settings.block_bytes,
        block_seconds=settings.block_seconds,
        lease_seconds=settings.lease_seconds,
        insert_seconds=settings.insert_timeout_seconds,
        retry_seconds=settings.retry_seconds,
    )


if __name__ == "__main__":
    main(ROLE, Archiver)
