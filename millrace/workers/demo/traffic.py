"""What an outside producer publishes in the demo: requests, and later what the sites turned out to be. Pure: plain JSON, no clock."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from millrace.workers.demo.sites import Site

METRIC = "label"
PREFIX = "demo-"
WARM_UP_PREFIX = "warm-up-"

_json = msgspec.json.Encoder().encode


class Visit(Struct, frozen=True):
    """One request: about which site, under which unit id. The data read again gives new units of the same sites."""

    number: int
    unit_id: str
    site: Site
    prefix: str = PREFIX

    @property
    def request_id(self) -> str:
        return f"{self.prefix}{self.number:06d}"

    def request(self, model: str) -> bytes:
        """The least that a request may say."""
        return _json({"id": self.request_id, "unit_id": self.unit_id, "model": model, "features": self.site.features})

    def outcome(self) -> bytes:
        """What the site turned out to be."""
        return _json(
            {
                "id": f"{self.request_id}-{METRIC}",
                "unit_id": self.unit_id,
                "request_id": self.request_id,
                "metric": METRIC,
                "value": float(self.site.phishing),
            }
        )


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
    return [Visit(number, f"{WARM_UP_PREFIX}{number}", sites[number % len(sites)], WARM_UP_PREFIX) for number in range(requests)]


def unit_id(site: Site, lap: int) -> str:
    """The unit that a site is on the n-th reading of the data.

    >>> unit_id(Site(7, {}, True), 1), unit_id(Site(7, {}, True), 3)
    ('site-0007', 'site-0007-3')
    """
    return site.name if lap == 1 else f"{site.name}-{lap}"
