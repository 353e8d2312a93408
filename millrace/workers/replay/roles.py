"""Which roles can be run again, and how their work is made: as the live worker's, with places that are as they were."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from millrace.infra.settings import Settings
from millrace.infra.telemetry import Telemetry
from millrace.schemas.topics import ASSIGNMENTS, DEAD_LETTERS, PREDICTIONS, Topic
from millrace.workers import inference
from millrace.workers.replay.known import Places, RecalledModels
from millrace.workers.runner import Work


class Role(Struct, frozen=True):
    """A role: what it is called, which topics it writes, and how its work and places are made. One with state is replayed as a whole."""

    name: str
    outputs: tuple[Topic, ...]
    make: Callable[[Settings, Telemetry], tuple[Work, Places]]
    stateful: bool = False


def _inference(settings: Settings, telemetry: Telemetry) -> tuple[Work, Places]:
    models = RecalledModels(inference.models_of(settings, telemetry))
    return inference.work(settings, telemetry, models), models


ROLES = {inference.ROLE: Role(inference.ROLE, (ASSIGNMENTS, PREDICTIONS, DEAD_LETTERS), _inference)}
