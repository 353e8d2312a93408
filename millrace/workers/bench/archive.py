"""``millrace bench archive``: rows a second from Kafka into ClickHouse, by the real archiver, beside what the engine takes at most.

Half of the records are requests and half are predictions with 20 features, as inference writes them. The raw rate is that of the same
rows as ready blocks, sent to the same engine by as many connections as the archiver has.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from msgspec import Raw, Struct
from msgspec.json import encode
from msgspec.structs import replace

from millrace.infra.clickhouse.blocks import Block, Builder, Place
from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.clickhouse.store import Store
from millrace.infra.embedded.launch import wrapped
from millrace.infra.embedded.ports import free_base
from millrace.infra.kafka.clients import admin, full_name
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings, process_environment
from millrace.schemas.errors import Stop, Unavailable
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.tables import TABLES
from millrace.schemas.topics import PREDICTIONS, READERS, REQUESTS, TOPICS
from millrace.schemas.wire import codec, derived_id
from millrace.workers.archiver import ROLE
from millrace.workers.bench.place import broker, ended
from millrace.workers.desk import AT_ONCE

TARGET_ROWS = 60_000
TARGET_RATIO = 0.3
SHARE = 0.1
"""How much of the rows comes before the measurement begins, and after it ends."""
PATIENCE_SECONDS = 300.0
FEATURES = 20
ROUNDS = 3
KEPT = (REQUESTS, PREDICTIONS)
PLACE = attrgetter("partition", "offset")
WATCH_SECONDS = 0.1
"""Between two looks at how many rows are there: each look costs both cores something."""


class Report(Struct, frozen=True):
    """What ``millrace bench archive`` found, in rows a second."""

    rows: int
    archiver: float
    raw: float
    ratio: float
    target_rows: int
    target_ratio: float
    met: bool


def compare(settings: Settings, rows: int, tell: Callable[[str], None]) -> Report:
    """Publish, archive, and insert the same rows as ready blocks."""
    with broker(settings) as placed, engine(placed) as ready, topics(ready) as fresh:
        tell(f"publishing {rows:,} records")
        publish(fresh, records(rows))
        tell("archiving them")
        archived = archive(fresh, rows)
        tell(f"archiver {archived:,.0f} rows/s; inserting the same rows as ready blocks")
        raw = insert(fresh)
    ratio = archived / raw
    met = archived >= TARGET_ROWS and ratio >= TARGET_RATIO
    return Report(rows, round(archived), round(raw), round(ratio, 3), TARGET_ROWS, TARGET_RATIO, met)


@contextlib.contextmanager
def engine(settings: Settings) -> Iterator[Settings]:
    """The settings with ClickHouse's address: their own, else that of an endpoint in a temporary folder, gone afterwards."""
    if settings.clickhouse.address:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        port = free_base() + 2
        command = (sys.executable, "-m", "millrace.infra.embedded.clickhouse", "--data", folder, "--port", str(port))
        with (Path(folder) / "log").open("wb") as log, ended(subprocess.Popen(wrapped(command), stdout=log, stderr=log)):
            place = replace(settings.clickhouse, address=f"http://127.0.0.1:{port}")
            Client(place, patience_seconds=60.0).close()
            yield replace(settings, clickhouse=place)


