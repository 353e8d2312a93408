"""The catalogue of internal events, second half: places, models, blocks of rows, supervised processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.infra.telemetry.event import InternalEvent, Level
from millrace.infra.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ClientError(InternalEvent):
    """A client library told of an error that it goes on from by itself, e.g. a broker that is away."""

    LEVEL = Level.WARNING
    MESSAGE = "A client reported an error."
    QUIET_SECONDS = 5.0
    APART = ("place", "code")
    place: str
    code: str
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.place_errors(self.place).inc()


@dataclass(frozen=True, slots=True)
class PlaceUnavailable(InternalEvent):
    """A place does not answer; its calls are repeated."""

    LEVEL = Level.WARNING
    MESSAGE = "A place does not answer; trying again."
    QUIET_SECONDS = 5.0
    APART = ("place",)
    place: str
    reason: str
    retry_seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.place_up(self.place).set(0)
        metrics.place_errors(self.place).inc()


@dataclass(frozen=True, slots=True)
class PlaceAnswers(InternalEvent):
    """A place answers, for the first time or again."""

    LEVEL = Level.INFO
    MESSAGE = "A place answers."
    place: str

    def count(self, metrics: Metrics) -> None:
        metrics.place_up(self.place).set(1)


@dataclass(frozen=True, slots=True)
class ModelLoaded(InternalEvent):
    """A model version was checked, warmed up and is in memory."""

    LEVEL = Level.INFO
    MESSAGE = "A model was loaded."
    model: str
    version: int
    digest: str
    seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.models_loaded().inc()


@dataclass(frozen=True, slots=True)
class ModelUnloaded(InternalEvent):
    """A model version left memory."""

    LEVEL = Level.INFO
    MESSAGE = "A model was unloaded."
    model: str
    version: int

    def count(self, metrics: Metrics) -> None:
        metrics.models_loaded().dec()


@dataclass(frozen=True, slots=True)
class ModelRefused(InternalEvent):
    """A model version is not what its manifest says and is not served."""

    LEVEL = Level.ERROR
    MESSAGE = "A model was refused."
    model: str
    version: int
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.errors("ModelRefused").inc()


@dataclass(frozen=True, slots=True)
class ModelMissing(InternalEvent):
    """The bytes of a model version are missing or damaged; they are asked for again."""

    LEVEL = Level.ERROR
    MESSAGE = "The bytes of a model are missing; they are asked for again."
    model: str
    version: int
    reason: str
    retry_seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.errors("ModelMissing").inc()


@dataclass(frozen=True, slots=True)
class ModelRun(InternalEvent):
    """A model ran once."""

    model: str
    records: int
    seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.model_seconds(self.model).observe(self.seconds)
        metrics.model_records(self.model).observe(self.records)


@dataclass(frozen=True, slots=True)
class ModelFailed(InternalEvent):
    """A model raised or answered what is not finite; those requests are answered with an error."""

    LEVEL = Level.ERROR
    MESSAGE = "A model failed; these requests are answered with an error."
    QUIET_SECONDS = 1.0
    APART = ("model", "version")
    model: str
    version: int
    records: int
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.errors("ModelFailed").inc()


@dataclass(frozen=True, slots=True)
class Answered(InternalEvent):
    """Requests were answered: (model, status) to how many."""

    predictions: Mapping[tuple[str, str], int]

    def count(self, metrics: Metrics) -> None:
        for (model, status), number in self.predictions.items():
            metrics.predictions(model, status).inc(number)


@dataclass(frozen=True, slots=True)
class BlockInserted(InternalEvent):
    """A block of rows was inserted and acknowledged."""

    LEVEL = Level.DEBUG
    MESSAGE = "A block was inserted."
    table: str
    rows: int
    seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.rows_inserted(self.table).inc(self.rows)
        metrics.insert_seconds(self.table).observe(self.seconds)
        metrics.block_rows(self.table).observe(self.rows)


@dataclass(frozen=True, slots=True)
class RowsUndecoded(InternalEvent):
    """Records that could not be decoded became rows with their bytes and the reason."""

    LEVEL = Level.WARNING
    MESSAGE = "Records that could not be decoded were archived as they are."
    QUIET_SECONDS = 5.0
    APART = ("table",)
    table: str
    rows: int

    def count(self, metrics: Metrics) -> None:
        metrics.rows_undecoded(self.table).inc(self.rows)


@dataclass(frozen=True, slots=True)
class BlockRefused(InternalEvent):
    """ClickHouse refused a block (disk full, too many parts, memory): the same block is sent again."""

    LEVEL = Level.ERROR
    MESSAGE = "ClickHouse refused a block; it is sent again."
    QUIET_SECONDS = 5.0
    APART = ("table",)
    table: str
    partition: int
    code: int
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.blocks_refused(self.table).inc()


@dataclass(frozen=True, slots=True)
class RecordsGone(InternalEvent):
    """The log dropped records [start, end) before they could be compared with the table: rows of them may be missing for ever."""

    LEVEL = Level.ERROR
    MESSAGE = "The log dropped records of an unfinished block; rows of them may be missing."
    FAILURE = True
    topic: str
    partition: int
    start: int
    end: int

    def count(self, metrics: Metrics) -> None:
        metrics.errors("RecordsGone").inc()


@dataclass(frozen=True, slots=True)
class BlockReconciled(InternalEvent):
    """After a lease was over, the rows of an intent were counted and the absent ones inserted."""

    LEVEL = Level.WARNING
    MESSAGE = "An intent was settled after its lease."
    table: str
    partition: int
    start: int
    end: int
    absent: int


@dataclass(frozen=True, slots=True)
class ChildRestarted(InternalEvent):
    """A supervised process ended by itself and is started again."""

    LEVEL = Level.ERROR
    MESSAGE = "A process ended by itself and is started again."
    process: str
    exit_code: int
    backoff_seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.restarts(self.process).inc()
