"""The demo's models and its experiment, put on the control topics as the commands do it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

from msgspec.structs import replace

from millrace.infra.kafka.control import Control
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis, Condition, Plan, State, Test, Variant
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.prediction import Status
from millrace.schemas.topics import EXPERIMENTS
from millrace.streams.revise import move
from millrace.workers.commands.models import add_model, manifest
from millrace.workers.commands.predict import ask
from millrace.workers.demo.traffic import BRIER, CORRECT, COUNTED, MISSED, SOURCE, WARM_UP
from millrace.workers.demo.training import OUTPUTS, Trained

EXPERIMENT = "phishing-models"
WARM_SECONDS = 30.0
PROBE_SECONDS = 0.25
ABSOLUTE = "absolute"
WINDOW_SECONDS = 3_600.0
METRICS = (
    Metric(
        name=CORRECT,
        outcome=CORRECT,
        kind=Kind.PROPORTION,
        role=Role.PRIMARY,
        window_seconds=WINDOW_SECONDS,
        minimal_effect=0.01,
    ),
    Metric(
        name=BRIER,
        outcome=BRIER,
        direction=Direction.DECREASE,
        cap=1.0,
        window_seconds=WINDOW_SECONDS,
    ),
    Metric(
        name=MISSED,
        outcome=MISSED,
        kind=Kind.PROPORTION,
        role=Role.GUARDRAIL,
        direction=Direction.DECREASE,
        window_seconds=WINDOW_SECONDS,
        limit=0.01,
    ),
)
"""Of a hundred sites, one more told right is worth having, and one more phishing site let through is borne.

The Brier score informs: it sees by how much an answer is off.
"""


def draft(models: Sequence[Trained], seed: int, requests: int, now: datetime) -> Plan:
    """An experiment that gives each site one of the models: the first is the control. The seed salts the split.

    Everything that it is judged by is fixed before anybody is asked. What warms up does not take part. One unit of each variant is named
    by hand, whose answer shows that the experiment runs: results leave such units out.
    """
    variants = tuple(Variant(name=model.name.removeprefix("phishing-"), model=model.name) for model in models)
    return Plan(
        name=EXPERIMENT,
        version=1,
        state=State.DRAFT,
        time=now,
        created=now,
        salt=f"demo-{seed}",
        variants=variants,
        models=(models[0].name,),
        targeting=(Condition(field=SOURCE, test=Test.EQUALS, value=COUNTED),),
        overrides={probe(variant): variant.name for variant in variants},
        hypothesis="trees tell phishing sites better than a linear model, and let no more of them through",
        metrics=METRICS,
        analysis=Analysis(difference=ABSOLUTE, tuning=float(requests), lateness_seconds=600.0),
    )


def rehearsal(plan: Plan) -> Plan:
    """The same for what warms up, as an experiment of its own: all workers are then warm, and the experiment has the demo's units alone."""
    return replace(plan, name=WARM_UP, targeting=(Condition(field=SOURCE, test=Test.EQUALS, value=WARM_UP),), overrides={})


def probe(variant: Variant) -> str:
    """The unit that shows whether a variant's model answers."""
    return f"probe-{variant.name}"


def prepare(settings: Settings, models: Sequence[Trained], plan: Plan) -> None:
    """Add the models, start the experiment, and wait until the workers decide by them."""
    with ThreadPoolExecutor() as hands:  # each command's own producer takes half a second to begin, and none needs another's result
        adding = [hands.submit(_add, settings, model) for model in models]
        starting = [hands.submit(_start, settings, one) for one in (rehearsal(plan), plan)]
        for done in (*adding, *starting):
            done.result()
        warming = [hands.submit(_warm, settings, models[0], variant) for variant in plan.variants]
        for warmed in warming:
            warmed.result()


def _add(settings: Settings, model: Trained) -> None:
    add_model(settings, model.name, manifest(model.onnx, ",".join(model.features), OUTPUTS))


def _start(settings: Settings, plan: Plan) -> None:
    plans: Control[Plan] = Control(settings, EXPERIMENTS)
    plans.append(plan.name, lambda _: plan)
    running = move(plan, State.RUNNING, datetime.now(UTC))
    plans.append(plan.name, lambda _: running)


def _warm(settings: Settings, asked: Trained, variant: Variant) -> None:
    """Ask about the variant's own unit until its model answers. Raises Unavailable where none does in time."""
    deadline = time.monotonic() + WARM_SECONDS
    for attempt in count(1):
        unit = probe(variant)
        request = {"id": f"{unit}-{attempt}", "unit_id": unit, "model": asked.name, "features": dict.fromkeys(asked.features, 0)}
        answer = ask(settings, request, WARM_SECONDS)
        if answer.model == variant.model and answer.status is Status.OK:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{variant.model} did not begin to answer within {WARM_SECONDS:g} s: {answer.model} said {answer.error or answer.status}"
            )
        time.sleep(PROBE_SECONDS)
