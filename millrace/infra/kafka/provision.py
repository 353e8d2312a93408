"""Making the topics, and giving every group an explicit start offset on every partition it reads.

Everything here can be run again, and beside running workers: what exists is checked and left as it is. So "first start" and
"offsets were lost" are never confused: a worker that finds no committed offset stops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]  # exported, not in its __all__
from msgspec import Struct, field

from millrace.infra.kafka.answers import ANSWER_SECONDS, result
from millrace.infra.kafka.clients import TopicInfo, admin, describe, full_name
from millrace.infra.kafka.offsets import Start, commit_absent
from millrace.infra.settings import Settings
from millrace.schemas.errors import SettingsError, Unavailable
from millrace.schemas.limits import Limits
from millrace.schemas.topics import READERS, STATEFUL, TOPICS, Kind, Topic, changelog

DAY_MS = 86_400_000
COMPACTION_LAG_DAYS = 3
TOMBSTONE_DAYS = 7
"""How long a deletion stays in a compacted topic (``delete.retention.ms``): local state older than half of it is wiped."""
ALREADY_EXISTS = "TOPIC_ALREADY_EXISTS"


class Change(Struct, frozen=True):
    """One thing that provisioning made: a topic, or a group's start offsets on a topic."""

    kind: str
    name: str
    detail: str


class Wanted(Struct, frozen=True):
    """What is provisioned: topics, which role reads which, and the changelogs of workers with keyed state."""

    topics: Sequence[Topic] = TOPICS
    readers: Mapping[str, Sequence[Topic]] = field(default_factory=lambda: READERS)
    changelogs: Sequence[str] = ()


EVERYTHING = Wanted(changelogs=tuple(changelog(role) for role in STATEFUL))


def provision(settings: Settings, wanted: Wanted = EVERYTHING, start: Start = Start.EARLIEST) -> list[Change]:
    """Make what is missing and say what was made; nothing for a second run.

    A first start is at the log's start, because no decision may be lost. Raises SettingsError where an existing topic is not
    what the settings say, OffsetsLost where a group has worked before and its offsets are gone, Unavailable without Kafka.
    """
    client = admin(settings)  # kept until its futures are done
    plans = [_topic(settings, topic) for topic in wanted.topics] + [_changelog(settings, name) for name in wanted.changelogs]
    known = describe(settings, [plan.topic for plan in plans])
    made = _create(client, [plan for plan in plans if plan.topic not in known])
    existing = _wait_for(settings, [plan.topic for plan in plans])
    _check(client, [plan for plan in plans if plan.topic not in made], {name: info.partitions for name, info in existing.items()})
    changes = [Change("topic", plan.topic, f"{plan.num_partitions} partitions") for plan in plans if plan.topic in made]
    for role, topics in wanted.readers.items():
        infos = _infos(role, [full_name(settings, topic) for topic in topics], existing)
        for name, count in commit_absent(settings, role, infos, made, start).items():
            changes.append(Change("offsets", f"{settings.topic_prefix}{role}", f"{name}: {count} partitions from {start.value}"))
    return changes


def _infos(role: str, names: list[str], existing: Mapping[str, TopicInfo]) -> dict[str, TopicInfo]:
    for name in names:
        if name not in existing:
            raise SettingsError(f"{role} reads {name}, which is not among the topics that are provisioned: name it there too")
    return {name: existing[name] for name in names}


def topic_config(topic: Topic, limits: Limits, replication: int) -> dict[str, str]:
    """The configuration of one of our topics."""
    return _common(replication) | _kept(topic) | {"max.message.bytes": str(_record_bytes(topic, limits))}


def _common(replication: int) -> dict[str, str]:
    return {
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(max(1, replication - 1)),
        "compression.type": "producer",
    }


