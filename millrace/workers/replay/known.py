"""What a transaction knew: a step that has taken in the control topics as far as ``commits`` says, and lacks what was lacking then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from millrace.infra.kafka.clients import full_name
from millrace.infra.kafka.cursors import Cursors, Gone
from millrace.infra.models import OnnxModels
from millrace.infra.settings import Settings
from millrace.infra.telemetry import Telemetry
from millrace.schemas.commit import Commit
from millrace.schemas.errors import MillraceError, NotNow, Unavailable
from millrace.schemas.model import ModelVersion
from millrace.schemas.record import Record
from millrace.schemas.topics import Kind, Topic
from millrace.streams.microbatch import Model
from millrace.workers.controls import Controls, followed
from millrace.workers.runner import Work

Target = tuple[str, int]
LOADING_SECONDS = 60.0
LOOK_SECONDS = 0.01
UNLIMITED = "the retention of a control topic must be unlimited"
EXPIRED = "its retention dropped it while it was read; run this again"


class Places:
    """The places that a step needs, as they were: ``lacking`` is what could not be used. These are none; a role may have some."""

    def __init__(self) -> None:
        self.problem: MillraceError | None = None
        """What could be used then and cannot now."""

    def recall(self, lacking: Mapping[str, str]) -> None:
        """From now on this is lacking, for these reasons, and nothing else."""

    def close(self) -> None:
        """Let go of everything."""


class RecalledModels(Places):
    """Model versions as they were there: waits for one that was loaded then, and has none that was lacking, however it is now."""

    def __init__(self, models: OnnxModels) -> None:
        super().__init__()
        self._models = models
        self._lacking: Mapping[str, str] = {}
        self._wanted: AbstractSet[Target] = frozenset()

    def recall(self, lacking: Mapping[str, str]) -> None:
        """As ``Places``."""
        self._lacking = lacking
        self.want(self._wanted)

    def add(self, version: ModelVersion) -> None:
        """Learn of a version."""
        self._models.add(version)

    def want(self, targets: AbstractSet[Target]) -> None:
        """Begin to load these, but for those that were lacking, and let go of all others."""
        self._wanted = targets
        self._models.want({target for target in targets if _name(target) not in self._lacking})

    def get(self, target: Target) -> Model:
        """The loaded version. Raises Unavailable for what was lacking then, and for what cannot be had now; the latter is a problem."""
        if (reason := self._lacking.get(_name(target))) is not None:
            raise Unavailable(reason)
        try:
            return self._loaded(target)
        except Unavailable as error:
            self.problem = error
            raise

    def close(self) -> None:
        """As ``Places``."""
        self._models.close()

    def _loaded(self, target: Target) -> Model:
        deadline = time.monotonic() + LOADING_SECONDS
        while True:
            try:
                return self._models.get(target)
            except NotNow as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{error} (not within {LOADING_SECONDS:g} s)") from None
            time.sleep(LOOK_SECONDS)


class Upto:
    """Control records in the order of their offsets, as far as ``ends`` says and no further.

    A topic that is kept for a time only is read from where its log starts: whoever reads it needs no more of it than that.
    """

    def __init__(self, settings: Settings, topics: Iterable[Topic]) -> None:
        topics = list(topics)
        self._expiring = {topic.name for topic in topics if topic.kind is Kind.FOLLOWED}
        self._names = {full_name(settings, topic): topic.name for topic in topics}
        self._cursors = Cursors(settings, self._names)
        self.versions = dict.fromkeys(self._names.values(), 0)
        self.ends: Mapping[str, int] = {}

    def start(self) -> list[Record]:
        """What there is."""
        return self.read()

    def read(self) -> list[Record]:
        """What there is up to the ends. Raises Unavailable where a topic does not hold all of it."""
        return [record for name, short in self._names.items() for record in self._read(name, short)]

    def close(self) -> None:
        """Close the connections."""
        self._cursors.close()

    def _read(self, name: str, short: str) -> list[Record]:
        start, end = self.versions[short], self.ends.get(short, 0)
        if end <= start:
            return []
        low, high = self._cursors.extent((name, 0))
        if high < end:
            raise Unavailable(f"control topic {name} ends before offset {end}, which a transaction knew: it was made anew since")
        if short in self._expiring:
            start = max(start, min(low, end))
        try:
            records = list(self._cursors.read((name, 0), start, end))
        except Gone as error:
            raise Unavailable(f"{error}: {EXPIRED if short in self._expiring else UNLIMITED}") from None
        self.versions[short] = end
        return records


class Stand:
    """A step with its places, at one state of knowledge: ``control`` offsets and what is ``lacking``."""

    def __init__(self, settings: Settings, telemetry: Telemetry, work: Work, places: Places) -> None:
        self.work = work
        self.places = places
        self._source = Upto(settings, followed(work.controls))
        self.controls = Controls(settings, work.controls, work.role, work.step, telemetry, self._source)
        self._asked: tuple[Mapping[str, int], Mapping[str, str]] = ({}, {})

    def is_at(self, commit: Commit) -> bool:
        """Whether this is what the transaction knew."""
        return self._asked == (commit.control, commit.lacking)

    def go_on(self, commit: Commit) -> bool:
        """Know what the transaction knew; False where that is not what comes of going on from here.

        Raises Unavailable where a place does not have what it had then.
        """
        if any(commit.control.get(name, 0) < end for name, end in self._source.versions.items()):
            return False
        self._asked = (commit.control, commit.lacking)
        self._source.ends = commit.control
        self.places.recall(commit.lacking)
        self.controls.follow()
        self.check()
        return dict(self.controls.lacking) == commit.lacking

    def check(self) -> None:
        """Raise the problem that a place met."""
        if self.places.problem is not None:
            raise self.places.problem

    def close(self) -> None:
        """Let go of everything."""
        self.controls.close()
        self.places.close()


class Stands:
    """A stand for each transaction's knowledge. Slots that know the same share one; all of them together are hardly ever more than two."""

    def __init__(self, make: Callable[[], Stand]) -> None:
        self._make = make
        self._of: dict[str, Stand] = {}

    def of(self, commit: Commit) -> Stand:
        """The stand that knows what this transaction knew."""
        own = self._of.get(commit.slot)
        if own is not None and own.is_at(commit):
            return own
        stand = next((stand for stand in self._of.values() if stand.is_at(commit)), None)
        if stand is None:
            stand = own if own is not None and self._is_alone(own) and own.go_on(commit) else self._new(commit)
        self._of[commit.slot] = stand
        if own is not None and own not in self._of.values():
            own.close()
        return stand

    def close(self) -> None:
        """Let go of all of them."""
        for stand in {id(stand): stand for stand in self._of.values()}.values():
            stand.close()

    def _is_alone(self, stand: Stand) -> bool:
        return sum(other is stand for other in self._of.values()) == 1

    def _new(self, commit: Commit) -> Stand:
        stand = self._make()
        try:
            stand.go_on(commit)
        except MillraceError:
            stand.close()
            raise
        return stand


def _name(target: Target) -> str:
    return f"{target[0]}/{target[1]}"
