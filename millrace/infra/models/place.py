"""Model versions, loaded beside the stream: a version is taken when it is warm, and what serves goes on until then."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec

from millrace.infra.models.graph import digest_of, examine
from millrace.infra.models.session import Session, SessionSettings, Timed, check_providers, open_session
from millrace.infra.models.spool import Spool
from millrace.infra.objects import Damaged
from millrace.infra.settings import InferenceSettings
from millrace.infra.telemetry import ModelLoaded, ModelRun, ModelUnloaded, PlaceUnavailable, Telemetry
from millrace.infra.telemetry import ModelRefused as RefusedEvent
from millrace.schemas.errors import ModelRefused, Never, NotNow, Unavailable
from millrace.schemas.model import ModelVersion

Target = tuple[str, int]
LOADING_SECONDS = 0.02
FETCH_RETRY_SECONDS = 1.0


class Objects(Protocol):
    """Where bytes lie that do not fit into a record."""

    def get(self, location: str) -> bytes:
        """The bytes. Raises Unavailable where they are not to be had now."""
        ...


class OnnxModels:
    """Loads wanted versions in a thread of its own, and keeps at most ``loaded_models`` in memory, the last used ones."""

    def __init__(self, settings: InferenceSettings, objects: Objects, telemetry: Telemetry) -> None:
        self._settings = settings
        self._session_settings = SessionSettings(settings.intra_op_threads, settings.providers)
        check_providers(settings.providers)
        self._objects = objects
        self._telemetry = telemetry
        self._spool = Spool()
        self._known: dict[Target, ModelVersion] = {}
        self._wanted: frozenset[Target] = frozenset()
        self._loading: dict[Target, Future[Session | None]] = {}
        self._loaded: OrderedDict[Target, Session] = OrderedDict()
        self._warmed: set[Target] = set()
        self._refused: dict[Target, str] = {}
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")

    def add(self, version: ModelVersion) -> None:
        """Learn of a version; telling it twice changes nothing."""
        target = (version.name, version.version)
        if target in self._known:
            return
        if version.data:
            self._spool.put(version.digest, version.data)
        self._known[target] = msgspec.structs.replace(version, data=b"")

    def want(self, targets: AbstractSet[Target]) -> None:
        """Begin to load these and let go of all others."""
        self._wanted = frozenset(targets)
        for target in [target for target in self._loaded if target not in self._wanted]:
            self._unload(target)
        for target in [target for target in self._loading if target not in self._wanted]:
            self._loading.pop(target).cancel()
        self._warmed &= self._wanted
        for target in sorted(self._wanted)[: self._settings.loaded_models]:
            if target in self._known and not self._is_placed(target):
                self._begin(target)

    def get(self, target: Target) -> Session:
        """The loaded and warm version. Raises NotNow while it is on its way, Never where it cannot be used.

        One that had to make room is loaded again at once: waiting for it could push out what the same poll needs too.
        """
        session = self._loaded.get(target)
        if session is not None:
            self._loaded.move_to_end(target)
            return session
        if target in self._refused:
            raise Never(self._refused[target])
        if target not in self._known:
            raise Never(f"model {target[0]!r} has no version {target[1]}: see `millrace models list`")
        return self._keep(target, self._load(target) if target in self._warmed else self._collect(target))

    def close(self) -> None:
        """End the loading thread and let go of everything."""
        self._wanted = frozenset()
        self._loader.shutdown(wait=True, cancel_futures=True)
        for target in list(self._loaded):
            self._unload(target)
        self._spool.close()

    def _is_placed(self, target: Target) -> bool:
        return any(target in place for place in (self._loaded, self._loading, self._refused, self._warmed))

    def _begin(self, target: Target) -> None:
        self._loading[target] = self._loader.submit(self._load_if_wanted, target)

    def _collect(self, target: Target) -> Session:
        """What the loading thread made. Raises NotNow until then, and where the store does not answer; Never where it refused."""
        if target not in self._loading:
            self._begin(target)
        if not self._loading[target].done():
            raise NotNow(f"model {target[0]!r} version {target[1]} is being loaded", LOADING_SECONDS)
        try:
            session = self._loading.pop(target).result()
        except Unavailable as error:
            self._telemetry.emit(PlaceUnavailable(place="objects", reason=str(error), retry_seconds=FETCH_RETRY_SECONDS))
            raise NotNow(f"model {target[0]!r} version {target[1]} cannot be fetched yet: {error}", FETCH_RETRY_SECONDS) from None
        except (ModelRefused, Damaged) as error:
            self._refused[target] = f"model {target[0]!r} version {target[1]} cannot be used: {error}"
            self._telemetry.emit(RefusedEvent(model=target[0], version=target[1], reason=str(error)))
            raise Never(self._refused[target]) from None
        if session is None:
            raise NotNow(f"model {target[0]!r} version {target[1]} is wanted again", LOADING_SECONDS)
        return session

    def _keep(self, target: Target, session: Session) -> Session:
        self._loaded[target] = session
        self._warmed.add(target)
        while len(self._loaded) > self._settings.loaded_models:
            self._unload(next(iter(self._loaded)))
        return session

    def _unload(self, target: Target) -> None:
        del self._loaded[target]
        self._telemetry.emit(ModelUnloaded(model=target[0], version=target[1]))

    def _load_if_wanted(self, target: Target) -> Session | None:
        """In the loading thread. A version that a later route made needless is not loaded."""
        return self._load(target) if target in self._wanted else None

    def _load(self, target: Target) -> Session:
        """Bytes, checks, session, golden input: a session that this returns is warm. Raises ModelRefused, Damaged or Unavailable."""
        began = time.monotonic()
        manifest = self._known[target]
        data = self._bytes(manifest)
        graph = examine(data, self._settings.model_bytes)
        if graph.operators != manifest.operators:
            raise ModelRefused(f"the model's operators are {', '.join(graph.operators)}, the manifest says {', '.join(manifest.operators)}")
        session = Session(open_session(data, self._session_settings), manifest)
        session.check()
        session.timed = self._timed(target[0])
        seconds = time.monotonic() - began
        self._telemetry.emit(ModelLoaded(model=target[0], version=target[1], digest=manifest.digest, seconds=seconds))
        return session

    def _bytes(self, manifest: ModelVersion) -> bytes:
        data = self._spool.get(manifest.digest)
        if data is None:
            if not manifest.location:
                raise ModelRefused("its record holds neither its bytes nor where they are")
            data = self._objects.get(manifest.location)
        if len(data) != manifest.size_bytes or digest_of(data) != manifest.digest:
            raise ModelRefused(f"its bytes are not those of the manifest (sha256 {digest_of(data)}, {len(data)} bytes)")
        self._spool.put(manifest.digest, data)
        return data

    def _timed(self, model: str) -> Timed:
        return lambda rows, seconds: self._telemetry.emit(ModelRun(model=model, records=rows, seconds=seconds))
