"""The demo from start to end, on a stack of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.clickhouse.client import Column
from millrace.infra.settings import Settings
from millrace.schemas.experiment import Plan
from millrace.schemas.result import Result as Judged
from millrace.workers.demo import control, ledger, sites, traffic, training
from millrace.workers.demo.check import ailing, check, judged
from millrace.workers.demo.conclusion import Published, conclude
from millrace.workers.demo.judge import Truth
from millrace.workers.demo.ledger import Ledger
from millrace.workers.demo.publish import Answered, decide, tell_outcomes
from millrace.workers.demo.result import Found, Result, Setting, latency, result
from millrace.workers.demo.sites import Site
from millrace.workers.demo.stack import own_stack
from millrace.workers.demo.story import Evidence
from millrace.workers.demo.traffic import Visit
from millrace.workers.demo.training import Trained
from millrace.workers.progress import Progress
from millrace.workers.stack.status import status
from millrace.workers.verify import verify

ARCHIVED_SECONDS = 60.0
WARM_UP_PER_SECOND = 1_000.0
Rows = tuple[list[Column], list[tuple[Any, ...]]]


class Options(Struct, frozen=True, kw_only=True):
    """How many requests at what rate, after how long a warm-up; what the split and the models are drawn from; what stays."""

    requests: int
    per_second: float
    warm_up_seconds: float
    seed: int
    keep: bool
    report: Path | None = None
    """Where the page of the experiment's report goes."""


class Told(Struct, frozen=True):
    """What the demo came to, and what its story shows."""

    result: Result
    evidence: Evidence


class Scene(Struct, frozen=True):
    """What the demo plays with: where, which models and experiment, which sites and requests."""

    settings: Settings
    models: Sequence[Trained]
    plan: Plan
    served: Sequence[Site]
    visits: Sequence[Visit]

    @property
    def truth(self) -> Truth:
        """What must be answered."""
        models = {variant.name: variant.model or "" for variant in self.plan.variants}
        return Truth.of(models, self.served, {model.name: model.expected(self.served) for model in self.models})


class Played(Struct, frozen=True):
    """What happened while it ran: the answers, and how many outcomes of each metric were published."""

    answered: Answered
    outcomes: Mapping[str, int]

    def published(self, plan: Plan) -> Published:
        """What the experiment must come to count."""
        return Published(len(self.answered.due), sum(self.outcomes.get(metric.outcome, 0) for metric in plan.metrics))


Tell = Callable[[Told, Path | None], None]


def run(options: Options, progress: Progress, tell: Tell) -> Result:
    """Start a stack, run the demo on it, tell of it, and leave nothing behind but what was asked to stay."""
    began = time.monotonic()
    with own_stack(progress, keep=options.keep) as stack:
        with progress.waiting("starting Kafka, ClickHouse and the workers; training two models meanwhile"):
            scene = _scene(options, stack.ready)
        progress.good(f"Kafka, ClickHouse and the workers are ready, two models are trained ({time.monotonic() - began:.1f} s)")
        played = _play(scene, options, progress)
        told = _read_back(scene, played, progress, lambda: (options, time.monotonic() - began))
        tell(told, stack.folder if options.keep else None)
    return told.result


def _scene(options: Options, ready: Callable[[], Settings]) -> Scene:
    """Train while the stack starts."""
    learnt, served = sites.split(sites.load())
    models = training.train(learnt, options.seed)
    plan = control.draft(models, options.seed, options.requests, datetime.now(UTC))
    return Scene(ready(), models, plan, served, traffic.visits(served, options.requests, options.seed))


def _play(scene: Scene, options: Options, progress: Progress) -> Played:
    """Models, experiment, requests, outcomes."""
    names = " and ".join(model.name for model in scene.models)
    with progress.waiting("adding the models and starting the experiment"):
        control.prepare(scene.settings, scene.models, scene.plan)
    progress.good(f"{names} serve, the experiment {scene.plan.name} splits the sites between them")
    _warm_up(scene, options, progress)
    with progress.waiting(f"publishing {len(scene.visits):,} requests at {options.per_second:,.0f}/s, then what came of them"):
        answered = decide(scene.settings, scene.visits, scene.models[0].name, options.per_second)
        outcomes = tell_outcomes(scene.settings, scene.visits, answered.said)
    progress.good(f"{len(answered.first):,} of {len(scene.visits):,} requests were answered, and what came of them is published")
    return Played(answered, outcomes)


def _warm_up(scene: Scene, options: Options, progress: Progress) -> None:
    """Requests at the demo's own rate, or a modest one: a broker that has just started is still being compiled and answers late."""
    per_second = min(options.per_second, WARM_UP_PER_SECOND)
    warming = traffic.warm_ups(scene.served, round(per_second * options.warm_up_seconds))
    if warming:
        with progress.waiting(f"warming up for {options.warm_up_seconds:g} s with requests that are not counted"):
            decide(scene.settings, warming, scene.models[0].name, per_second)


def _read_back(scene: Scene, played: Played, progress: Progress, run: Callable[[], tuple[Options, float]]) -> Told:
    """What ClickHouse has, what the experiment says, and whether both are what had to be."""
    answered = played.answered
    with Ledger(scene.settings) as book:
        with progress.waiting("waiting until ClickHouse has it all"):
            counts = book.wait(len(scene.visits), ARCHIVED_SECONDS)
        with progress.waiting("comparing every record on Kafka with its row"):
            report = verify(scene.settings)
            wrong = judged(scene.visits, book.decisions(), scene.truth, book.disagreeing())
        arms, rows = book.arms(scene.models), book.first_rows()
    with progress.waiting("computing the experiment's result again from ClickHouse"):
        concluded = conclude(scene.settings, scene.plan, played.published(scene.plan), arms)
    checks = check(scene.visits, answered, report, counts, wrong, concluded.problems)
    if checks.problems:
        checks = replace(checks, problems=(*ailing(status(scene.settings)[0]), *checks.problems))
    options, seconds = run()
    if options.report is not None and concluded.result is not None:
        _write_report(scene.settings, concluded.result, options.report)
        progress.good(f"the experiment's report is in {options.report}")
    found = result(
        Found(counts, arms, latency(scene.visits, answered.due, answered.first), checks, concluded.conclusion),
        Setting(options.seed, options.per_second, options.warm_up_seconds, round(seconds, 1)),
    )
    return Told(found, _evidence(scene, played, rows))


def _evidence(scene: Scene, played: Played, rows: Rows) -> Evidence:
    asked = scene.visits[0]
    metric, value = list(asked.outcomes(played.answered.said.get(asked.request_id)).items())[-1]
    request = asked.request(scene.models[0].name).decode()
    return Evidence(
        len(scene.visits), played.outcomes, len(scene.served), request, asked.outcome(metric, value).decode(), ledger.ACCURACY_SQL, *rows
    )


def _write_report(settings: Settings, found: Judged, path: Path) -> None:
    """The page of ``millrace experiments report``. Charts take a second to load: only where they are asked for."""
    from millrace.workers.report.gather import gather
    from millrace.workers.report.page import page

    path.write_text(page(gather(settings, found, datetime.now(UTC), ARCHIVED_SECONDS)), encoding="utf-8")
