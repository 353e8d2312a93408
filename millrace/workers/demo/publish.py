"""What the demo's outside producer does: requests at a steady rate, and the labels once they are known."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from millrace.infra.kafka.paced import Bare, publish_paced
from millrace.infra.settings import Settings
from millrace.schemas.topics import OUTCOMES, REQUESTS
from millrace.workers.demo.arrivals import Arrivals
from millrace.workers.demo.traffic import Visit

QUIET_SECONDS = 15.0
LABELS_PER_SECOND = 5_000.0


class Answered(Struct, frozen=True):
    """When each request was due, when a committed reader first saw each answer (both monotonic), and how many answers came again."""

    due: Sequence[float]
    first: dict[str, float]
    repeated: int


def decide(settings: Settings, visits: Sequence[Visit], model: str, per_second: float) -> Answered:
    """Publish requests of one prefix, and watch their predictions until all are there or none has come for 15 s."""
    records = [Bare(visit.unit_id.encode(), visit.request(model)) for visit in visits]
    with Arrivals(settings, visits[0].prefix) as arrivals:
        due = publish_paced(settings, REQUESTS.name, records, per_second)
        arrivals.wait(len(visits), QUIET_SECONDS)
    return Answered(due, arrivals.first, arrivals.repeated)


def label(settings: Settings, visits: Sequence[Visit]) -> None:
    """Publish what each site turned out to be."""
    records = [Bare(visit.unit_id.encode(), visit.outcome()) for visit in visits]
    publish_paced(settings, OUTCOMES.name, records, LABELS_PER_SECOND)
