"""What a transaction does with each kind of answer: triage by the error's flags, and never a guess about a commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from millrace.infra.kafka import transaction
from millrace.infra.kafka.transaction import Aborted, Transactions
from millrace.infra.kafka.triage import Verdict, fenced, verdict
from millrace.infra.telemetry import CommitRepeated, ProducerReplaced
from millrace.infra.telemetry.event import InternalEvent
from millrace.schemas.errors import Fenced, Stop
from tests.stack import wait_until


def error(code: int, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "because", fatal=fatal, retriable=retriable, txn_requires_abort=abort))


TIMED_OUT = error(KafkaError._TIMED_OUT, retriable=True)
ABORTABLE = error(KafkaError.INVALID_TXN_STATE, abort=True)
TOO_LARGE = error(KafkaError.MSG_SIZE_TOO_LARGE, abort=True)
FENCED = error(KafkaError._FENCED, fatal=True)
BARE = error(KafkaError.INVALID_TXN_STATE)


class Scripted:
    """A producer whose calls answer as a test says: ``answers[name]`` holds errors to raise, in turn; then all is well."""

    def __init__(self, **answers: list[KafkaException | BufferError]) -> None:
        self.calls: list[str] = []
        self.answers = answers
        self.queue = 0
        self.block: dict[str, Callable[[], None]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: object, **more: object) -> None:
            self.calls.append(name)
            self.block.get(name, lambda: None)()
            if left := self.answers.get(name):
                raise left.pop(0)

        return call

    def __len__(self) -> int:
        return self.queue


def transactions(*producers: Scripted, patience: float = 5.0) -> tuple[Transactions, list[InternalEvent]]:
    told: list[InternalEvent] = []
    left = list(producers)
    made = Transactions(lambda: left.pop(0), patience, tell=told.append)  # type: ignore[arg-type,return-value]  # scripted
    return made, told


def commit(made: Transactions) -> None:
    made.begin()
    made.produce("t", b"v", b"k", None)
    made.commit({}, None)


def test_the_order_of_a_transaction() -> None:
    one = Scripted()
    made, told = transactions(one)
    made.start()
    commit(made)
    assert one.calls == ["init_transactions", "begin_transaction", "produce", "send_offsets_to_transaction", "commit_transaction"]
    assert told == []


def test_a_commit_whose_answer_was_lost_is_repeated() -> None:
    one = Scripted(commit_transaction=[TIMED_OUT, TIMED_OUT])
    made, told = transactions(one)
    commit(made)
    assert one.calls.count("commit_transaction") == 3
    assert told == [CommitRepeated(2, "_TIMED_OUT"), CommitRepeated(3, "_TIMED_OUT")]


def test_a_commit_that_stays_unknown_replaces_the_producer() -> None:
    one, two = Scripted(commit_transaction=[TIMED_OUT] * 3), Scripted(init_transactions=[TIMED_OUT])
    made, told = transactions(one, two, patience=0.0)
    with pytest.raises(Aborted, match="commit stayed unknown"):
        commit(made)
    assert one.calls[-1] == "purge"
    assert two.calls == ["init_transactions", "init_transactions"]
    assert [type(event) for event in told] == [ProducerReplaced]
    commit(made)
    assert two.calls[-1] == "commit_transaction"


@pytest.mark.parametrize("call", ["produce", "send_offsets_to_transaction", "commit_transaction"])
def test_an_error_that_asks_for_an_abort_aborts(call: str) -> None:
    one = Scripted()
    one.answers[call] = [ABORTABLE]
    made, _ = transactions(one)
    with pytest.raises(Aborted):
        commit(made)
    assert one.calls[-1] == "abort_transaction"
    commit(made)
    assert one.calls[-1] == "commit_transaction"


def test_what_the_same_records_would_meet_again_stops_after_the_abort() -> None:
    one = Scripted(commit_transaction=[TOO_LARGE])
    made, _ = transactions(one)
    with pytest.raises(Stop, match=r"would again.*MSG_SIZE_TOO_LARGE"):
        commit(made)
    assert one.calls[-1] == "abort_transaction"


def test_a_fenced_producer_and_an_error_without_flags_stop() -> None:
    for problem, kind in ((FENCED, Fenced), (BARE, Stop)):
        one = Scripted(commit_transaction=[problem])
        made, _ = transactions(one)
        with pytest.raises(kind):
            commit(made)
        assert "abort_transaction" not in one.calls


def test_a_producer_that_was_fenced_meanwhile_says_so_when_it_is_given_a_record() -> None:
    one = Scripted(produce=[error(KafkaError._FATAL, fatal=True)], abort_transaction=[FENCED])
    made, _ = transactions(one)
    with pytest.raises(Fenced):
        commit(made)


def test_an_abort_that_is_refused_stops() -> None:
    one = Scripted(commit_transaction=[ABORTABLE], abort_transaction=[ABORTABLE])
    made, _ = transactions(one)
    with pytest.raises(Stop, match="transaction abort"):
        commit(made)


def test_a_process_that_was_frozen_asks_again_before_it_fences_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    one, clock = Scripted(commit_transaction=[TIMED_OUT]), time.monotonic
    one.block["commit_transaction"] = lambda: monkeypatch.setattr(time, "monotonic", lambda: clock() + 3_600)
    made, told = transactions(one, patience=30.0)
    commit(made)
    assert one.calls[-2:] == ["commit_transaction", "commit_transaction"]
    assert told == [CommitRepeated(2, "_TIMED_OUT")]


def test_a_full_queue_is_waited_for() -> None:
    one = Scripted(produce=[BufferError("full")])
    one.queue = 1
    one.block["poll"] = lambda: setattr(one, "queue", 0)
    made, _ = transactions(one)
    commit(made)
    assert one.calls == ["begin_transaction", "produce", "poll", "produce", "send_offsets_to_transaction", "commit_transaction"]


def test_a_queue_that_stays_full_stops() -> None:
    one = Scripted(produce=[BufferError("full")])
    one.queue = 1
    made, _ = transactions(one, patience=0.0)
    with pytest.raises(Stop, match="queue stayed full"):
        commit(made)


def test_a_call_that_never_returns_is_seen_from_outside_and_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "STUCK_SECONDS", 0.05)
    one, returns, raised = Scripted(), threading.Event(), []
    one.block["send_offsets_to_transaction"] = lambda: (returns.wait(60), None)[1]
    made, _ = transactions(one)

    def committing() -> None:
        try:
            commit(made)
        except Aborted as problem:
            raised.append(problem)

    thread = threading.Thread(target=committing)
    thread.start()
    wait_until(lambda: one.calls[-1:] == ["send_offsets_to_transaction"] and made.stuck, 60, "stuck")
    made.abandon()
    returns.set()
    thread.join()
    assert len(raised) == 1
    assert one.calls[-1] == "send_offsets_to_transaction"
    assert not made.stuck


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "flush"])
def test_a_commit_that_is_forsaken_before_it_was_sent_is_never_sent(call: str) -> None:
    one, said = Scripted(), list[bool]()
    made, _ = transactions(one)
    one.block[call] = lambda: said.append(made.forsake())
    made.begin()
    with pytest.raises(Aborted, match="partitions were lost"):
        made.commit({}, None, flush=True)
    assert said == [True]
    assert one.calls[-2:] == [call, "abort_transaction"]
    one.block.clear()
    commit(made)
    assert one.calls[-1] == "commit_transaction"


def test_offsets_of_a_forsaken_transaction_are_not_sent_again() -> None:
    one = Scripted(send_offsets_to_transaction=[TIMED_OUT])
    made, _ = transactions(one)
    one.block["send_offsets_to_transaction"] = lambda: (made.forsake(), None)[1]
    with pytest.raises(Aborted, match="partitions were lost"):
        commit(made)
    assert one.calls[-2:] == ["send_offsets_to_transaction", "abort_transaction"]


def test_a_commit_that_was_sent_cannot_be_forsaken() -> None:
    """Unknown or not, it goes on being asked for: an abort after it might be refused, or be a lie."""
    one, said = Scripted(commit_transaction=[TIMED_OUT]), list[bool]()
    made, _ = transactions(one)
    one.block["commit_transaction"] = lambda: said.append(made.forsake())
    commit(made)
    assert said == [False, False]
    assert one.calls[-2:] == ["commit_transaction", "commit_transaction"]


def test_verdicts_come_from_flags() -> None:
    assert verdict(error(KafkaError._TIMED_OUT, retriable=True, abort=True).args[0]) is Verdict.ABORT
    assert verdict(error(KafkaError._TIMED_OUT, retriable=True, fatal=True).args[0]) is Verdict.FATAL
    assert verdict(error(KafkaError.PRODUCER_FENCED, fatal=True).args[0]) is Verdict.FENCED
    assert verdict(error(KafkaError._TIMED_OUT).args[0]) is Verdict.FATAL


def test_a_consumers_fatal_error_is_told_by_its_own_text() -> None:
    text = f"Fatal error: {KafkaError(KafkaError.FENCED_INSTANCE_ID).str()}: more"
    assert fenced(KafkaError(KafkaError._FATAL, text))
    assert not fenced(KafkaError(KafkaError._FATAL, "Fatal error: something else"))
