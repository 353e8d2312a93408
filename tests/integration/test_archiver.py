"""Does every record become one row, while archivers, ClickHouse and the group come and go?"""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from millrace.infra.clickhouse.client import Client
from millrace.infra.kafka.clients import describe, full_name
from millrace.infra.kafka.offsets import Start, committed_places, reset
from millrace.schemas.topics import OUTCOMES, REQUESTS, TOPICS
from tests.integration.archive import INSERT_SECONDS, LEASE_SECONDS, Load, archive_rig, archiver, settle
from tests.integration.archive.proxy import LossyProxy
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
            wait_until(lambda: proxy.lost == 3, 20, "three answers were lost")
            load.__exit__(None, None, None)
            settle(rig)
            assert worker.events("PlaceUnavailable")


def test_clickhouse_killed_in_the_middle_of_an_insert_and_down_for_longer_than_a_lease(rig: Rig, clickhouse: ClickHouse) -> None:
    with Load(rig.settings, pause_seconds=0.01) as load, archiver(rig) as worker:
        worker.wait_for("BlockInserted", 2)
        clickhouse.kill()
        try:
            worker.wait_for("PlaceUnavailable")
            time.sleep(10)
        finally:
            clickhouse.start()
        load.reach(300)
        load.__exit__(None, None, None)
        settle(rig)
        assert worker.alive


@pytest.mark.parametrize("woken", ["inside", "after"])
def test_a_zombie_wakes_up_beside_its_successor(rig: Rig, woken: str) -> None:
    with Load(rig.settings) as load, archiver(rig, "before insert", 3, "stop") as zombie:
        wait_until(lambda: zombie.frozen, 20, "the archiver froze before an insert")
        with archiver(rig) as successor:
            successor.wait_for("Assigned")
            if woken == "after":
                time.sleep(LEASE_SECONDS + INSERT_SECONDS + 1)
            zombie.thaw()
            assert zombie.wait() == 1
            assert "Fenced" in zombie.events("Failed")[-1]["error"]
            load.__exit__(None, None, None)
            settle(rig)


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
    with Load(rig.settings, pause_seconds=0.005) as load, archiver(rig) as worker:
        worker.wait_for("BlockInserted", 2)
        load.reach(300)
        began = time.monotonic()
        worker.drain()
        assert time.monotonic() - began < 8
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
    with archiver(rig) as worker:
        wait_until(lambda: any(event["ready"] for event in worker.events("ReadinessChanged")), 20, "ready")
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce(f"{rig.tree['topic_prefix']}requests", b'{"id": "r1", "unit_id": "u1"}')
        producer.flush(10)
        worker.wait_for("BlockInserted", seconds=2.0)
        settle(rig)


def test_a_topic_that_was_created_again_stops_the_archiver(rig: Rig, broker: Broker) -> None:
    name = f"{rig.tree['topic_prefix']}commits"
    client = AdminClient({"bootstrap.servers": broker.address})
    with archiver(rig) as worker:
        worker.wait_for("Assigned")
        client.delete_topics([name])[name].result(30)
        wait_until(lambda: client.create_topics([NewTopic(name, 2, 1)])[name].exception(10) is None, 10, "the topic was created again")
        assert worker.wait() == 1
        failed = worker.events("Failed")[-1]
        assert failed["error"] == "TopicRecreated"
        assert "millrace offsets reset" in failed["reason"]


def test_lost_group_offsets_neither_lose_nor_double_rows(rig: Rig, broker: Broker) -> None:
    with Load(rig.settings) as load, archiver(rig):
        load.reach(600)
        load.__exit__(None, None, None)
        before = settle(rig).rows
    client = AdminClient({"bootstrap.servers": broker.address})
    group = f"{rig.tree['topic_prefix']}archiver"
    wait_until(lambda: client.delete_consumer_groups([group])[group].exception(10) is None, 20, "the group's session ended")
    with archiver(rig) as worker:
        assert worker.wait() == 1
        assert worker.events("Failed")[-1]["error"] == "OffsetsLost"
    reset(rig.settings, "archiver", [full_name(rig.settings, topic) for topic in TOPICS], Start.EARLIEST)
    with archiver(rig):
        assert settle(rig, 60).rows == before


def test_records_that_the_log_dropped_under_an_open_intent_are_told_of(rig: Rig, broker: Broker) -> None:
    with Load(rig.settings):
        with archiver(rig, "after intent", 4) as doomed:
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