@contextlib.contextmanager
def topics(settings: Settings) -> Iterator[Settings]:
    """Fresh topics and a fresh database, dropped afterwards."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    fresh = replace(settings, topic_prefix=f"{name}-", clickhouse=replace(settings.clickhouse, database=name))
    provision(fresh, Wanted(topics=TOPICS, readers={ROLE: READERS[ROLE]}))
    client = admin(fresh)  # kept until the topics are deleted: a client that is let go of takes its calls with it
    try:
        yield fresh
    finally:
        Client(fresh.clickhouse).command(f"DROP DATABASE IF EXISTS {name}")
        for future in client.delete_topics([full_name(fresh, topic) for topic in TOPICS]).values():
            future.exception(30)


def records(rows: int) -> Iterator[Outgoing]:
    """Requests and predictions in turns, with the headers that each has."""
    chance, predictions = random.Random(0), codec(PREDICTIONS)
    for i in range(rows // 2):
        key = f"unit-{i % 50_000}"
        features = Raw(encode({f"feature_{k}": round(chance.gauss(0, 1), 6) for k in range(FEATURES)}))
        request = {"id": f"request-{i:09}", "unit_id": key, "model": "phishing", "features": features}
        yield Outgoing(REQUESTS.name, key.encode(), encode(request))
        prediction = _prediction(i, features, chance.random())
        yield Outgoing(PREDICTIONS.name, key.encode(), predictions.encode(prediction), predictions.headers(prediction.id))


def archive(settings: Settings, rows: int) -> float:
    """Run the archiver as a process until all rows are there; rows a second between the first tenth and the last.

    Neither the start-up is the loop, nor the timers that bring the last blocks, which are not full.
    """
    client = Client(settings.clickhouse)
    migrate(client)
    variables = process_environment() | environment(settings)
    with tempfile.TemporaryFile() as log:
        command = (sys.executable, "-m", "millrace.workers.archiver")
        with ended(subprocess.Popen(wrapped(command), stdout=log, stderr=log, env=variables)) as child:
            seen = _watch(client, rows, child)
        if seen is None:
            log.seek(0)
            raise Unavailable(f"the archiver ended by itself: {log.read().decode(errors='replace')[-2_000:]}")
    counts = [count for _, count in seen]
    if counts[-1] != rows:
        raise Stop(f"{rows} records became {counts[-1]} rows")
    late = bisect_left(counts, rows * (1 - SHARE))
    warm = max(0, min(bisect_left(counts, rows * SHARE), late - 1))  # few rows may all come between two looks
    (began, first), (ended_at, last) = seen[warm], seen[late]
    return (last - first) / max(1e-3, ended_at - began)


def environment(settings: Settings) -> dict[str, str]:
    """What the archiver is to be told of these settings."""
    return {
        "MILLRACE_KAFKA": settings.kafka.address,
        "MILLRACE_CLICKHOUSE": settings.clickhouse.address,
        "MILLRACE_CLICKHOUSE__DATABASE": settings.clickhouse.database,
        "MILLRACE_TOPIC_PREFIX": settings.topic_prefix,
    }


def insert(settings: Settings) -> float:
    """Insert the same rows as ready blocks; rows a second, in the best of a few rounds, as whatever else runs can only slow it down."""
    store = Store(Client(settings.clickhouse), settings.archiver.insert_timeout_seconds)
    blocks = [(topic.name, block) for topic in KEPT for block in _blocks(settings, topic.name)]
    return max(_insert_all(store, blocks, f"raw-{number}") for number in range(ROUNDS))


def _insert_all(store: Store, blocks: list[tuple[str, Block]], token: str) -> float:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        began = time.monotonic()
        for done in [threads.submit(store.insert, topic, block, f"{token}-{n}") for n, (topic, block) in enumerate(blocks)]:
            done.result()
        seconds = time.monotonic() - began
    return sum(block.rows for _, block in blocks) / seconds


def _blocks(settings: Settings, topic: str) -> list[Block]:
    """The rows of a topic as full blocks of one partition each, which is what the archiver sends at best."""
    builder, size, lease = Builder(TABLES[topic]), settings.archiver.block_rows, int(time.time()) + 3_600
    blocks = []
    for partition, found in groupby(sorted(read_whole(settings, topic), key=PLACE), attrgetter("partition")):
        read = list(found)
        blocks += [builder.build(read[start : start + size], Place("raw", partition, lease)) for start in range(0, len(read), size)]
    return blocks


def _watch(client: Client, rows: int, child: subprocess.Popen[bytes]) -> list[tuple[float, int]] | None:
    """How many rows were there at which times, until all were. None where the archiver ended before."""
    sql = " + ".join(f"(SELECT count() FROM {client.database}.{topic.table})" for topic in KEPT)
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen: list[tuple[float, int]] = []
    while child.poll() is None:
        count, now = int(client.rows(f"SELECT {sql}")[0][0]), time.monotonic()
        seen.append((now, count))
        if count >= rows:
            return seen
        if now > deadline:
            raise Unavailable(f"{count} of {rows} rows after {PATIENCE_SECONDS:g} s")
        time.sleep(WATCH_SECONDS)
    return None


def _prediction(i: int, features: Raw, score: float) -> Prediction:
    now = datetime.now(UTC)
    return Prediction(
        id=derived_id("request", str(i)),
        request_id=f"request-{i:09}",
        unit_id=f"unit-{i % 50_000}",
        time=now,
        model="phishing",
        version=1 + i % 2,
        digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        status=Status.OK,
        outputs={"label": float(score > 0.5), "probability": score},
        features=features,
        requested=now,
        latency_seconds=0.012,
        batch_records=64,
    )
