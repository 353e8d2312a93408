"""The demo from start to end, on a stack of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.settings import Settings
from millrace.schemas.experiment import Plan
from millrace.workers.demo import control, ledger, sites, traffic, training
from millrace.workers.demo.check import ailing, check, judged
from millrace.workers.demo.judge import Truth
from millrace.workers.demo.ledger import Ledger
from millrace.workers.demo.publish import Answered, decide, label
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


class Options(Struct, frozen=True, kw_only=True):
    """How many requests at what rate, after how long a warm-up; what the split and the models are drawn from; whether the stack stays."""

    requests: int
    per_second: float
    warm_up_seconds: float
    seed: int
    keep: bool


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


Tell = Callable[[Told, Path | None], None]


def run(options: Options, progress: Progress, tell: Tell) -> Result:
    """Start a stack, run the demo on it, tell of it, and leave nothing behind but what was asked to stay."""
    began = time.monotonic()
    with own_stack(progress, keep=options.keep) as stack:
        with progress.waiting("starting Kafka, ClickHouse and the workers; training two models meanwhile"):
            scene = _scene(options, stack.ready)
        progress.good(f"Kafka, ClickHouse and the workers are ready, two models are trained ({time.monotonic() - began:.1f} s)")
        answered = _play(scene, options, progress)
        told = _read_back(scene, answered, progress, lambda: (options, time.monotonic() - began))
        tell(told, stack.folder if options.keep else None)
    return told.result


def _scene(options: Options, ready: Callable[[], Settings]) -> Scene:
    """Train while the stack starts."""
    learnt, served = sites.split(sites.load())
    models = training.train(learnt, options.seed)
    plan = control.draft(models, options.seed, datetime.now(UTC))
    return Scene(ready(), models, plan, served, traffic.visits(served, options.requests, options.seed))


def _play(scene: Scene, options: Options, progress: Progress) -> Answered:
    """Models, experiment, requests, labels."""
    names = " and ".join(model.name for model in scene.models)
    with progress.waiting("adding the models and starting the experiment"):
        control.prepare(scene.settings, scene.models, scene.plan)
    progress.good(f"{names} serve, the experiment {scene.plan.name} splits the sites between them")
    _warm_up(scene, options, progress)
    with progress.waiting(f"publishing {len(scene.visits):,} requests at {options.per_second:,.0f}/s, then their labels"):
        answered = decide(scene.settings, scene.visits, scene.models[0].name, options.per_second)
        label(scene.settings, scene.visits)
    progress.good(f"{len(answered.first):,} of {len(scene.visits):,} requests were answered, and their labels are published")
    return answered


def _warm_up(scene: Scene, options: Options, progress: Progress) -> None:
    """Requests at the demo's own rate, or a modest one: a broker that has just started is still being compiled and answers late."""
    per_second = min(options.per_second, WARM_UP_PER_SECOND)
    warming = traffic.warm_ups(scene.served, round(per_second * options.warm_up_seconds))
    if warming:
        with progress.waiting(f"warming up for {options.warm_up_seconds:g} s with requests that are not counted"):
            decide(scene.settings, warming, scene.models[0].name, per_second)


def _read_back(scene: Scene, answered: Answered, progress: Progress, run: Callable[[], tuple[Options, float]]) -> Told:
    """What ClickHouse has, and whether it is what had to be."""
    with Ledger(scene.settings) as book:
        with progress.waiting("waiting until ClickHouse has it all"):
            counts = book.wait(len(scene.visits), ARCHIVED_SECONDS)
        with progress.waiting("comparing every record on Kafka with its row"):
            report = verify(scene.settings)
            wrong = judged(scene.visits, book.decisions(), scene.truth, book.disagreeing())
        arms, rows = book.arms(scene.models), book.first_rows()
    checks = check(scene.visits, answered, report, counts, wrong)
    if checks.problems:
        checks = replace(checks, problems=(*ailing(status(scene.settings)[0]), *checks.problems))
    options, seconds = run()
    found = result(
        Found(counts, arms, latency(scene.visits, answered.due, answered.first), checks),
        Setting(options.seed, options.per_second, options.warm_up_seconds, round(seconds, 1)),
    )
    asked = scene.visits[0]
    evidence = Evidence(
        len(scene.visits), asked.request(scene.models[0].name).decode(), asked.outcome().decode(), ledger.ACCURACY_SQL, *rows
    )
    return Told(found, evidence)
