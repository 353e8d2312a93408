"""Which version of a model answers which unit, and which versions answer beside it as shadows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container

from millrace.schemas.model import Route
from millrace.schemas.versions import Versions
from millrace.streams.assign import bounds, bucket

Target = tuple[str, int]
"""A model's name and version."""


class Serving:
    """One route, made ready to choose: the same unit has the same version for as long as its share covers the unit's bucket."""

    def __init__(self, route: Route) -> None:
        shares = sorted(route.shares, key=lambda share: share.version)
        self.targets: list[Target] = [(route.name, share.version) for share in shares]
        self.shadows: list[Target] = [(route.name, version) for version in sorted(set(route.shadows))]
        self.sole: Target | None = self.targets[0] if len(self.targets) == 1 and not self.shadows else None
        """The one version that answers all units, where no other answers beside it."""
        self._bounds = bounds([share.weight for share in shares])
        self._prefix = f"route:{route.name}:".encode()

    def choose(self, unit: bytes) -> Target:
        """The version that answers this unit."""
        if not self._bounds:
            return self.targets[0]
        return self.targets[bisect_right(self._bounds, bucket(self._prefix + unit))]

    @property
    def versions(self) -> set[Target]:
        """Every version that it needs: those that serve, and the shadows."""
        return {*self.targets, *self.shadows}

    def complete(self, known: Container[Target]) -> bool:
        """Whether all its versions are known."""
        return all(target in known for target in self.versions)


class Routes:
    """The newest route of each model. A route waits, and the one before serves on, until all its versions are known.

    Model versions and routes stand on two topics, so that a route may be read before the version that it names.
    """

    def __init__(self) -> None:
        self._routes: Versions[Route] = Versions()
        self._serving: dict[str, Serving] = {}
        self._waiting: dict[str, Serving] = {}

    def is_next(self, route: Route) -> bool:
        """Whether this is the next version of its route."""
        return route.version == self._routes.next_version(route.name)

    def observe(self, route: Route) -> None:
        """Take in the next version of a route; it waits until it is settled."""
        if self._routes.offer(route):
            self._waiting[route.name] = Serving(route)

    def waiting(self, name: str) -> Serving | None:
        """The route of a model that does not serve yet."""
        return self._waiting.get(name)

    def settle(self, known: Container[Target]) -> None:
        """Let the waiting routes serve whose versions are all known."""
        for name, serving in list(self._waiting.items()):
            if serving.complete(known):
                self._serving[name] = self._waiting.pop(name)

    def of(self, name: str) -> Serving | None:
        """Who serves a model."""
        return self._serving.get(name)

    @property
    def versions(self) -> set[Target]:
        """Every version that some route needs."""
        return set().union(*(serving.versions for serving in self._serving.values()))
