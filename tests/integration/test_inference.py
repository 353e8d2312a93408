"""Does the real worker decide on a real broker: models in, requests in, every answer once, and no version mixed in?"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from millrace.infra.kafka.clients import full_name, producer
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.whole import read_whole
from millrace.infra.models import inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import Settings
from millrace.schemas.experiment import Plan
from millrace.schemas.model import ModelVersion, Route, Share
from millrace.schemas.topics import ASSIGNMENTS, DEAD_LETTERS, EXPERIMENTS, MODELS, PREDICTIONS, REQUESTS, ROUTES, Topic
from millrace.schemas.wire import codec
from millrace.workers.commands.models import add_model
from tests.integration.harness.processes import WorkerProcess
from tests.integration.harness.rig import Bench, Rig
from tests.models import MemoryModels, decide, plan
from tests.stack import Broker, wait_until

INFERENCE = Bench(
    "inference", "inference", (REQUESTS,), PREDICTIONS, lambda: decide(MemoryModels()), (EXPERIMENTS, MODELS, ROUTES), stateless=True
)
SMALL, LARGE = (2, 4, 1), (2, 2_000, 500, 1)
ANSWER_SECONDS = 60.0


@pytest.fixture
def rig(broker: Broker, tmp_path: Path) -> Rig:
    return Rig.on(broker, tmp_path, INFERENCE).provision()


def worker(rig: Rig) -> WorkerProcess:
    return WorkerProcess(rig, program="millrace.workers.inference")


def add(settings: Settings, seed: int, sizes: tuple[int, ...] = SMALL) -> int:
    """Publish the next version of ``m``; the first is routed at once."""
    data = perceptron(sizes, seed)
    return add_model(settings, "m", (inspect(data), data)).model.version


def serve(settings: Settings, *versions: int, shadows: tuple[int, ...] = ()) -> None:
    shares = tuple(Share(version=version) for version in versions)
    Control[Route](settings, ROUTES).append(
        "m", lambda number: Route(name="m", version=number, time=datetime.now(UTC), shares=shares, shadows=shadows)
    )


def experiment(settings: Settings) -> None:
    Control[Plan](settings, EXPERIMENTS).append("exp", lambda number: replace(plan(), version=number))


class Client:
    """An outside producer: plain values, no header unless it says so."""

    def __init__(self, settings: Settings) -> None:
        self._producer, self._name = producer(settings), full_name(settings, REQUESTS)

    def send(self, value: bytes | dict[str, Any], key: str = "", headers: Any = None) -> None:
        raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
        self._producer.produce(self._name, raw, key or None, headers=headers)
        self._producer.poll(0)

    def least(self, i: int, **fields: Any) -> None:
        self.send({"id": f"r{i}", "unit_id": f"u{i % 50}", "model": "m", "vector": [i / 10, 1.0]} | fields, key=f"u{i % 50}")

    def flush(self) -> None:
        assert self._producer.flush(20) == 0


def events(settings: Settings, topic: Topic) -> list[Any]:
    """What stands on a topic, partition by partition in the order of offsets."""
    decode = codec(topic).decode
    records = sorted(read_whole(settings, topic), key=lambda record: (record.partition, record.offset))
    return [decode(record.value, record.headers) for record in records]


def answered(settings: Settings, wanted: int, topic: Topic = PREDICTIONS) -> list[Any]:
    """The events of a topic, once there are so many."""
    found: list[Any] = []

    def there() -> bool:
        found[:] = events(settings, topic)
        return len(found) >= wanted

    wait_until(there, ANSWER_SECONDS, f"{wanted} on {topic.name}")
    return found


@contextmanager
def steady(client: Client, started: list[int]) -> Iterator[None]:
    """Requests one after another for as long as the block lasts; ``started`` counts them."""
    going = threading.Event()

    def send() -> None:
        while not going.is_set():
            client.least(started[0])
            started[0] += 1
            time.sleep(0.002)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        going.set()
        thread.join(10)
        client.flush()


@contextmanager
def out_of_reach(settings: Settings, version: ModelVersion) -> Iterator[None]:
    """The bytes of a version, which lie in the store of objects, cannot be had while the block lasts."""
    assert not version.data
    (stored,) = settings.objects_folder.rglob(version.digest)
    away = stored.rename(stored.with_suffix(".away"))
    yield
    away.rename(stored)


def test_what_any_client_publishes_is_assigned_and_answered(rig: Rig) -> None:
    settings, client = rig.settings, Client(rig.settings)
    add(settings, 1)
    experiment(settings)
    trace = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("content-type", b"application/msgpack")]
    packed = msgspec.msgpack.encode({"id": "p", "unit_id": "u", "model": "m", "vector": np.array([0.5, 1], np.float32).tobytes()})
    client.send(b'{"id":"named","unit_id":"u","model":"m","features":{"f1":1,"f0":0.5}}')
    client.send(b'{"id":"listed","unit_id":"u","model":"m","vector":[0.5,1]}')
    client.send(packed, headers=trace)
    client.send({"id": "late", "unit_id": "u", "model": "m", "vector": [1, 2], "deadline": datetime.now(UTC) - timedelta(seconds=1)})
    client.send({"id": "alone", "unit_id": "u"})
    client.send({"id": "nobody", "unit_id": "u", "model": "other", "vector": [1]})
    for poison in (b"not json", b'{"id":"x","unit_id":"u","model":"m","features":{"f0":"1","f1":2}}', b'{"id":"","unit_id":"u"}'):
        client.send(poison)
    client.flush()
    with worker(rig) as process:
        process.wait_for("Assigned")
        predictions = {one.request_id: one for one in answered(settings, 5)}
        letters = answered(settings, 3, DEAD_LETTERS)
        assignments = {one.request_id: one for one in answered(settings, 6, ASSIGNMENTS)}
    scores = {predictions[name].outputs["score"] for name in ("named", "listed", "p")}
    assert len(scores) == 1
    assert {name: (one.status.value, one.version) for name, one in predictions.items()} == {
        "named": ("ok", 1),
        "listed": ("ok", 1),
        "p": ("ok", 1),
        "late": ("expired", 1),
        "nobody": ("error", 0),
    }
    assert {name: one.exposed for name, one in assignments.items()} == {
        "named": True,
        "listed": True,
        "p": True,
        "late": False,
        "alone": True,
        "nobody": False,
    }
    assert len({(one.variant, one.bucket) for one in assignments.values()}) == 1
    assert sorted(letter.reason.split(":")[0] for letter in letters) == ["$.features['f0']", "$.id", "JSON is malformed"]
    (traced,) = [record for record in read_whole(settings, PREDICTIONS) if ("traceparent", trace[0][1]) in (record.headers or [])]
    assert codec(PREDICTIONS).decode(traced.value, traced.headers).request_id == "p"


def test_a_new_version_is_taken_up_under_load_without_a_pause_or_a_mixture(rig: Rig) -> None:
    settings, client, sent = rig.settings, Client(rig.settings), [0]
    add(settings, 1)
    experiment(settings)
    with worker(rig) as process, steady(client, sent):
        process.wait_for("Assigned")
        answered(settings, 50)
        assert add(settings, 2, LARGE) == 2
        with out_of_reach(settings, Control[ModelVersion](settings, MODELS).of("m")[-1]):
            serve(settings, 2)
            process.wait_for("ModelMissing")
            answered(settings, len(events(settings, PREDICTIONS)) + 50)
            assert not process.events("ModelUnloaded")
        process.wait_for("ModelUnloaded")
        time.sleep(0.5)
        serve(settings, 1, shadows=(2,))
        process.wait_for("ModelLoaded", 3)
        time.sleep(0.5)
        ended = datetime.now(UTC)
    with worker(rig) as rest:
        rest.wait_for("Assigned")
        wait_until(lambda: len({one.request_id for one in events(settings, PREDICTIONS)}) == sent[0], ANSWER_SECONDS, "all are answered")
    predictions = events(settings, PREDICTIONS)
    primary = [one for one in predictions if not one.shadow]
    assert Counter(one.request_id for one in primary) == Counter({f"r{i}": 1 for i in range(sent[0])})
    assert {one.status.value for one in predictions} == {"ok"}
    assert {one.version for one in predictions if one.shadow} == {2}
    by_time = [(one.time, one.version) for one in sorted(primary, key=lambda one: one.time)]
    changes = [now for (_, was), (_, now) in itertools.pairwise(by_time) if was != now]
    assert changes == [2, 1]
    under_load = [time for time, _ in by_time if time < ended]  # what was left is answered after the next worker's start
    assert max((b - a).total_seconds() for a, b in itertools.pairwise(under_load)) < 10


def test_a_model_that_cannot_be_used_is_told_in_each_answer(rig: Rig) -> None:
    settings, client = rig.settings, Client(rig.settings)
    data = perceptron(SMALL)
    wrong = replace(inspect(data), digest="0" * 64)
    add_model(settings, "m", (wrong, data))
    client.least(1)
    client.flush()
    with worker(rig) as process:
        process.wait_for("Assigned")
        (prediction,) = answered(settings, 1)
        process.wait_for("ModelRefused")
    assert prediction.status.value == "error"
    assert "not those of the manifest" in prediction.error
