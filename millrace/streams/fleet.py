"""Which model versions there are and which of them answer, told by the control topics ``models`` and ``routes``."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.errors import Never, NotNow, Unavailable
from millrace.schemas.limits import Limits
from millrace.schemas.model import ModelVersion, Route
from millrace.schemas.versions import Versions
from millrace.streams.features import FeatureReader
from millrace.streams.microbatch import Model
from millrace.streams.routes import Routes, Serving, Target

GRACE_SECONDS = 5.0
"""How long a model is waited for of which half is known: a version without a route, or a route without its version."""
RETRY_SECONDS = 0.05


class Models(Protocol):
    """Where model versions are loaded. Loading happens elsewhere than in ``get``, and one version is never taken for another."""

    def add(self, version: ModelVersion) -> None:
        """Learn of a version: its manifest, and its bytes or where they are. Telling it twice changes nothing."""
        ...

    def want(self, targets: AbstractSet[Target]) -> None:
        """Begin to load these versions and let go of all others."""
        ...

    def get(self, target: Target) -> Model:
        """The loaded and warm version.

        Raises NotNow while it is on its way, Unavailable while its bytes are not to be had (they are asked for again), and Never where
        it cannot be used; each says why.
        """
        ...


class Lack(Struct, frozen=True):
    """Why a version is not there, and whether it is on its way or what was tried has failed."""

    reason: str
    on_its_way: bool


class Fleet:
    """The versions and routes of all models, as of the control records told so far.

    A model is served by its newest route of which nothing is lacking, so that what serves goes on until the next version is loaded and
    warm. Where every route lacks something, the newest one serves: its requests wait for what is on its way, and are answered with
    the reason where it has failed. So who answers is a function of the control records and of what ``settle`` says is lacking.
    """

    def __init__(self, models: Models, limits: Limits) -> None:
        self.digests: dict[Target, str] = {}
        self._models = models
        self._limits = limits
        self._versions: Versions[ModelVersion] = Versions()
        self._routes = Routes()
        self._told_ms: dict[str, int] = {}
        self._stuck: dict[str, Serving] = {}
        self._lacking: dict[Target, Lack] = {}
        self._wanted: set[Target] = set()
        self._readers: dict[Target, FeatureReader] = {}

    def serving(self, name: str, now_ms: int) -> Serving | None:
        """Who answers for a model; None where nobody does. Raises NotNow while its first version is on its way."""
        found = self._routes.of(name) or self._stuck.get(name)
        if found is None and name in self._told_ms:
            self._wait_for(name, now_ms)
        return found

    def knows(self, name: str) -> bool:
        """Whether a version of the model was added."""
        return self._versions.newest(name) is not None

    def model(self, target: Target) -> Model | str:
        """The loaded model, or why there is none. Raises NotNow while it is on its way."""
        lack = self._lacking.get(target)
        if lack is None:
            return self._models.get(target)
        if lack.on_its_way:
            raise NotNow(lack.reason, RETRY_SECONDS)
        return lack.reason

    def reader(self, target: Target, model: Model) -> FeatureReader:
        """What reads features in this version's order."""
        if target not in self._readers:
            self._readers[target] = FeatureReader(model.manifest.features, model.manifest.defaults, self._limits)
        return self._readers[target]

    def observe_version(self, version: ModelVersion, appended_ms: int) -> bool:
        """Take in a model version; False where it is not the next of its name."""
        if version.version != self._versions.next_version(version.name):
            return False
        self._models.add(version)
        self._versions.offer(replace(version, data=b""))
        self.digests[version.name, version.version] = version.digest
        self._told(version.name, appended_ms)
        return True

    def observe_route(self, route: Route, appended_ms: int) -> bool:
        """Take in a route; False where it is not the next of its name."""
        if not self._routes.observe(route):
            return False
        self._told(route.name, appended_ms)
        return True

    def settle(self) -> dict[str, str]:
        """Let routes serve whose versions are there by now; what is lacking of those that do not, ``model/version`` to reason."""
        if not self._routes.unsettled:
            return {}
        self._lacking, self._stuck = {}, {}
        tried: set[Target] = set()
        for name in self._routes.unsettled:
            tried |= self._advance(name)
        self._want(self._routes.versions | tried)
        return {f"{name}/{version}": lack.reason for (name, version), lack in sorted(self._lacking.items())}

    def _told(self, name: str, appended_ms: int) -> None:
        """The newest time of two topics, in whatever order they were read."""
        self._told_ms[name] = max(appended_ms, self._told_ms.get(name, 0))

    def _advance(self, name: str) -> set[Target]:
        """Try the newer routes of a model, newest first; the versions that were tried in vain.

        Beside one that serves, all are tried. Where nothing serves yet, none is tried behind one that is on its way: its requests wait.
        """
        tried: set[Target] = set()
        newer = self._routes.newer(name, self.digests)
        for serving in newer:
            self._want(self._wanted | serving.versions)
            lacks = {target: lack for target in sorted(serving.versions) if (lack := self._lack(target)) is not None}
            if not lacks:
                self._routes.serve(name, serving)
                return tried
            tried |= serving.versions
            self._lacking |= lacks
            if self._routes.of(name) is None and all(lack.on_its_way for lack in lacks.values()):
                return tried
        if newer:
            self._stuck[name] = newer[0]
        return tried

    def _lack(self, target: Target) -> Lack | None:
        try:
            self._models.get(target)
        except NotNow as error:
            return Lack(str(error), on_its_way=True)
        except (Never, Unavailable) as error:
            return Lack(str(error), on_its_way=False)
        return None

    def _want(self, wanted: set[Target]) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self._models.want(frozenset(wanted))
            self._readers = {target: reader for target, reader in self._readers.items() if target in wanted}

    def _wait_for(self, name: str, now_ms: int) -> None:
        """Raise NotNow while a route's versions are loaded for the first time, or the other half of what was told is about to come."""
        targets = [target for target, lack in self._lacking.items() if target[0] == name and lack.on_its_way]
        if targets:
            raise NotNow(self._lacking[targets[0]].reason, RETRY_SECONDS)
        if now_ms - self._told_ms[name] < GRACE_SECONDS * 1_000:
            raise NotNow(f"model {name!r} was added a moment ago, and its version and route are not both known yet", RETRY_SECONDS)
