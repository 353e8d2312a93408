"""The one loop of every data-plane worker: one poll is one transaction.

The order of a turn, of which the commit is the last step and the only one that commits:

1. gather: block for a first record, then take what arrives within a few milliseconds, at most ``poll_records`` (fewer for a slow step);
2. take in what is new on control topics: after the poll, so that a request finds what was told before it was asked;
3. decode it (this overlaps the commit of the turn before);
4. settle the turn before: wait for its commit, then write its state to disk;
5. process it: the step's events, group by group, and what time alone brings out; at times pass over what ends a log and is no record;
6. begin a transaction, if there is anything to send, and produce events, dead letters, state changes and the ``commits`` record;
7. send the offsets of every partition that was touched, with the group's generation;
8. commit.

Nothing is carried from one transaction to the next. When one does not happen, everything since the committed offsets is forgotten
and read again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from datetime import UTC, datetime

from msgspec import Struct

from millrace.infra.kafka.clients import Slot, TopicInfo, describe, full_name, transactional_producer
from millrace.infra.kafka.inputs import Inputs, Poll
from millrace.infra.kafka.positions import Place, Position
from millrace.infra.kafka.transaction import Aborted, Transactions
from millrace.infra.settings import Settings
from millrace.infra.telemetry import (
    Assigned,
    Committed,
    DeadLettered,
    Draining,
    Polled,
    ProducerReplaced,
    Revoked,
    Stage,
    Telemetry,
    Timed,
    TransactionAborted,
)
from millrace.schemas.errors import Stop
from millrace.schemas.topics import TOPICS, Topic
from millrace.streams.step import Step
from millrace.workers.controls import Controls
from millrace.workers.groups import Spot
from millrace.workers.lag import LagReport
from millrace.workers.output import Output
from millrace.workers.owned import Owned
from millrace.workers.pace import Pace
from millrace.workers.turn import Processor, Turn


class Work(Struct, frozen=True, kw_only=True):
    """What a worker does: its role, the topics it reads, and its step.

    A ``stateless`` step is given the whole poll at once and no store; any other is called for each partition group, with a store whose
    changelog is the topic ``<role>-changelog``.
    """

    role: str
    inputs: tuple[Topic, ...]
    step: Step
    controls: tuple[Topic, ...] = ()
    stateless: bool = False
    gather_seconds: float | None = None


class Runner:
    """Runs one slot's work until it is asked to stop. ``at`` is called with the name of each point that is passed."""

    def __init__(self, work: Work, settings: Settings, telemetry: Telemetry, at: Callable[[str], None] = lambda point: None) -> None:
        self._work, self._settings, self._telemetry, self._at = work, settings, telemetry, at
        self._limits = settings.runner
        self._gather_seconds = self._limits.gather_seconds if work.gather_seconds is None else work.gather_seconds
        self.slot = Slot(work.role, settings.ordinal)
        self._transactions = self._new_transactions()
        self._inputs = Inputs(settings, self.slot, work.inputs, self)
        self._controls = Controls(settings, work.controls, work.role, work.step, telemetry)
        self._processor = Processor(work.role, self.slot, work.step, work.inputs, settings, self._controls)
        self._owned = Owned(settings, self.slot, work.inputs, self._inputs, telemetry)
        self._infos: dict[str, TopicInfo] = {}
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._committing: Future[float] | None = None
        self._sent: Turn | None = None
        self._counts: Counter[str] = Counter()
        self._aborted: Aborted | None = None
        self._lag_report = LagReport(self._inputs, telemetry, self._owned.lag)
        self._pace = Pace(self._limits.poll_records, self._limits.max_poll_interval_seconds)
        self._due = {"identity": 0.0, "tick": 0.0, "ends": 0.0}
        self._stopping = ""

    def stop(self, why: str) -> None:
        """Finish the turn, commit it and end."""
        self._stopping = why

    def run(self) -> None:
        """Work until ``stop``; raises Stop where going on could lose or double something."""
        self._infos = describe(self._settings, [full_name(self._settings, topic) for topic in TOPICS] + [self._owned.changelog])
        self._check_topics()
        if not self._work.stateless:
            self._owned.changelog_id = self._infos[self._owned.changelog].topic_id
        self._output = Output(self._settings, self._transactions, self._infos)
        self._transactions.start()
        self._controls.start()
        self._inputs.start()
        while not self._stopping:
            self._turn()
        self._drain()

    def assigned(self, positions: dict[Place, Position]) -> None:
        """Begin with newly assigned partitions: from inside a poll, after what was owned before was given up."""
        began = time.monotonic()
        self._owned.take(positions)
        self._telemetry.emit(Assigned(partitions=_by_topic(positions), seconds=time.monotonic() - began))

    def revoked(self, places: list[Place], *, lost: bool) -> None:
        """Finish or give up what is under way, within one deadline, and let go of the partitions.

        Of lost partitions the transaction is aborted, unless its commit was sent already: the next owner waits for it to be decided
        either way, and nobody but Kafka can say what a sent one came to. So that is waited for, as for any revoke.
        """
        if lost and self._committing is not None:
            self._transactions.forsake()
        try:
            self._settle(self._limits.revoke_deadline_seconds)
        except Aborted as error:
            self._aborted = error
        except NotDone:
            raise Stop("the commit was not answered within the revoke deadline; the next owner resolves it") from None
        self._owned.give_up({number for _, number in places})
        self._telemetry.emit(Revoked(partitions=_by_topic(places), lost=lost))

    def _turn(self) -> None:
        self._telemetry.health.beat()
        self._owned.retry()
        try:
            poll = self._gather()
            if self._controls.follow():
                self._owned.allow(self._processor.allowed)
            self._work_on(poll)
        except Aborted as error:
            self._recover(error)
        self._report()

    def _gather(self) -> Poll:
        restoring = self._owned.restore()
        began = time.monotonic()
        poll = self._inputs.poll(self._pace.records, 0.0 if restoring else self._limits.idle_seconds, self._gather_seconds)
        if self._aborted is not None:
            error, self._aborted = self._aborted, None
            raise error
        if poll.records:
            counts = Counter(record.topic for record in poll.records)
            self._telemetry.emit(Polled(records=counts, seconds=time.monotonic() - began))
        self._owned.reached(poll.ends)
        return poll

    def _work_on(self, poll: Poll) -> None:
        with self._timed(Stage.DECODE, poll):
            undecodable = self._processor.decode(poll.records)
        self._settle()
        now, began = datetime.now(UTC), time.monotonic()
        with self._timed(Stage.PROCESS, poll):
            if self._work.stateless:
                turn = self._processor.whole(poll.records, undecodable, self._owned.groups, now)
            else:
                turn = self._grouped(poll, undecodable, now)
        self._pace.took(turn.records, time.monotonic() - began)
        for group, hold in turn.holds:
            self._owned.hold(group, hold)
        if self._is_due("ends", self._limits.identity_check_seconds):
            self._processor.pass_over(self._owned.read_out(), turn)
        if turn.touched:
            with self._timed(Stage.PRODUCE, poll):
                self._send(turn)

    def _grouped(self, poll: Poll, undecodable: dict[Spot, str], now: datetime) -> Turn:
        """One call for each group, with all its records whose turn is certain by now."""
        self._owned.push(poll.records)
        working = [group for _, group in sorted(self._owned.groups.items()) if group.working]
        ready = [group.ready(()) for group in working]
        tick = self._is_due("tick", self._limits.tick_seconds)
        quiet, asked_ms = self._owned.quiet(working if tick else [group for group in working if group.waiting()])
        turn = Turn(now)
        for group, records in zip(working, ready, strict=True):
            silent = quiet.get(group.number, set())
            self._processor.group(group, records + group.ready(silent), undecodable, turn, quiet=silent, quiet_ms=asked_ms)
            self._owned.crowd(group)
        return turn

    def _send(self, turn: Turn) -> None:
        self._at("before produce")
        self._transactions.begin()
        self._counts = self._output.emit(turn.emits)
        for group in turn.touched:
            if group.store is not None:
                group.writes, group.changelog_end = group.store.take(), -1
                self._output.changelog(self._owned.changelog, group.number, group.writes, group.delivered)
        self._output.emit([self._processor.commit_record(turn)])
        self._at("after produce")
        positions = {place: position for group in turn.touched for place, position in group.positions.items()}
        self._sent = turn
        self._committing = self._committer.submit(self._commit, positions, self._inputs.group_metadata)

    def _commit(self, positions: Mapping[Place, Position], metadata: object) -> float:
        began = time.monotonic()
        self._transactions.commit(positions, metadata, flush=not self._work.stateless)
        return time.monotonic() - began

    def _settle(self, deadline_seconds: float | None = None) -> None:
        """Wait for the commit under way, then write the state it made durable. Raises Aborted, Stop, or NotDone after the deadline."""
        if self._committing is None or self._sent is None:
            return
        seconds = self._answer(self._committing, deadline_seconds)
        turn, self._committing, self._sent = self._sent, None, None
        for group in turn.touched:
            group.settle(self._owned.changelog_id)
        self._telemetry.emit(Committed(events=self._counts, seconds=seconds))
        for letters in turn.dead_letters():
            self._telemetry.emit(DeadLettered(**letters))

    def _answer(self, committing: Future[float], deadline_seconds: float | None) -> float:
        """Wait for a commit; whoever watches is told when that takes long."""
        deadline = math.inf if deadline_seconds is None else time.monotonic() + deadline_seconds
        while True:
            try:
                return committing.result(max(0.0, min(self._limits.silence_seconds, deadline - time.monotonic())))
            except NotDone:
                if time.monotonic() >= deadline:
                    raise
            self._telemetry.health.not_ready("Kafka does not answer: a commit is under way")
            if self._transactions.stuck:
                self._take_over()

    def _take_over(self) -> None:
        """Begin with a new producer beside a call that never returns: its start fences the old one and waits until all is decided."""
        reason = "a call to Kafka did not return"
        self._transactions.abandon()
        self._telemetry.emit(ProducerReplaced(reason=reason))
        self._transactions, self._committer = self._new_transactions(), ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._output = Output(self._settings, self._transactions, self._infos)
        self._transactions.start()
        raise Aborted(f"{reason}; the producer was replaced")

    def _new_transactions(self) -> Transactions:
        patience, emit = self._limits.commit_patience_seconds, self._telemetry.emit
        return Transactions(lambda: transactional_producer(self._settings, self.slot), patience, self._at, emit)

    def _recover(self, error: Aborted) -> None:
        """Forget everything since the committed offsets, and read it again."""
        self._telemetry.emit(TransactionAborted(reason=str(error)))
        self._committing = self._sent = None
        self._transactions.abort()
        self._owned.begin_again(self._inputs.committed())

    def _report(self) -> None:
        """Readiness, and from time to time lag and the identity of the topics."""
        reason = self._why_not_ready()
        if reason:
            self._telemetry.health.not_ready(reason)
        else:
            self._telemetry.health.ready()
        self._lag_report.turn()
        if self._is_due("identity", self._limits.identity_check_seconds):
            self._inputs.identity.ask()
        self._inputs.identity.look()

    def _why_not_ready(self) -> str:
        if not self._inputs.joined:
            return "waiting for an assignment"
        if self._inputs.identity.silent:
            return "Kafka does not answer"
        return self._owned.why_not_ready()

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._due[what] < seconds:
            return False
        self._due[what] = now
        return True

    def _timed(self, stage: Stage, poll: Poll) -> _Timer:
        return _Timer(self._telemetry, stage, counts=bool(poll.records))

    def _check_topics(self) -> None:
        needed = {full_name(self._settings, topic) for topic in TOPICS} | (set() if self._work.stateless else {self._owned.changelog})
        missing = sorted(needed - set(self._infos))
        if missing:
            raise Stop(f"topics do not exist: {', '.join(missing)}. Run `millrace provision`.")

    def _drain(self) -> None:
        self._telemetry.emit(Draining(signal=self._stopping))
        self._telemetry.health.not_ready("stopping")
        try:
            self._settle()
            self._leave()
        except Aborted as error:
            self._telemetry.emit(TransactionAborted(reason=str(error)))
        self._inputs.close()
        self._controls.close()
        self._transactions.close()
        self._committer.shutdown()
        self._owned.give_up(list(self._owned.groups))

    def _leave(self) -> None:
        """Stand behind what was read, because nobody knows for how long: the markers that logs end with may be gone by then."""
        turn = Turn(datetime.now(UTC))
        self._processor.pass_over(self._owned.read_out(), turn)
        if turn.touched:
            self._send(turn)
            self._settle()


class _Timer:
    """Times a stage of a turn that has records."""

    def __init__(self, telemetry: Telemetry, stage: Stage, *, counts: bool) -> None:
        self._telemetry, self._stage, self._counts = telemetry, stage, counts

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *raised: object) -> None:
        if self._counts:
            self._telemetry.emit(Timed(stage=self._stage, seconds=time.monotonic() - self._began))


def _by_topic(places: Iterable[Place]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for topic, number in sorted(places):
        topics.setdefault(topic, []).append(number)
    return topics
