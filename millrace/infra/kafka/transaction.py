"""One slot's transactions: begin, produce, offsets, commit, and what to do when an answer does not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from millrace.infra.kafka.positions import Place, Position, with_metadata
from millrace.infra.kafka.triage import Verdict, verdict
from millrace.infra.telemetry import CommitRepeated, ProducerReplaced
from millrace.infra.telemetry.event import InternalEvent
from millrace.schemas.errors import Fenced, MillraceError, Stop

Delivery = Callable[[Any, Any], None]
CALL_SECONDS = 5.0
STUCK_SECONDS = 2 * CALL_SECONDS
"""After this a call is taken never to return: ``send_offsets_to_transaction`` does not keep its time-out (librdkafka issue 5456)."""
REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""Errors whose flags say abort, but which the same records would meet again."""


class Aborted(MillraceError):
    """The transaction did not happen, or is unknown and was resolved by a new producer: rewind to the committed offsets."""


class Transactions:
    """The transactional producer of a slot. At most one transaction is open; it begins with the first record that is produced.

    ``make`` builds the producer, and builds it anew after a commit whose fate stayed unknown for ``patience_seconds``: the new one's
    ``init_transactions`` fences the old one and waits until the broker has decided. ``at`` is called with the name of each point
    that is passed; tests kill the process there. ``tell`` is told of what was repeated or replaced.
    """

    def __init__(
        self,
        make: Callable[[], Producer],
        patience_seconds: float,
        at: Callable[[str], None] = lambda point: None,
        tell: Callable[[InternalEvent], None] = lambda event: None,
    ) -> None:
        self._make = make
        self._patience_seconds = patience_seconds
        self._at = at
        self._tell = tell
        self._producer = make()
        self._produce: Callable[..., None] = self._producer.produce
        self._open = False
        self._since: float | None = None
        self._abandoned = False
        self._deciding = threading.Lock()
        self._forsaken = self._commit_sent = False

    @property
    def stuck(self) -> bool:
        """Whether a call to Kafka has overrun every time-out: asked from another thread."""
        since = self._since
        return since is not None and time.monotonic() - since > STUCK_SECONDS

    def abandon(self) -> None:
        """Let go of a call that does not return, from another thread: should it ever, it goes no further. Another object takes over."""
        self._abandoned = True

    def forsake(self) -> bool:
        """Have the commit under way aborted instead, from another thread: its partitions are lost. False where it was sent already.

        True is certain: it will not be sent, and the call of ``commit`` raises Aborted. Once it was sent it cannot be taken back: it is
        then for Kafka to say what became of it, and the partitions' next owner begins where that leaves the group.
        """
        with self._deciding:
            self._forsaken = not self._commit_sent
        self._at("forsaken" if self._forsaken else "too late to forsake")
        return self._forsaken

    def start(self) -> None:
        """Fence whoever held this slot, and wait until its pending transaction is decided. Waits for the broker as long as it takes."""
        while self._attempt(lambda: self._producer.init_transactions(CALL_SECONDS)) is not None:
            time.sleep(0.2)

    def begin(self) -> None:
        """Open a transaction, unless one is open."""
        if not self._open:
            self._call("begin", self._producer.begin_transaction)
            self._open, self._forsaken, self._commit_sent = True, False, False

    def produce(
        self, topic: str, value: bytes | None, key: Any, headers: Any, partition: int = -1, delivered: Delivery | None = None
    ) -> None:
        """Hand one record to the open transaction; waits while the client's queue is full. Raises Aborted."""
        try:
            if delivered is None:
                self._produce(topic, value, key, partition, headers=headers)
            else:
                self._produce(topic, value, key, partition, headers=headers, on_delivery=delivered)
        except BufferError:
            self._wait_for_room()
            self.produce(topic, value, key, headers, partition, delivered)
        except KafkaException as error:
            self._refuse(self._told(error), "produce")

    def commit(self, positions: Mapping[Place, Position], group: Any, *, flush: bool = False) -> None:
        """Commit what was produced together with the group's positions; raises Aborted (also where it was forsaken), Fenced or Stop.

        ``flush`` waits for delivery reports first, for a caller that needs the offsets of what it produced.
        """
        self._at("before offsets")
        offsets = [with_metadata(place, position) for place, position in positions.items()]
        self._unless_forsaken()
        self._call("offsets", lambda: self._producer.send_offsets_to_transaction(offsets, group, CALL_SECONDS))
        self._at("after offsets")
        self._unless_forsaken()
        if flush:
            self._producer.flush(self._patience_seconds)
        self._at("before commit")
        with self._deciding:
            self._commit_sent = not self._forsaken
        self._unless_forsaken()
        self._call("commit", lambda: self._producer.commit_transaction(CALL_SECONDS))
        self._open = False
        self._at("after commit")

    def abort(self) -> None:
        """Give up the open transaction, if there is one; where that stays unanswered, a new producer's start does it."""
        if self._open:
            with suppress(Aborted):
                self._call("abort", lambda: self._producer.abort_transaction(CALL_SECONDS))
            self._open = False

    def close(self) -> None:
        """Abort what is open and let go of the producer."""
        self.abort()
        self._producer.close()

    def _unless_forsaken(self) -> None:
        if self._forsaken:
            self.abort()
            raise Aborted("its partitions were lost before it was committed")

    def _told(self, error: KafkaException) -> KafkaException:
        """A producer that is given a record after a fatal error says no more than that; a call about its transaction tells which it was."""
        if error.args[0].code() == KafkaError._FATAL:
            try:
                self._producer.abort_transaction(CALL_SECONDS)
            except KafkaException as told:
                return told
        return error

    def _wait_for_room(self) -> None:
        """Wait until part of the queue was sent."""
        full, deadline = len(self._producer), time.monotonic() + self._patience_seconds
        while len(self._producer) >= full:
            if time.monotonic() > deadline:
                raise Stop(
                    "Kafka takes no records: the producer's queue stayed full. Check that the brokers are up, then restart the worker."
                )
            self._producer.poll(0.05)

    def _call(self, name: str, call: Callable[[], Any]) -> None:
        """Repeat a call until it is answered or patience has run out; one that was frozen in it has not waited that long."""
        attempt, left_seconds = 1, self._patience_seconds
        while True:
            began = time.monotonic()
            if (unanswered := self._attempt(call, name)) is None:
                return
            left_seconds -= min(time.monotonic() - began, CALL_SECONDS)
            if left_seconds < 0:
                self._replace(f"the answer to {name} stayed unknown: {unanswered.str()}")
                raise Aborted(f"the answer to {name} stayed unknown; the producer was replaced")
            if name == "offsets":
                self._unless_forsaken()
            attempt += 1
            if name == "commit":
                self._tell(CommitRepeated(attempt=attempt, code=unanswered.name()))

    def _attempt(self, call: Callable[[], Any], name: str = "init") -> KafkaError | None:
        """Make a call; the error after which it is to be repeated, or None."""
        self._since = time.monotonic()
        try:
            call()
        except KafkaException as error:
            if verdict(error.args[0]) is not Verdict.RETRY:
                self._refuse(error, name)
            problem: KafkaError = error.args[0]
            return problem
        finally:
            self._since = None
            if self._abandoned:
                raise Aborted("a call returned after it was given up")
        return None

    def _refuse(self, error: KafkaException, name: str) -> None:
        problem = error.args[0]
        match verdict(problem):
            case Verdict.FENCED:
                raise Fenced(
                    f"transaction {name}: another process runs in this slot, or Kafka was away for longer than the transaction "
                    f"lived ({problem.str()}). Start it again; give each worker its own ordinal."
                )
            case Verdict.ABORT if name != "abort":
                self._open = True
                self.abort()
                if problem.code() in REFUSED:
                    raise Stop(f"Kafka refuses what was produced, and would again: {problem.str()} ({problem.name()})")
                raise Aborted(f"transaction {name}: {problem.str()}")
            case _:
                raise Stop(f"transaction {name}: {problem.name()}: {problem.str()}")

    def _replace(self, why: str) -> None:
        self._tell(ProducerReplaced(reason=why))
        abandoned, self._producer = self._producer, self._make()
        self._produce = self._producer.produce
        abandoned.purge()
        self._open = False
        self.start()
