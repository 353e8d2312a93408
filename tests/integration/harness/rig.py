"""One isolated set of topics, groups and local state for one test."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.infra.kafka.clients import admin, describe
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.settings import Settings, convert, process_environment
from millrace.schemas.limits import Limits
from millrace.schemas.topics import (
    ASSIGNMENTS,
    EXPERIMENTS,
    MOMENTS,
    OUTCOMES,
    OUTCOMES_BY_UNIT,
    PREDICTIONS,
    REQUESTS,
    RESULTS,
    TOPICS,
    Topic,
    changelog,
)
from millrace.streams.experiment.fold import Fold
from millrace.streams.intake import Intake
from millrace.streams.judge.step import Judge
from millrace.streams.step import Step
from millrace.workers.runner import Work
from tests import counting, echo
from tests.stack import Broker, wait_until

TIMEOUT_MS = 600


@dataclass(frozen=True)
class Bench:
    """A worker under test: its work, what it answers on, and how its step is made anew."""

    name: str
    role: str
    inputs: tuple[Topic, ...]
    output: Topic
    make: Callable[[], Step]
    controls: tuple[Topic, ...] = ()
    stateless: bool = False

    def work(self) -> Work:
        """The work for a runner."""
        return Work(role=self.role, inputs=self.inputs, step=self.make(), controls=self.controls, stateless=self.stateless)


ECHO = Bench("echo", echo.ROLE, (REQUESTS,), PREDICTIONS, echo.Echo, (EXPERIMENTS,), stateless=True)
COUNTING = Bench("counting", counting.ROLE, counting.INPUTS, OUTCOMES, lambda: counting.CountingJoin(TIMEOUT_MS))
INTAKE = Bench("intake", "intake", (OUTCOMES,), OUTCOMES_BY_UNIT, lambda: Intake(Limits()), stateless=True)
JUDGE = Bench("judge", "judge", (MOMENTS,), RESULTS, Judge, (EXPERIMENTS,))
FOLDING = Bench("folding", "experimenter", (ASSIGNMENTS, OUTCOMES_BY_UNIT), MOMENTS, Fold, (EXPERIMENTS,))
BENCHES = {bench.name: bench for bench in (ECHO, COUNTING, INTAKE, JUDGE, FOLDING)}


@dataclass(frozen=True)
class Rig:
    """A bench on topics of its own. ``tree`` are its settings as plain values."""

    bench: Bench
    tree: dict[str, Any]

    @staticmethod
    def on(broker: Broker, folder: Path, bench: Bench, partitions: int = 2, **runner: float) -> Rig:
        """Settings with a fresh prefix; ``runner`` overrides keys of that section."""
        quick = {"session_timeout_seconds": 6.0, "clock_skew_seconds": 0.05, "tick_seconds": 0.1, "idle_seconds": 0.05}
        tree = {
            "topic_prefix": f"t{uuid.uuid4().hex[:8]}-",
            "kafka": {"address": broker.address, "partitions": partitions},
            "runner": quick | runner,
            "stack": {"data": str(folder)},
        }
        return Rig(bench, tree)

    @property
    def settings(self) -> Settings:
        """The settings of ordinal 0, without a metrics port."""
        return convert(self.tree)

    def at(self, **keys: Any) -> Rig:
        """The same rig with other top-level keys, e.g. ``ordinal=1``."""
        return Rig(self.bench, self.tree | keys)

    def provision(self) -> Rig:
        """Make the topics and the group's start offsets."""
        bench = self.bench
        logs = () if bench.stateless else (changelog(bench.role),)
        provision(self.settings, Wanted(topics=TOPICS, readers={bench.role: bench.inputs}, changelogs=logs))
        return self

    def environment(self) -> dict[str, str]:
        """This process's environment with these settings in it."""
        own = {name: value for name, value in process_environment().items() if not name.startswith("MILLRACE_")}
        for section, value in self.tree.items():
            keys = value.items() if isinstance(value, dict) else [("", value)]
            own.update({f"MILLRACE_{section}{'__' if key else ''}{key}".upper(): str(item) for key, item in keys})
        return own


def delete_topic(settings: Settings, name: str) -> None:
    """Delete a topic by its full name, and wait until the broker shows it no more: the controller answers before every broker knows."""
    client = admin(settings)
    for future in client.delete_topics([name]).values():
        future.result()
    wait_until(lambda: not describe(settings, [name]), 60, f"topic {name} gone")
