"""Does every record become one row, while archivers, ClickHouse and the group come and go?"""

from __future__ import annotations

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from millrace.infra.clickhouse.client import Client
from millrace.infra.kafka.clients import describe, full_name
from millrace.infra.kafka.offsets import Start, committed_places, reset
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.telemetry import Telemetry
from millrace.schemas.topics import OUTCOMES, REQUESTS, TOPICS
from millrace.workers.archiver import HELD_BLOCKS, ROLE, Archiver
from tests.integration.archive import INSERT_SECONDS, LEASE_SECONDS, Load, archive_rig, archiver, settle
from tests.integration.archive.proxy import LossyProxy
from tests.integration.harness import WorkerProcess
from tests.integration.harness.rig import Rig
from tests.stack import Broker, ClickHouse, wait_until

POINTS = ("before intent", "after intent", "before insert", "after insert")


@pytest.fixture
def rig(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> Rig:
    return archive_rig(broker, clickhouse, tmp_path)


def counted(rig: Rig, sql: str) -> int:
    """A number that ClickHouse tells, about this test's database."""
    client = Client(rig.settings.clickhouse)
    return int(client.rows(sql.replace("FROM ", f"FROM {client.database}."))[0][0])


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(rig: Rig, point: str) -> None:
    with Load(rig.settings) as load:
        with archiver(rig, point, nth=3) as doomed:
            assert doomed.wait() == -9
        with archiver(rig) as successor:
            load.reach(500)
            successor.wait_for("BlockInserted", 3)
            load.__exit__(None, None, None)
            settle(rig)


@pytest.mark.slow
def test_killed_at_random(rig: Rig) -> None:
    chance = random.Random(7)
    with Load(rig.settings, pause_seconds=0.005):
        for _ in range(4):
            with archiver(rig) as doomed:
                doomed.wait_for("Assigned")
                time.sleep(chance.random() * 0.8)
                doomed.kill()
    with archiver(rig):
        assert settle(rig).records > 500


def test_an_answer_that_is_lost_after_the_insert(rig: Rig, clickhouse: ClickHouse) -> None:
    with LossyProxy(clickhouse.url) as proxy, Load(rig.settings) as load:
        behind = rig.at(clickhouse=rig.tree["clickhouse"] | {"address": proxy.url})
        with archiver(behind) as worker:
            worker.wait_for("BlockInserted", 2)
            proxy.lose(3)
            load.reach(500)
            wait_until(lambda: proxy.lost == 3, 60, "three answers were lost")
            load.__exit__(None, None, None)
            settle(rig)
            assert worker.events("PlaceUnavailable")


def test_clickhouse_killed_in_the_middle_of_an_insert_and_down_for_longer_than_a_lease(rig: Rig, clickhouse: ClickHouse) -> None:
    with Load(rig.settings, pause_seconds=0.01) as load, archiver(rig) as worker:
        worker.wait_for("BlockInserted", 2)
        clickhouse.kill()
        try:
            worker.wait_for("PlaceUnavailable")
            time.sleep(LEASE_SECONDS + INSERT_SECONDS + 2)  # ten seconds are in test_road.py
        finally:
            clickhouse.start()
        load.reach(300)
        load.__exit__(None, None, None)
        settle(rig)
        assert worker.alive


def with_runner(rig: Rig, **seconds: float) -> Rig:
    """The same rig with other keys of the section."""
    return rig.at(runner=rig.tree["runner"] | seconds)


def test_a_zombie_that_wakes_up_inside_its_lease_is_fenced(rig: Rig) -> None:
    """Its session is not over: its first heartbeat or commit is refused, because the successor has its place in the group."""
    rig = with_runner(rig, session_timeout_seconds=60.0)
    with Load(rig.settings) as load, archiver(rig, "before insert", 3, "stop") as zombie:
        wait_until(lambda: zombie.frozen, 60, "the archiver froze before an insert")
        with archiver(rig) as successor:
            successor.wait_for("Assigned")
            zombie.thaw()
            assert zombie.wait() == 1
            assert "Fenced" in zombie.failures[-1]
            goes_on(rig, load, successor)


def test_of_a_zombie_that_wakes_up_after_its_session_and_its_successor_one_goes_on(rig: Rig) -> None:
    """The other is fenced, whichever it is.

    A client whose session is over before its first heartbeat is answered joins the group anew, and a static member that joins
    anew takes the place of whoever has its name: of the successor, which is then fenced. The zombie begins again at the
    committed offsets, as any owner does. Where its heartbeat is answered first, it is fenced itself. Both are right.
    """
    rig = with_runner(rig, session_timeout_seconds=3.0)
    with Load(rig.settings) as load, archiver(rig, "before insert", 3, "stop") as zombie:
        wait_until(lambda: zombie.frozen, 60, "the archiver froze before an insert")
        with archiver(rig) as successor:
            successor.wait_for("Assigned")
            time.sleep(LEASE_SECONDS + INSERT_SECONDS + 1)
            zombie.thaw()
            wait_until(lambda: not (zombie.alive and successor.alive), 60, "one of the two has ended")
            ended, other = (zombie, successor) if successor.alive else (successor, zombie)
            assert ended.wait() == 1
            assert "Fenced" in ended.failures[-1]
            goes_on(rig, load, other)


def goes_on(rig: Rig, load: Load, archiver: WorkerProcess) -> None:
    """It archives what comes now, and each record is one row."""
    load.reach(300)
    load.__exit__(None, None, None)
    settle(rig)
    assert archiver.alive
    assert archiver.failures == []


def test_a_successor_that_comes_after_the_lease_looks_first(rig: Rig) -> None:
    with Load(rig.settings):
        with archiver(rig, "after insert", 3) as doomed:
            assert doomed.wait() == -9
        time.sleep(LEASE_SECONDS + 1)
    with archiver(rig) as successor:
        settle(rig)
        settled = successor.events("BlockReconciled")
        assert settled
        assert 0 in {event["absent"] for event in settled}  # the one that was inserted; others may have had no more than their intent


def test_partitions_move_while_loaded(rig: Rig) -> None:
    with Load(rig.settings) as load, archiver(rig) as first:
        first.wait_for("BlockInserted", 2)
        with archiver(rig.at(ordinal=1)) as second:
            second.wait_for("BlockInserted", 2)
            load.reach(300)
            second.drain()
        with archiver(rig.at(ordinal=1)) as second:
            second.wait_for("Assigned")
            load.reach(300)
            load.__exit__(None, None, None)
            settle(rig)


def test_sigterm_under_load_finishes_what_is_gathered(rig: Rig) -> None:
    unhurried = rig.tree["archiver"] | {"lease_seconds": 30.0, "insert_timeout_seconds": 20.0}  # no insert takes longer than its lease
    rig = with_runner(rig, revoke_deadline_seconds=60.0).at(archiver=unhurried)
    with Load(rig.settings, pause_seconds=0.005) as load, archiver(rig) as worker:
        worker.wait_for("BlockInserted", 2)
        load.reach(300)
        worker.drain()
    with archiver(rig) as successor:
        settle(rig)
        assert not successor.events("BlockReconciled")


def test_poison_becomes_rows_with_their_bytes(rig: Rig) -> None:
    with Load(rig.settings) as load, archiver(rig):
        load.reach(1_000)
        load.__exit__(None, None, None)
        settle(rig)
    assert counted(rig, "SELECT count() FROM requests WHERE _raw = 'poison' AND _error LIKE 'JSON is malformed%'") > 0
    assert counted(rig, "SELECT count() FROM requests WHERE _raw IS NULL AND _error LIKE 'the record has no value%'") > 0
    assert counted(rig, "SELECT count() FROM v_requests") == counted(rig, "SELECT count() FROM requests WHERE _error = ''")


def test_a_single_record_arrives_within_two_seconds(rig: Rig, broker: Broker) -> None:
    """One of twenty at least: what else the machine has to do is no matter of the archiver."""
    producer = Producer({"bootstrap.servers": broker.address})
    took = []
    with archiver(rig) as worker:
        wait_until(lambda: any(event["ready"] for event in worker.events("ReadinessChanged")), 60, "ready")
        for number in range(20):
            began = time.monotonic()
            producer.produce(f"{rig.tree['topic_prefix']}requests", b'{"id": "r%d", "unit_id": "u1"}' % number)
            producer.flush(10)
            worker.wait_for("BlockInserted", number + 1)
            took.append(time.monotonic() - began)
            if took[-1] < 2.0:
                break
        settle(rig)
    assert min(took) < 2.0, took


def done(answer: Future[None]) -> bool:
    """Whether what was asked for is so, now or since an earlier asking whose answer was lost."""
    error = answer.exception(10)
    return error is None or error.args[0].code() in (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.GROUP_ID_NOT_FOUND)


def test_a_topic_that_was_created_again_stops_the_archiver(rig: Rig, broker: Broker) -> None:
    name = f"{rig.tree['topic_prefix']}commits"
    client = AdminClient({"bootstrap.servers": broker.address})
    with archiver(rig) as worker:
        worker.wait_for("Assigned")
        client.delete_topics([name])[name].result(30)
        wait_until(lambda: done(client.create_topics([NewTopic(name, 2, 1)])[name]), 60, "the topic was created again")
        assert worker.wait() == 1
        failed = worker.events("Failed")[-1]
        assert failed["error"] in ("TopicRecreated", "OffsetsLost")  # whichever is seen first: its offsets went with the old topic
        assert "millrace offsets reset" in failed["reason"]


def test_lost_group_offsets_neither_lose_nor_double_rows(rig: Rig, broker: Broker) -> None:
    rig = with_runner(rig, session_timeout_seconds=2.0)  # a group can be deleted, or reset, once the sessions of its members are over
    with Load(rig.settings) as load, archiver(rig):
        load.reach(600)
        load.__exit__(None, None, None)
        before = settle(rig).rows
    client = AdminClient({"bootstrap.servers": broker.address})
    group = f"{rig.tree['topic_prefix']}archiver"
    wait_until(lambda: done(client.delete_consumer_groups([group])[group]), 60, "the group's session ended")
    with archiver(rig) as worker:
        assert worker.wait() == 1
        assert worker.events("Failed")[-1]["error"] == "OffsetsLost"
    wait_until(lambda: not client.describe_consumer_groups([group])[group].result(10).members, 60, "nobody is in the group")
    reset(rig.settings, "archiver", [full_name(rig.settings, topic) for topic in TOPICS], Start.EARLIEST)
    with archiver(rig):
        assert settle(rig, 60).rows == before


def test_records_that_the_log_dropped_under_an_open_intent_are_told_of(rig: Rig, broker: Broker) -> None:
    with Load(rig.settings):
        with archiver(rig, "before insert", 4) as doomed:  # its intent is committed, and its block is not there
            assert doomed.wait() == -9
        time.sleep(LEASE_SECONDS)
    client = AdminClient({"bootstrap.servers": broker.address})
    place = open_intent(rig)
    client.delete_records([place])[place].result(10)
    with archiver(rig) as successor:
        gone = successor.wait_for("RecordsGone")
        assert gone["end"] == place.offset
        settle(rig)


def open_intent(rig: Rig) -> TopicPartition:
    """The middle of an intent that was left open."""
    infos = describe(rig.settings, [full_name(rig.settings, topic) for topic in (REQUESTS, OUTCOMES)])
    for place in committed_places(rig.settings, "archiver", infos):
        to = msgspec.json.decode(place.metadata or "{}").get("to", 0)
        if to > place.offset + 1:
            return TopicPartition(place.topic, place.partition, (place.offset + to + 1) // 2)
    raise AssertionError("no intent was left open")


def test_a_backlog_is_held_no_further_than_the_measure(rig: Rig) -> None:
    """Every row arrives although partitions pause again and again; of records fetched before a pause each lane may hold one poll more."""
    patient = {"lease_seconds": 30.0, "insert_timeout_seconds": 20.0}
    rig = with_runner(rig, poll_records=20).at(archiver=rig.tree["archiver"] | patient | {"block_rows": 20})
    settings, held = rig.settings, list[float]()
    publish(settings, (Outgoing(REQUESTS.name, b"%d" % n, b'{"id": "r%d", "unit_id": "u"}' % n) for n in range(3_000)))
    telemetry = Telemetry(ROLE, "archiver-0", settings.telemetry)

    def seen() -> float:
        """What is held. Another thread that looks while a block is cut may count its records twice, but not three times in a row."""
        return min(worker.held_blocks for _ in range(3))

    def at(point: str) -> None:
        """No block is inserted before as much is held as may be."""
        if point == "before intent":
            held.append(worker.held_blocks)
        if point == "before insert" and max(held) <= HELD_BLOCKS:
            wait_until(lambda: seen() > HELD_BLOCKS, 25, "as much is held as may be")
            time.sleep(0.3)  # what is fetched before the pause comes too
            held.append(seen())

    worker = Archiver(settings, telemetry, at=at)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(worker.run)
        try:
            assert settle(rig).records == 3_000
        finally:
            worker.stop("done")
            running.result(60)
    lanes = describe(settings, [full_name(settings, REQUESTS)])[full_name(settings, REQUESTS)].partitions
    assert HELD_BLOCKS < max(held) <= HELD_BLOCKS + 1 + lanes
