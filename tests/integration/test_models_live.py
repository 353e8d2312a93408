"""Models that are added, routed and missing while the real worker serves: does each request get the answer of who was told to serve?"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.infra.embedded.ports import free_base
from millrace.infra.kafka.control import Control
from millrace.infra.models import inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.objects import Folder
from millrace.infra.settings import Settings
from millrace.schemas.model import ModelVersion, Route, Share
from millrace.schemas.topics import COMMITS, MODELS, PREDICTIONS, ROUTES
from millrace.workers.commands.models import add_model
from tests.integration.harness.rig import Rig
from tests.integration.test_inference import ANSWER_SECONDS, INFERENCE, LARGE, SMALL, Client, answered, events, steady, worker
from tests.stack import Broker, wait_until


@pytest.fixture
def rig(broker: Broker, tmp_path: Path) -> Rig:
    return Rig.on(broker, tmp_path, INFERENCE).at(telemetry={"port": free_base()}).provision()


def add(settings: Settings, name: str, seed: int = 1, sizes: tuple[int, ...] = SMALL) -> None:
    data = perceptron(sizes, seed)
    add_model(settings, name, (inspect(data), data))


def add_without_bytes(settings: Settings, name: str, seed: int) -> bytes:
    """A version whose object nobody has put; its bytes."""
    data = perceptron(SMALL, seed)
    told = replace(inspect(data), name=name, location=f"sha256:{hashlib.sha256(data).hexdigest()}")
    Control[ModelVersion](settings, MODELS).append(name, lambda number: replace(told, version=number, time=datetime.now(UTC)))
    settings.objects_folder.mkdir(parents=True, exist_ok=True)
    return data


def serve(settings: Settings, name: str, version: int) -> None:
    shares = (Share(version=version),)
    Control[Route](settings, ROUTES).append(name, lambda number: Route(name=name, version=number, time=datetime.now(UTC), shares=shares))


def of(settings: Settings, model: str) -> list[Any]:
    return [one for one in events(settings, PREDICTIONS) if one.model == model]


def page(rig: Rig, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.settings.telemetry.port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def test_a_model_that_is_added_while_a_worker_serves_answers_every_request_from_the_first(rig: Rig) -> None:
    """What was told before a request was published is known when it is answered, however long the model takes to load."""
    settings, client, sent = rig.settings, Client(rig.settings), [0]
    add(settings, "m")
    names = ["n0", "n1", "n2", "large"]
    with worker(rig), steady(client, sent):
        answered(settings, 20)
        for number, name in enumerate(names):
            add(settings, name, number, LARGE if name == "large" else SMALL)
            for i in range(20):
                client.send({"id": f"{name}-{i}", "unit_id": f"u{i}", "model": name, "vector": [i, 1.0]})
            client.flush()
        wait_until(lambda: all(len(of(settings, name)) >= 20 for name in names), ANSWER_SECONDS, "all models answer")
    found = [one for name in names for one in of(settings, name)]
    assert Counter((one.model, one.status.value, one.error) for one in found) == Counter({(name, "ok", ""): 20 for name in names})
    assert {one.status.value for one in of(settings, "m")} == {"ok"}


def test_a_version_whose_bytes_are_missing_stops_no_other_and_serves_when_they_come(rig: Rig) -> None:
    settings, client, sent = rig.settings, Client(rig.settings), [0]
    add(settings, "m")
    with worker(rig) as process, steady(client, sent):
        answered(settings, 20)
        late = add_without_bytes(settings, "m", 2)
        serve(settings, "m", 2)
        never = add_without_bytes(settings, "k", 3)
        serve(settings, "k", 1)
        process.wait_for("ModelMissing", 2)
        add(settings, "n")
        add(settings, "n", 4)
        serve(settings, "n", 2)
        process.wait_for("ModelUnloaded")
        before = len(of(settings, "m"))
        client.send({"id": "k-1", "unit_id": "u", "model": "k", "vector": [1, 1]})
        client.send({"id": "n-1", "unit_id": "u", "model": "n", "vector": [1, 1]})
        wait_until(lambda: bool(of(settings, "k") and of(settings, "n")), ANSWER_SECONDS, "both are answered")
        wait_until(lambda: len(of(settings, "m")) > before + 50, ANSWER_SECONDS, "the old version goes on")
        assert {one.version for one in of(settings, "m")} == {1}
        status = json.loads(page(rig, "/status"))
        assert status["ready"]
        assert "model 'm' version 2 cannot be fetched: object sha256:" in status["detail"]
        assert "model 'k' version 1 cannot be fetched" in page(rig, "/health/ready")
        assert page(rig, "/metrics").count("millrace_control_lacking{") == 2
        Folder(settings.objects_folder).put(late)
        wait_until(lambda: any(one.version == 2 for one in of(settings, "m")), ANSWER_SECONDS, "the new version serves")
        time.sleep(0.2)
    (error,), (fine,) = of(settings, "k"), of(settings, "n")
    assert (error.status.value, error.version, error.outputs) == ("error", 1, {})
    assert error.error.startswith("model 'k' version 1 cannot be fetched: object sha256:")
    assert (fine.status.value, fine.version) == ("ok", 2)
    assert {one.status.value for one in of(settings, "m")} == {"ok"}
    lacking = {one.time: one.lacking.keys() for one in events(settings, COMMITS)}
    for one in of(settings, "m"):
        assert (one.version == 1) is ("m/2" in lacking[one.time] or not lacking[one.time])
    assert hashlib.sha256(never).hexdigest() in error.error


def test_a_worker_that_starts_beside_a_missing_version_serves_what_it_can(rig: Rig) -> None:
    settings, client = rig.settings, Client(rig.settings)
    add(settings, "m")
    add_without_bytes(settings, "m", 2)
    serve(settings, "m", 2)
    add(settings, "n")
    for name in ("m", "n"):
        client.send({"id": name, "unit_id": "u", "model": name, "vector": [1, 1]})
    client.flush()
    with worker(rig):
        found = {one.request_id: (one.status.value, one.version) for one in answered(settings, 2)}
    assert found == {"m": ("ok", 1), "n": ("ok", 1)}
    assert [list(one.lacking) for one in events(settings, COMMITS)][-1] == ["m/2"]
