"""The whole road for one test: real inference and archiver processes on topics, groups and a database of their own.

``Road`` has the places and starts the workers, ``Traffic`` sends the requests, ``evidence`` says what each of them must have come to.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client
from millrace.infra.kafka.clients import describe, full_name, reader
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.offsets import committed
from millrace.infra.kafka.provision import provision
from millrace.infra.models import inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import Settings
from millrace.schemas.experiment import Plan
from millrace.schemas.model import Route, Share
from millrace.schemas.topics import EXPERIMENTS, PREDICTIONS, REQUESTS, ROUTES, TOPICS
from millrace.workers.commands.models import add_model
from millrace.workers.inference import ROLE
from tests.echo import Echo
from tests.integration.archive import QUICK, archiver, settle
from tests.integration.harness import Anomaly, Bench, Rig, Supervised, WorkerProcess, check
from tests.integration.harness.checker import Kind as Wrong
from tests.integration.road.evidence import EXPERIMENT, evidence
from tests.integration.road.traffic import MODEL, Kind, Traffic, of_kinds
from tests.models import plan
from tests.stack import Broker, ClickHouse, wait_until

__all__ = ["EXPERIMENT", "PARTITIONS", "PROGRAM", "Kind", "Road", "Traffic", "of_kinds"]

INFERENCE = Bench(ROLE, ROLE, (REQUESTS,), PREDICTIONS, Echo, stateless=True)
PROGRAM = "tests.integration.road.worker"
SIZES = (2, 4, 1)
PARTITIONS = 2
PATIENCE_SECONDS = 180.0
VISIBLE_SECONDS = 30.0
MISSING = frozenset({Wrong.LOST, Wrong.TORN, Wrong.GAP})
"""What is told of a transaction whose end does not stand on every log yet."""


class Road:
    """Topics, groups and a database, with one model on its route and one experiment. Each worker's session is as long as a test needs.

    ``runner`` overrides keys of that section, e.g. ``dead_letter_run``.
    """

    def __init__(
        self,
        broker: Broker,
        clickhouse: ClickHouse,
        folder: Path,
        inference_session_seconds: float = 30.0,
        archiver_session_seconds: float = 30.0,
        telemetry_port: int = 0,
        **runner: float,
    ) -> None:
        runner = {"session_timeout_seconds": inference_session_seconds, "commit_patience_seconds": 1.0} | runner
        base = Rig.on(broker, folder, INFERENCE, PARTITIONS, **runner)
        places = {"address": clickhouse.url, "database": base.tree["topic_prefix"].strip("-")}
        self.rig = base.at(clickhouse=places, archiver=QUICK, telemetry={"port": telemetry_port})
        patient = base.tree["runner"] | {"session_timeout_seconds": archiver_session_seconds}
        self._archive = self.rig.at(runner=patient, telemetry={"log_level": "DEBUG"})
        self.settings: Settings = self.rig.settings
        provision(self.settings)
        self.add_version()
        Control[Plan](self.settings, EXPERIMENTS).append(EXPERIMENT, lambda number: replace(plan(EXPERIMENT), version=number))
        self.traffic = Traffic(self.settings)

    def add_version(self, seed: int = 0) -> int:
        """Publish the next version of the model; the first one is routed at once."""
        data = perceptron(SIZES, seed)
        return add_model(self.settings, MODEL, (inspect(data), data)).model.version

    def route(self, version: int) -> None:
        """Let this version answer everything."""

        def made(number: int) -> Route:
            return Route(name=MODEL, version=number, time=datetime.now(UTC), shares=(Share(version=version),))

        Control[Route](self.settings, ROUTES).append(MODEL, made)

    def inference(self, point: str = "", nth: int = 1, action: str = "kill", ordinal: int = 0) -> WorkerProcess:
        """An inference process; ``point``, ``nth`` and ``action`` name where it kills or freezes itself."""
        return WorkerProcess(self.rig.at(ordinal=ordinal), point, nth, action, PROGRAM)

    def archiver(self) -> WorkerProcess:
        """An archiver process."""
        return archiver(self._archive)

    def supervised(self) -> tuple[Supervised, Supervised]:
        """Inference and archiver, each started again when it ends by itself."""
        return Supervised(self.rig, PROGRAM), Supervised(self._archive, "tests.integration.archive.worker")

    def command(self, *arguments: str, fails: int = 0) -> str:
        """Run ``millrace`` as a person does, in a process of its own; what it printed. Fails unless it ends with this exit code."""
        done = subprocess.run(
            (sys.executable, "-m", "millrace", *arguments),
            env=self._archive.environment() if "archiver" in arguments else self.rig.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == fails, f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def answered(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until inference has committed past every request that was sent."""
        self.consumed(self.traffic.standing.total(), seconds)

    def consumed(self, requests: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until inference has committed past so many requests in all."""
        infos = describe(self.settings, [full_name(self.settings, REQUESTS)])
        wait_until(lambda: sum(committed(self.settings, ROLE, infos).values()) >= requests, seconds, f"{requests} requests consumed")

    def ends(self) -> dict[tuple[str, int], int]:
        """Where every log ends, what is pending or aborted included."""
        infos = describe(self.settings, [full_name(self.settings, topic) for topic in TOPICS])
        client = reader(self.settings, committed=False)
        try:
            return {
                place: self._end(client, place) for place in ((name, n) for name, info in infos.items() for n in range(info.partitions))
            }
        finally:
            client.close()

    def holds(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Every request came to exactly what it must, in the order of its key; and every record is one row, which the views show right."""
        self.answered(seconds)
        anomalies = self._anomalies()
        tally = Counter((anomaly.kind.value, anomaly.detail.partition(" of ")[2].partition("/")[0]) for anomaly in anomalies)
        assert anomalies == [], (tally, anomalies[:10], anomalies[-10:])
        settle(self._archive, seconds)
        self._views_agree()

    def _anomalies(self) -> list[Anomaly]:
        """All that is wrong. A transaction becomes visible on one log after the other: what is only missing is waited for."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        while True:
            found = check(evidence(self.settings, self.traffic))
            kinds = {anomaly.kind for anomaly in found}
            if not kinds or kinds - MISSING or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def counted(self, sql: str) -> list[tuple[Any, ...]]:
        """What ClickHouse answers, about this test's database."""
        client = Client(self.settings.clickhouse)
        return [tuple(row) for row in client.rows(sql.replace("FROM ", f"FROM {client.database}."))]

    def _views_agree(self) -> None:
        """Each id counts once in the views, with its copies beside it, and each bucket can be derived again."""
        sent = self.traffic.sent
        ours = "startsWith(request_id, 'r')"
        answered = {Kind.ANSWERED: "ok", Kind.LATE: "expired", Kind.BARE: "unanswered", Kind.LATE_BARE: "unanswered"}
        met = f"exposed['{EXPERIMENT}']"
        found = self.counted(f"SELECT status, {met} AS met, count(), sum(duplicates) FROM v_decisions WHERE {ours} GROUP BY status, met")
        wanted: dict[tuple[str, bool], list[int]] = {}
        for kind, status in answered.items():
            numbers = of_kinds(sent, kind)
            sums = wanted.setdefault((status, kind in (Kind.ANSWERED, Kind.BARE)), [0, 0])
            sums[0] += len(numbers)
            sums[1] += sum(sent[number] - 1 for number in numbers)
        assert {(str(status), bool(met)): [once, again] for status, met, once, again in found} == {
            key: sums for key, sums in wanted.items() if sums[0]
        }
        good = len(of_kinds(sent, *answered))
        assert self.counted("SELECT count(), countIf(agrees) FROM v_assignments") == [(good, good)]

    def _end(self, client: Any, place: tuple[str, int]) -> int:
        return int(client.get_watermark_offsets(TopicPartition(*place), 10)[1])