def _kept(topic: Topic) -> dict[str, str]:
    match topic.kind:
        case Kind.LOG | Kind.FOLLOWED:
            return {"cleanup.policy": "delete", "retention.ms": str(topic.retention_days * DAY_MS)}
        case Kind.CONTROL:
            return {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
        case Kind.COMPACTED:
            return _compacted(COMPACTION_LAG_DAYS)


def _compacted(lag_days: int) -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(lag_days * DAY_MS),
        "delete.retention.ms": str(TOMBSTONE_DAYS * DAY_MS),
    }


def _record_bytes(topic: Topic, limits: Limits) -> int:
    """A topic takes more where the limit of a public record was raised: predictions and dead letters carry it on."""
    return math.ceil(topic.record_bytes * max(1.0, limits.record_bytes / Limits().record_bytes))


def _topic(settings: Settings, topic: Topic) -> NewTopic:
    return NewTopic(
        full_name(settings, topic),
        1 if topic.one_partition else settings.kafka.partitions,
        settings.kafka.replication,
        config=topic_config(topic, settings.limits, settings.kafka.replication),
    )


def _changelog(settings: Settings, name: str) -> NewTopic:
    """State's log is for its worker alone: no archive needs its history, so it is compacted without a lag."""
    config = _common(settings.kafka.replication) | _compacted(0) | {"max.message.bytes": str(8 << 20)}
    return NewTopic(full_name(settings, name), settings.kafka.partitions, settings.kafka.replication, config=config)


def _create(client: AdminClient, plans: list[NewTopic]) -> frozenset[str]:
    """Create topics; the names of those that this call made, and not another provisioning beside it."""
    made = set()
    futures = client.create_topics(plans, operation_timeout=ANSWER_SECONDS, request_timeout=ANSWER_SECONDS) if plans else {}
    for name, future in futures.items():
        try:
            result(future, f"creating topic {name}")
        except Unavailable as error:
            if ALREADY_EXISTS not in str(error):
                raise
            continue
        made.add(name)
    return frozenset(made)


def _wait_for(settings: Settings, names: list[str]) -> dict[str, TopicInfo]:
    """All topics as they are; a new one takes a moment until every broker knows it."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while missing := set(names) - (found := describe(settings, names)).keys():
        if time.monotonic() > deadline:
            raise Unavailable(f"Kafka made the topics {', '.join(sorted(missing))} but does not show them after {ANSWER_SECONDS:g} s")
        time.sleep(0.1)
    return found


def _check(client: AdminClient, plans: list[NewTopic], partitions: Mapping[str, int]) -> None:
    for plan in plans:
        if partitions[plan.topic] != plan.num_partitions:
            raise SettingsError(
                f"topic {plan.topic} has {partitions[plan.topic]} partitions and the settings say {plan.num_partitions}. The number"
                " is fixed for a topic's life: set kafka.partitions to the topic's, or take another topic_prefix."
            )
    if plans:
        _check_configs(client, plans)


def _check_configs(client: AdminClient, plans: list[NewTopic]) -> None:
    resources = {plan.topic: ConfigResource(ConfigResource.Type.TOPIC, plan.topic) for plan in plans}
    futures = client.describe_configs(list(resources.values()), request_timeout=ANSWER_SECONDS)
    for plan in plans:
        found: Any = result(futures[resources[plan.topic]], f"reading the configuration of topic {plan.topic}")
        for key, value in _required(plan).items():
            if found[key].value != value:
                raise SettingsError(
                    f"topic {plan.topic} has {key}={found[key].value} and must have {value}. Set it with"
                    f" kafka-configs.sh --alter --entity-type topics --entity-name {plan.topic} --add-config {key}={value}"
                )


def _required(plan: NewTopic) -> dict[str, str]:
    """What must hold whatever an operator changes: time, how it is kept, and that control topics are kept whole."""
    config = plan.config or {}
    whole = ("retention.ms", "retention.bytes") if config.get("retention.ms") == "-1" else ()
    return {key: config[key] for key in ("message.timestamp.type", "cleanup.policy", *whole)}
