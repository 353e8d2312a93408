"""What an outside producer publishes in the demo: requests, and later what the sites turned out to be. Pure: plain JSON, no clock."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from millrace.workers.demo.sites import Site
from millrace.workers.demo.training import THRESHOLD

LABEL = "label"
CORRECT = "correct"
BRIER = "brier"
MISSED = "missed"
PREFIX = "demo-"
WARM_UP_PREFIX = "warm-up-"
SOURCE = "source"
"""The field of a request's context that tells what is counted from what warms up."""
COUNTED = "visitor"
WARM_UP = "warm-up"

_json = msgspec.json.Encoder().encode


class Visit(Struct, frozen=True):
    """One request: about which site, under which unit id. The data read again gives new units of the same sites."""

    number: int
    unit_id: str
    site: Site
    prefix: str = PREFIX
    source: str = COUNTED

    @property
    def request_id(self) -> str:
        return f"{self.prefix}{self.number:06d}"

    def request(self, model: str) -> bytes:
        """The least that a request may say, and where it comes from."""
        context = {SOURCE: self.source}
        return _json({"id": self.request_id, "unit_id": self.unit_id, "model": model, "context": context, "features": self.site.features})

    def outcome(self, metric: str, value: float) -> bytes:
        """Something that turned out because of this request."""
        return _json(
            {
                "id": f"{self.request_id}-{metric}",
                "unit_id": self.unit_id,
                "request_id": self.request_id,
                "metric": metric,
                "value": value,
            }
        )

    def outcomes(self, said: float | None) -> dict[str, float]:
        """What the site turned out to be; whether that is what the producer, who acted on this answer, took it for; and the Brier score.

        A phishing site that it let through is an event of its own. ``said`` is the chance of phishing, None where nothing was answered.
        Source: Brier, *Verification of forecasts expressed in terms of probability*, Monthly Weather Review 1950, for one event.

        >>> Visit(1, "u", Site(7, {}, True)).outcomes(0.25)
        {'label': 1.0, 'correct': 0.0, 'brier': 0.5625, 'missed': 1.0}
        >>> Visit(1, "u", Site(7, {}, False)).outcomes(0.25), Visit(1, "u", Site(7, {}, False)).outcomes(None)
        ({'label': 0.0, 'correct': 1.0, 'brier': 0.0625}, {'label': 0.0})
        """
        found = {LABEL: float(self.site.phishing)}
        if said is not None:
            correct = (said >= THRESHOLD) is self.site.phishing
            found |= {CORRECT: float(correct), BRIER: (said - found[LABEL]) ** 2}
            if self.site.phishing and not correct:
                found[MISSED] = 1.0
        return found


def visits(sites: Sequence[Site], requests: int, seed: int) -> list[Visit]:
    """So many requests: the sites once in an order of the seed's, then again as units of another name."""
    order = random.Random(seed)
    made: list[Visit] = []
    while len(made) < requests:
        lap = len(made) // len(sites) + 1
        shuffled = order.sample(sites, min(len(sites), requests - len(made)))
        made += [Visit(len(made) + at, unit_id(site, lap), site) for at, site in enumerate(shuffled)]
    return made


def warm_ups(sites: Sequence[Site], requests: int) -> list[Visit]:
    """Requests that are answered but not counted: about the same sites, as units of their own."""
    return [Visit(number, f"{WARM_UP_PREFIX}{number}", sites[number % len(sites)], WARM_UP_PREFIX, WARM_UP) for number in range(requests)]


def unit_id(site: Site, lap: int) -> str:
    """The unit that a site is on the n-th reading of the data.

    >>> unit_id(Site(7, {}, True), 1), unit_id(Site(7, {}, True), 3)
    ('site-0007', 'site-0007-3')
    """
    return site.name if lap == 1 else f"{site.name}-{lap}"
