"""Which of librdkafka's keys a user may set in ``[kafka.client]``: all but those that millrace sets itself.

They are refused rather than overridden: taken over, some would break a guarantee; dropped in silence, each would be an option
without effect. Aliases stand here too, because librdkafka takes the one that comes last.
"""

from __future__ import annotations

from collections.abc import Iterable

ELSEWHERE = {
    "bootstrap.servers": "kafka.address",
    "metadata.broker.list": "kafka.address",
    "session.timeout.ms": "runner.session_timeout_seconds",
    "heartbeat.interval.ms": "runner.session_timeout_seconds, of which it is a tenth",
    "max.poll.interval.ms": "runner.max_poll_interval_seconds",
    "transaction.timeout.ms": "runner.transaction_timeout_seconds",
    "queued.max.messages.kbytes": "runner.fetch_queue_bytes or archiver.fetch_queue_bytes",
    "group.id": "topic_prefix, which stands before every group",
    "group.instance.id": "topic_prefix and ordinal, of which it is made",
    "transactional.id": "topic_prefix and ordinal, of which it is made",
}
"""What has a setting of its own."""

GUARANTEES = frozenset(
    {
        "acks",
        "request.required.acks",
        "auto.commit.enable",
        "auto.offset.reset",
        "check.crcs",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.protocol",
        "isolation.level",
        "message.max.bytes",
        "partition.assignment.strategy",
        "partitioner",
    }
)
"""What exactly-once, order and bounded waiting rest on."""

SPEED = frozenset(
    {
        "batch.num.messages",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "linger.ms",
        "queue.buffering.max.ms",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queued.min.messages",
        "retry.backoff.ms",
    }
)
"""What is measured together: another value of one of them makes transactions wait on each other, or a poll on the network."""


def check(given: Iterable[str]) -> None:
    """Raise ValueError for the first key that a user may not set, with what to do instead."""
    for key in sorted(given):
        if key in ELSEWHERE:
            raise ValueError(f"`{key}` in [kafka.client] has a setting of its own: use {ELSEWHERE[key]}")
        if key in GUARANTEES:
            raise ValueError(f"`{key}` in [kafka.client] is set by millrace, because its guarantees rest on it: leave it out")
        if key in SPEED:
            raise ValueError(f"`{key}` in [kafka.client] is set by millrace, because its speed rests on it: leave it out")
