"""What a Kafka error asks for, read from its flags and not from its name."""

from __future__ import annotations

from enum import Enum, auto

from confluent_kafka import KafkaError

FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.FENCED_INSTANCE_ID})


PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""What a reader meets while brokers start, move or do not answer. Only transactional calls carry flags; these are told by their codes."""


FORBIDDEN = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_COMMIT_OFFSET_SIZE,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
"""What a commit without a transaction meets that no repeat can mend."""


def passing(error: KafkaError) -> bool:
    """Whether the same read may succeed a moment later."""
    return not error.fatal() and (error.retriable() or error.code() in PASSING)


def fenced(error: KafkaError) -> bool:
    """Whether another process took this identity. A consumer tells its fatal errors as ``_FATAL``, with their own text."""
    if error.code() == KafkaError._FATAL:
        return any(KafkaError(code).str() in error.str() for code in FENCED)
    return error.code() in FENCED


class Verdict(Enum):
    """What to do about an error: nothing less than what its flags say."""

    FENCED = auto()
    """Another process took this identity: stop at once."""
    FATAL = auto()
    """The client cannot go on: stop the process."""
    ABORT = auto()
    """Abort the transaction, rewind and begin again."""
    RETRY = auto()
    """Repeat the same call."""


def verdict(error: KafkaError) -> Verdict:
    """Triage by flags: fatal, abort, retriable; an error with none of them is fatal."""
    if error.fatal():
        return Verdict.FENCED if error.code() in FENCED else Verdict.FATAL
    if error.txn_requires_abort():
        return Verdict.ABORT
    if error.retriable():
        return Verdict.RETRY
    return Verdict.FENCED if error.code() in FENCED else Verdict.FATAL
