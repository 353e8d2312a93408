"""Model versions, loaded beside the stream: a version is taken when it is warm, and what serves goes on until then."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec
from msgspec import Struct

from millrace.infra.models.graph import digest_of, examine
from millrace.infra.models.session import Session, SessionSettings, Timed, check_providers, open_session
from millrace.infra.models.spool import Spool
from millrace.infra.objects import Damaged, Missing
from millrace.infra.settings import InferenceSettings
from millrace.infra.telemetry import ModelLoaded, ModelMissing, ModelRun, ModelUnloaded, PlaceAnswers, PlaceUnavailable, Telemetry
from millrace.infra.telemetry import ModelRefused as RefusedEvent
from millrace.schemas.errors import MillraceError, ModelRefused, Never, NotNow, Unavailable
from millrace.schemas.model import ModelVersion

Target = tuple[str, int]
LOADING_SECONDS = 0.05
FETCH_RETRY_SECONDS = 1.0
FETCH_RETRY_LIMIT_SECONDS = 60.0


class Objects(Protocol):
    """Where bytes lie that do not fit into a record."""

    def get(self, location: str) -> bytes:
        """The bytes. Raises Missing or Damaged, or Unavailable while the store does not answer."""
        ...


class Delay(Struct):
    """A version whose bytes were not to be had: what is said of it, how often it was tried, and when that is done again.

    ``away`` says that it was the store that did not answer: then nobody knows yet whether the version can be had.
    """

    reason: str
    away: bool
    tries: int
    due: float


def retry_seconds(tries: int) -> float:
    """How long after so many tries the next one comes.

    >>> [retry_seconds(tries) for tries in (1, 2, 3, 20)]
    [1.0, 2.0, 4.0, 60.0]
    """
    return float(min(FETCH_RETRY_SECONDS * 2 ** min(tries - 1, 20), FETCH_RETRY_LIMIT_SECONDS))


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
        self._delays: dict[Target, Delay] = {}
        self._store_answers = False
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
        self._delays = {target: delay for target, delay in self._delays.items() if target in self._wanted}
        for target in sorted(self._wanted)[: self._settings.loaded_models]:
            if target in self._known and not self._is_placed(target):
                self._begin(target)

    def get(self, target: Target) -> Session:
        """The loaded and warm version.

        Raises NotNow while it is on its way or the store does not answer, Unavailable while its bytes are missing or damaged (both are
        tried again, less and less often), and Never where it cannot be used.
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
        return any(target in place for place in (self._loaded, self._loading, self._refused, self._warmed, self._delays))

    def _begin(self, target: Target) -> None:
        self._loading[target] = self._loader.submit(self._load_if_wanted, target)

    def _collect(self, target: Target) -> Session:
        """What the loading thread made; while it is made again, what became of it before."""
        delay = self._delays.get(target)
        if target not in self._loading and (delay is None or time.monotonic() >= delay.due):
            self._begin(target)
        if target in self._loading and self._loading[target].done():
            return self._take(target, self._loading.pop(target))
        if delay is None:
            raise NotNow(f"model {target[0]!r} version {target[1]} is being loaded", LOADING_SECONDS)
        raise _not_had(delay)

    def _take(self, target: Target, loading: Future[Session | None]) -> Session:
        try:
            session = loading.result()
        except (Missing, Damaged, Unavailable) as error:
            raise _not_had(self._delay(target, error)) from None
        except ModelRefused as error:
            self._refused[target] = f"model {target[0]!r} version {target[1]} cannot be used: {error}"
            self._telemetry.emit(RefusedEvent(model=target[0], version=target[1], reason=str(error)))
            raise Never(self._refused[target]) from None
        if session is None:
            raise NotNow(f"model {target[0]!r} version {target[1]} is wanted again", LOADING_SECONDS)
        self._delays.pop(target, None)
        return session

    def _delay(self, target: Target, error: MillraceError) -> Delay:
        """Bytes that were not to be had: try again, later each time. Told once for each reason, and of a store that is away each time."""
        before, away = self._delays.get(target), isinstance(error, Unavailable)
        tries = 1 if before is None else before.tries + 1
        wait = retry_seconds(tries)
        reason = f"model {target[0]!r} version {target[1]} cannot be fetched: {error}"
        if away:
            self._telemetry.emit(PlaceUnavailable(place="objects", reason=str(error), retry_seconds=wait))
        elif before is None or before.reason != reason:
            self._telemetry.emit(ModelMissing(model=target[0], version=target[1], reason=str(error), retry_seconds=wait))
        self._delays[target] = Delay(reason, away, tries, time.monotonic() + wait)
        return self._delays[target]

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
            data = self._fetch(manifest.location)
        if len(data) != manifest.size_bytes or digest_of(data) != manifest.digest:
            raise ModelRefused(f"its bytes are not those of the manifest (sha256 {digest_of(data)}, {len(data)} bytes)")
        self._spool.put(manifest.digest, data)
        return data

    def _fetch(self, location: str) -> bytes:
        """From the object store, which answers also where it says that it has not got it."""
        answers = True
        try:
            return self._objects.get(location)
        except Unavailable:
            answers = False
            raise
        finally:
            if answers and not self._store_answers:
                self._telemetry.emit(PlaceAnswers(place="objects"))
            self._store_answers = answers

    def _timed(self, model: str) -> Timed:
        return lambda rows, seconds: self._telemetry.emit(ModelRun(model=model, records=rows, seconds=seconds))


def _not_had(delay: Delay) -> NotNow | Unavailable:
    return NotNow(delay.reason, LOADING_SECONDS) if delay.away else Unavailable(delay.reason)
