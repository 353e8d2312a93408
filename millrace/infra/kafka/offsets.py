"""Where a group stands: its start offsets, and setting them anew by hand.

An offset's metadata is JSON and names the topic's id, ``{"topic_id": ...}``; one that was set by hand has ``"reset": true``
as well, so that the archiver knows to look which rows are there already.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported, not in its __all__

from millrace.infra.kafka.answers import ANSWER_SECONDS, LIVE_GROUP, failed, first_error, repeated, result
from millrace.infra.kafka.clients import Slot, TopicInfo, admin, describe, full_name, group_consumer, group_name
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.schemas.commit import Commit
from millrace.schemas.errors import LiveMembers, OffsetsLost, UsageError
from millrace.schemas.topics import COMMITS
from millrace.schemas.wire import codec

Place = tuple[str, int]


class Start(Enum):
    """Where a group begins on a partition: the log's start, its end, or where the ``commits`` log says that it stopped.

    In the last case not before the log's start: what it dropped meanwhile is gone.
    """

    EARLIEST = "earliest"
    LATEST = "latest"
    COMMITS = "commits"


def commit_absent(settings: Settings, role: str, infos: Mapping[str, TopicInfo], made: Collection[str], start: Start) -> dict[str, int]:
    """Commit a start offset wherever the group has none on these topics (by full name), and say for how many partitions of each.

    ``made`` are the topics that were created just now. A group that has worked before and gets another topic, as after an upgrade, is
    waited for: a worker that ended a moment ago still counts as a member.

    Raises OffsetsLost where the role's own transactions show that it worked on such a partition before, UsageError for live members.
    """
    client = admin(settings)
    absent = [place for place, offset in committed(settings, role, infos).items() if offset < 0]
    older = [place for place in absent if place[0] not in made]
    _refuse_lost(settings, role, older, infos)
    new = {place: 0 for place in absent if place[0] in made}  # its leader may not be known yet, and it is empty
    wanted = new | positions(client, older, start)
    try:
        _alter(settings, role, wanted, infos, {})
    except LiveMembers:
        _wait_until_empty(client, group_name(settings, role), settings.runner.session_timeout_seconds)
        _alter(settings, role, wanted, infos, {})
    return {topic: sum(place[0] == topic for place in absent) for topic in infos if any(place[0] == topic for place in absent)}


def reset(settings: Settings, role: str, topics: Sequence[str], start: Start | int) -> dict[Place, int]:
    """Set a stopped group's offsets on all partitions of these topics (full names); what they are now.

    Raises UsageError while the group has live members, or where the commits log knows nothing of a partition.
    """
    client = admin(settings)
    infos = describe(settings, list(topics))
    if missing := sorted(set(topics) - infos.keys()):
        raise UsageError(f"topic {missing[0]} does not exist: run `millrace provision`, which also sets its offsets")
    places = [(topic, number) for topic, info in infos.items() for number in range(info.partitions)]
    wanted = _from_commits(settings, role, places, infos) if start is Start.COMMITS else positions(client, places, start)
    _wait_until_empty(client, group_name(settings, role), settings.runner.session_timeout_seconds)
    _alter(settings, role, wanted, infos, {"reset": True})
    return wanted


def committed(settings: Settings, role: str, infos: Mapping[str, TopicInfo]) -> dict[Place, int]:
    """The role's committed offset of every partition of these topics; negative where there is none."""
    return {(place.topic, place.partition): place.offset for place in committed_places(settings, role, infos)}


def committed_metadata(settings: Settings, role: str, infos: Mapping[str, TopicInfo]) -> dict[Place, str]:
    """What the role committed beside its offset of every partition of these topics."""
    return {(place.topic, place.partition): place.metadata or "" for place in committed_places(settings, role, infos)}


def committed_places(settings: Settings, role: str, infos: Mapping[str, TopicInfo]) -> list[TopicPartition]:
    """The role's committed offsets on these topics, with their metadata.

    Asked through a consumer that never joins: librdkafka 2.16 ends the process (signal 11) when an AdminClient asks a
    coordinator that is still loading, as it is on a new cluster.
    """
    places = [TopicPartition(topic, number) for topic, info in infos.items() for number in range(info.partitions)]
    what = f"reading the offsets of group {group_name(settings, role)}"
    consumer = group_consumer(settings, Slot(role, 0))

    def call() -> list[TopicPartition]:
        try:
            answer = list(consumer.committed(places, ANSWER_SECONDS))
        except KafkaException as error:
            raise failed(error.args[0], what) from None
        if refused := first_error(answer):
            raise failed(refused, what)
        return answer

    try:
        return repeated(call)
    finally:
        consumer.close()


