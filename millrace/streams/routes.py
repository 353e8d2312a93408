"""Which version of a model answers which unit, and which versions answer beside it as shadows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container

from millrace.schemas.model import Route
from millrace.schemas.versions import Versions
from millrace.streams.buckets import bucket
from millrace.streams.spans import bounds

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
        self.number = route.version
        """The route's own version."""
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
    """The routes of each model that are still of use: the one that serves, and the newer ones that do not yet.

    Model versions and routes stand on two topics, and versions have to be loaded: so a route may be known before it can serve.
    """

    def __init__(self) -> None:
        self._routes: Versions[Route] = Versions()
        self._serving: dict[str, Serving] = {}
        self._newer: dict[str, list[Serving]] = {}

    def observe(self, route: Route) -> bool:
        """Take in the next version of a route; False where it is not the next."""
        if not self._routes.offer(route):
            return False
        self._newer.setdefault(route.name, []).append(Serving(route))
        return True

    def serve(self, name: str, serving: Serving) -> None:
        """From now on this one serves; older ones are of no use any more."""
        self._serving[name] = serving
        newer = [other for other in self._newer.pop(name, []) if other.number > serving.number]
        if newer:
            self._newer[name] = newer

    def of(self, name: str) -> Serving | None:
        """Who serves a model."""
        return self._serving.get(name)

    @property
    def unsettled(self) -> list[str]:
        """The models that have a newer route than the one that serves."""
        return list(self._newer)

    def newer(self, name: str, known: Container[Target]) -> list[Serving]:
        """The newer routes of a model whose versions are all known, newest first."""
        return [serving for serving in reversed(self._newer.get(name, [])) if serving.complete(known)]

    @property
    def versions(self) -> set[Target]:
        """Every version of the routes that serve."""
        return set().union(*(serving.versions for serving in self._serving.values()))
