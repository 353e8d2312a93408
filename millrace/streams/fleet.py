"""Which model versions there are and which of them answer, told by the control topics ``models`` and ``routes``."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec

from millrace.schemas.errors import Never
from millrace.schemas.limits import Limits
from millrace.schemas.model import ModelVersion, Route
from millrace.schemas.versions import Versions
from millrace.streams.features import FeatureReader
from millrace.streams.microbatch import Model
from millrace.streams.routes import Routes, Serving, Target


class Models(Protocol):
    """Where model versions are loaded. Loading happens elsewhere than in ``get``, and one version is never taken for another."""

    def add(self, version: ModelVersion) -> None:
        """Learn of a version: its manifest, and its bytes or where they are. Telling it twice changes nothing."""
        ...

    def want(self, targets: AbstractSet[Target]) -> None:
        """Begin to load these versions and let go of all others."""
        ...

    def get(self, target: Target) -> Model:
        """The loaded and warm version. Raises NotNow while it is on its way, Never (saying why) where it cannot be used."""
        ...


class Fleet:
    """The versions and routes of all models, as of the control records told so far.

    Once requests flow (``live``), a change that needs a version which is still on its way raises NotNow and changes nothing: the record
    comes again later, and what serves goes on serving. So which version answers is a function of the control records alone.
    """

    def __init__(self, models: Models, limits: Limits) -> None:
        self.live = False
        self.digests: dict[Target, str] = {}
        self._models = models
        self._limits = limits
        self._versions: Versions[ModelVersion] = Versions()
        self._routes = Routes()
        self._readers: dict[Target, FeatureReader] = {}

    def serving(self, name: str) -> Serving | None:
        """Who answers for a model."""
        return self._routes.of(name)

    def model(self, target: Target) -> Model | str:
        """The loaded model, or why there is none. Raises NotNow while it is on its way."""
        try:
            return self._models.get(target)
        except Never as error:
            return str(error)

    def reader(self, target: Target, model: Model) -> FeatureReader:
        """What reads features in this version's order."""
        if target not in self._readers:
            self._readers[target] = FeatureReader(model.manifest.features, model.manifest.defaults, self._limits)
        return self._readers[target]

    def observe_version(self, version: ModelVersion) -> bool:
        """Take in a model version; False where it is not the next of its name."""
        if version.version != self._versions.next_version(version.name):
            return False
        target = (version.name, version.version)
        self._models.add(version)
        waiting = self._routes.waiting(version.name)
        if waiting is not None and waiting.complete({*self.digests, target}):
            self._warm(waiting)
        self._versions.offer(msgspec.structs.replace(version, data=b""))
        self.digests[target] = version.digest
        self._settle()
        return True

    def observe_route(self, route: Route) -> bool:
        """Take in a route; False where it is not the next of its name."""
        if not self._routes.is_next(route):
            return False
        serving = Serving(route)
        if serving.complete(self.digests):
            self._warm(serving)
        self._routes.observe(route)
        self._settle()
        return True

    def _warm(self, serving: Serving) -> None:
        """Raise NotNow while a version is on its way. One that cannot be used at all is no reason to wait: its answers will say so."""
        if not self.live:
            return
        self._models.want(self._routes.versions | serving.versions)
        for target in sorted(serving.versions):
            self.model(target)

    def _settle(self) -> None:
        self._routes.settle(self.digests)
        wanted = self._routes.versions
        self._models.want(wanted)
        self._readers = {target: reader for target, reader in self._readers.items() if target in wanted}
