"""What the demo's outside producer does: requests at a steady rate, and once the sites are known, what its acts were worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from millrace.infra.kafka.paced import Bare, publish_paced
from millrace.infra.settings import Settings
from millrace.schemas.topics import OUTCOMES, REQUESTS
from millrace.workers.demo.arrivals import Arrivals
from millrace.workers.demo.traffic import Visit

QUIET_SECONDS = 15.0
OUTCOMES_PER_SECOND = 7_500.0


class Answered(Struct, frozen=True):
    """When each request was due, when a committed reader first saw each answer (both monotonic), and how many answers came again.

    ``said`` is what was answered: request to chance of phishing.
    """

    due: Sequence[float]
    first: dict[str, float]
    repeated: int
    said: dict[str, float]


def decide(settings: Settings, visits: Sequence[Visit], model: str, per_second: float) -> Answered:
    """Publish requests of one prefix, and watch their predictions until all are there or none has come for 15 s."""
    records = [Bare(visit.unit_id.encode(), visit.request(model)) for visit in visits]
    with Arrivals(settings, visits[0].prefix) as arrivals:
        due = publish_paced(settings, REQUESTS.name, records, per_second)
        arrivals.wait(len(visits), QUIET_SECONDS)
    return Answered(due, arrivals.first, arrivals.repeated, arrivals.said)


def tell_outcomes(settings: Settings, visits: Sequence[Visit], said: Mapping[str, float]) -> Counter[str]:
    """Publish what each site turned out to be, and what acting on the answer was worth; how many outcomes of each metric that is."""
    told = [(visit, *outcome) for visit in visits for outcome in visit.outcomes(said.get(visit.request_id)).items()]
    records = [Bare(visit.unit_id.encode(), visit.outcome(metric, value)) for visit, metric, value in told]
    publish_paced(settings, OUTCOMES.name, records, OUTCOMES_PER_SECOND)
    return Counter(metric for _, metric, _ in told)
