"""The demo's models and its experiment, put on the control topics as the commands do it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

from millrace.infra.kafka.control import Control
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable
from millrace.schemas.experiment import Plan, State, Variant
from millrace.schemas.prediction import Status
from millrace.schemas.topics import EXPERIMENTS
from millrace.streams.assign import bounds, bucket
from millrace.streams.revise import move
from millrace.workers.commands.models import add_model, manifest
from millrace.workers.commands.predict import ask
from millrace.workers.demo.training import OUTPUTS, Trained

EXPERIMENT = "phishing-models"
WARM_SECONDS = 30.0
PROBE_SECONDS = 0.25


def draft(models: Sequence[Trained], seed: int, now: datetime) -> Plan:
    """An experiment that gives each site one of the models: the first is the control. The seed salts the split."""
    return Plan(
        name=EXPERIMENT,
        version=1,
        state=State.DRAFT,
        time=now,
        salt=f"demo-{seed}",
        variants=tuple(Variant(name=model.name.removeprefix("phishing-"), model=model.name) for model in models),
        models=(models[0].name,),
        hypothesis="trees find more phishing sites than a linear model",
    )


def prepare(settings: Settings, models: Sequence[Trained], plan: Plan) -> None:
    """Add the models, start the experiment, and wait until the workers decide by them."""
    with ThreadPoolExecutor() as hands:  # each command's own producer takes half a second to begin, and none needs another's result
        adding = [hands.submit(_add, settings, model) for model in models]
        running = hands.submit(_start, settings, plan).result()
        for added in adding:
            added.result()
        warming = [hands.submit(_warm, settings, models[0], model.name, running) for model in models]
        for warmed in warming:
            warmed.result()


def _add(settings: Settings, model: Trained) -> None:
    add_model(settings, model.name, manifest(model.onnx, ",".join(model.features), OUTPUTS))


def _start(settings: Settings, plan: Plan) -> Plan:
    plans: Control[Plan] = Control(settings, EXPERIMENTS)
    plans.append(plan.name, lambda _: plan)
    running = move(plan, State.RUNNING, datetime.now(UTC))
    return plans.append(plan.name, lambda _: running)


def _warm(settings: Settings, asked: Trained, wanted: str, plan: Plan) -> None:
    """Ask about a unit of the variant that has this model, until that model answers. Raises Unavailable where none does in time."""
    unit = unit_of(plan, wanted)
    deadline = time.monotonic() + WARM_SECONDS
    for attempt in count(1):
        request = {"id": f"warm-up-{wanted}-{attempt}", "unit_id": unit, "model": asked.name, "features": dict.fromkeys(asked.features, 0)}
        answer = ask(settings, request, WARM_SECONDS)
        if answer.model == wanted and answer.status is Status.OK:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{wanted} did not begin to answer within {WARM_SECONDS:g} s: {answer.model} said {answer.error or answer.status}"
            )
        time.sleep(PROBE_SECONDS)


def variant_of(plan: Plan, unit: str) -> Variant:
    """Which variant a plan without targeting gives to a unit."""
    upper = bounds([variant.weight for variant in plan.variants])
    return plan.variants[bisect_right(upper, bucket(f"{plan.salt}:variant:{unit}".encode()))]


def unit_of(plan: Plan, model: str) -> str:
    """The first of some made-up units that the plan gives to a model."""
    return next(unit for number in count(1) if variant_of(plan, unit := f"warm-up-{number}").model == model)
