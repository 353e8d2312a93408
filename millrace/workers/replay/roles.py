"""Which roles can be run again, and how their work is made: as the live worker's, with places that are as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from millrace.infra.settings import Settings
from millrace.infra.telemetry import Telemetry
from millrace.schemas.experiment import Plan
from millrace.schemas.topics import ASSIGNMENTS, DEAD_LETTERS, EXPERIMENTS, OUTCOMES_BY_UNIT, POLICIES, PREDICTIONS, RESULTS, SIGNALS, Topic
from millrace.streams.judge.step import BY_GUARDRAIL
from millrace.workers import inference, intake, judge
from millrace.workers.replay.known import Places, RecalledModels
from millrace.workers.runner import Work


class Role(Struct, frozen=True):
    """A role: what it is called, which topics it writes, and how its work and places are made. One with state is replayed as a whole.

    ``others`` says of an event on one of these topics whether somebody else wrote it.
    """

    name: str
    outputs: tuple[Topic, ...]
    make: Callable[[Settings, Telemetry], tuple[Work, Places]]
    stateful: bool = False
    others: Callable[[Any], bool] = lambda event: False


def _inference(settings: Settings, telemetry: Telemetry) -> tuple[Work, Places]:
    models = RecalledModels(inference.models_of(settings, telemetry))
    return inference.work(settings, telemetry, models), models


def _intake(settings: Settings, telemetry: Telemetry) -> tuple[Work, Places]:
    return intake.work(settings), Places()


def _judge(settings: Settings, telemetry: Telemetry) -> tuple[Work, Places]:
    return judge.work(), Places()


def _by_people(event: Any) -> bool:
    """Plans are written by commands; the judge's own say that they were stopped by its rule."""
    return isinstance(event, Plan) and not event.conclusion.startswith(BY_GUARDRAIL)


ROLES = {
    role.name: role
    for role in (
        Role(inference.ROLE, (ASSIGNMENTS, PREDICTIONS, DEAD_LETTERS), _inference),
        Role(intake.ROLE, (OUTCOMES_BY_UNIT, DEAD_LETTERS), _intake),
        Role(judge.ROLE, (RESULTS, POLICIES, SIGNALS, EXPERIMENTS), _judge, stateful=True, others=_by_people),
    )
}