def positions(client: AdminClient, places: Iterable[Place], start: Start | int) -> dict[Place, int]:
    """The offset that a start means for each partition."""
    if isinstance(start, int):
        return dict.fromkeys(places, start)
    spec: OffsetSpec = OffsetSpec.latest() if start is Start.LATEST else OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic, number): spec for topic, number in places}
    if not asked:
        return {}
    futures = client.list_offsets(asked, request_timeout=ANSWER_SECONDS)
    return {
        (place.topic, place.partition): result(future, f"finding an offset of {place.topic}").offset for place, future in futures.items()
    }


def from_commits(settings: Settings, role: str) -> dict[tuple[str, str, int], int]:
    """Where the role's transactions ended: (unprefixed topic, topic id, partition) to the next offset."""
    ends: dict[tuple[str, str, int], int] = {}
    decode = codec(COMMITS).decode
    for record in read_whole(settings, COMMITS):
        commit: Commit = decode(record.value, record.headers)
        for piece in commit.inputs if commit.worker == role else ():
            place = (piece.topic, piece.topic_id, piece.partition)
            ends[place] = max(piece.end, ends.get(place, 0))
    return ends


def _refuse_lost(settings: Settings, role: str, places: Sequence[Place], infos: Mapping[str, TopicInfo]) -> None:
    """A group without offsets whose transactions are on the commits log did not start for the first time."""
    if not places or full_name(settings, COMMITS) not in describe(settings, [full_name(settings, COMMITS)]):
        return
    ends = from_commits(settings, role)
    for topic, number in places:
        if (topic.removeprefix(settings.topic_prefix), infos[topic].topic_id, number) in ends:
            raise OffsetsLost(
                f"group {group_name(settings, role)} has no offset for {topic}/{number}, but worked on it before: its offsets were lost."
                f" Run `millrace offsets reset {role} --to commits` to go on where its last transaction ended, each record once."
            )


def _from_commits(settings: Settings, role: str, places: Sequence[Place], infos: Mapping[str, TopicInfo]) -> dict[Place, int]:
    ends = from_commits(settings, role)
    known = {(t, n): ends.get((t.removeprefix(settings.topic_prefix), infos[t].topic_id, n)) for t, n in places}
    wanted = {place: end for place, end in known.items() if end is not None}
    if not wanted:
        raise UsageError(f"the commits log has no transaction of {role} on these topics as they are now: use --to earliest or --to latest")
    # Nothing was ever taken from the others. And a log may begin after the last transaction's end by now: what it dropped is gone.
    starts = positions(admin(settings), places, Start.EARLIEST)
    return {place: max(start, wanted.get(place, 0)) for place, start in starts.items()}


def _alter(settings: Settings, role: str, offsets: Mapping[Place, int], infos: Mapping[str, TopicInfo], more: Mapping[str, bool]) -> None:
    """Commit offsets for a group that has no members; through a consumer that never joins, as for reading them."""
    if not offsets:
        return
    places = [
        TopicPartition(topic, number, offset, metadata=json.dumps({"topic_id": infos[topic].topic_id, **more}))
        for (topic, number), offset in offsets.items()
    ]
    consumer = group_consumer(settings, Slot(role, 0))
    try:
        repeated(lambda: _commit(consumer, places, group_name(settings, role)))
    finally:
        consumer.close()


def _commit(consumer: Consumer, places: list[TopicPartition], group: str) -> None:
    try:
        refused = first_error(consumer.commit(offsets=places, asynchronous=False) or [])
    except KafkaException as error:
        refused = error.args[0]
    if refused is not None:
        raise LiveMembers(group) if refused.code() in LIVE_GROUP else failed(refused, f"setting the offsets of group {group}")


def _wait_until_empty(client: AdminClient, group: str, session_seconds: float) -> None:
    """A static member that ended stays in its group until its session times out: wait so long and a little more."""
    deadline = time.monotonic() + session_seconds + 5
    while repeated(lambda: _members(client, group)):
        if time.monotonic() > deadline:
            raise LiveMembers(group)
        time.sleep(0.5)


def _members(client: AdminClient, group: str) -> int:
    futures = client.describe_consumer_groups([group], request_timeout=ANSWER_SECONDS)
    return len(result(futures[group], f"describing group {group}").members or [])
