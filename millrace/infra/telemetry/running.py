"""The catalogue of internal events, first half: the process, its polls and transactions, holding and state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.infra.telemetry.event import InternalEvent, Level, Stage
from millrace.infra.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Started(InternalEvent):
    """The process began."""

    LEVEL = Level.INFO
    MESSAGE = "The process started."
    version: str
    pid: int


@dataclass(frozen=True, slots=True)
class ReadinessChanged(InternalEvent):
    """The process became ready, or no longer is; emitted by ``Health``."""

    LEVEL = Level.INFO
    MESSAGE = "The process's readiness changed."
    ready: bool
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.ready().set(self.ready)


@dataclass(frozen=True, slots=True)
class Draining(InternalEvent):
    """The process was asked to end and finishes what it began."""

    LEVEL = Level.INFO
    MESSAGE = "Ending: what was begun is finished first."
    signal: str


@dataclass(frozen=True, slots=True)
class Stopped(InternalEvent):
    """The process ended as asked."""

    LEVEL = Level.INFO
    MESSAGE = "The process ended."
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed(InternalEvent):
    """The process ends because going on could lose or double something, or met an error that nobody foresaw."""

    LEVEL = Level.ERROR
    MESSAGE = "The process stops: it may not go on."
    FAILURE = True
    error: str
    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Assigned(InternalEvent):
    """Partitions were given to this worker."""

    LEVEL = Level.INFO
    MESSAGE = "Partitions were assigned."
    partitions: Mapping[str, list[int]]
    seconds: float = 0.0

    def count(self, metrics: Metrics) -> None:
        metrics.assigned().inc(sum(map(len, self.partitions.values())))


@dataclass(frozen=True, slots=True)
class Revoked(InternalEvent):
    """Partitions were taken from this worker; ``lost`` without asking."""

    LEVEL = Level.INFO
    MESSAGE = "Partitions were revoked."
    partitions: Mapping[str, list[int]]
    lost: bool

    def count(self, metrics: Metrics) -> None:
        metrics.assigned().dec(sum(map(len, self.partitions.values())))
        for topic, numbers in self.partitions.items():
            for number in numbers:
                metrics.lag_records.remove(topic, str(number))
                metrics.lag_seconds.remove(topic, str(number))


@dataclass(frozen=True, slots=True)
class Polled(InternalEvent):
    """A poll brought records; ``seconds`` is how long it gathered."""

    records: Mapping[str, int]
    seconds: float

    def count(self, metrics: Metrics) -> None:
        for topic, number in self.records.items():
            metrics.records_in(topic).inc(number)
        metrics.poll_records().observe(sum(self.records.values()))
        metrics.stage_seconds(Stage.GATHER.value).observe(self.seconds)


@dataclass(frozen=True, slots=True)
class Timed(InternalEvent):
    """A poll went through a stage."""

    stage: Stage
    seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.stage_seconds(self.stage.value).observe(self.seconds)


@dataclass(frozen=True, slots=True)
class Committed(InternalEvent):
    """A transaction was committed with these events, by topic."""

    events: Mapping[str, int]
    seconds: float

    def count(self, metrics: Metrics) -> None:
        for topic, number in self.events.items():
            metrics.events_out(topic).inc(number)
        metrics.commit_seconds().observe(self.seconds)
        metrics.stage_seconds(Stage.COMMIT.value).observe(self.seconds)
        metrics.transactions("committed").inc()


@dataclass(frozen=True, slots=True)
class TransactionAborted(InternalEvent):
    """A transaction was aborted; its records come again."""

    LEVEL = Level.WARNING
    MESSAGE = "A transaction was aborted; its records come again."
    reason: str
    code: str = ""

    def count(self, metrics: Metrics) -> None:
        metrics.transactions("aborted").inc()


@dataclass(frozen=True, slots=True)
class CommitRepeated(InternalEvent):
    """The answer to a commit was lost; it is asked for again."""

    LEVEL = Level.WARNING
    MESSAGE = "A commit was not answered and is repeated."
    QUIET_SECONDS = 1.0
    attempt: int
    code: str

    def count(self, metrics: Metrics) -> None:
        metrics.transactions("repeated").inc()


@dataclass(frozen=True, slots=True)
class ProducerReplaced(InternalEvent):
    """What became of a transaction could not be learnt: a new producer in the same slot settles it."""

    LEVEL = Level.WARNING
    MESSAGE = "The producer was replaced to settle an unknown transaction."
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.transactions("unknown").inc()


@dataclass(frozen=True, slots=True)
class Lagging(InternalEvent):
    """How far behind each partition is: (topic, partition) to records and seconds."""

    lag: Mapping[tuple[str, int], tuple[int, float]]

    def count(self, metrics: Metrics) -> None:
        for (topic, partition), (records, seconds) in self.lag.items():
            metrics.lag_records(topic, str(partition)).set(records)
            metrics.lag_seconds(topic, str(partition)).set(seconds)


@dataclass(frozen=True, slots=True)
class EndUnknown(InternalEvent):
    """Kafka did not tell where a log ends: its lag is the last known one; timers of its group, and what waits for its order, come later."""

    LEVEL = Level.WARNING
    MESSAGE = "Kafka did not tell where a log ends: its lag is the last known one, and timers that need it wait."
    QUIET_SECONDS = 5.0
    APART = ("topic",)
    topic: str
    partition: int
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.ends_unknown(self.topic).inc()


@dataclass(frozen=True, slots=True)
class DeadLettered(InternalEvent):
    """Records of one topic can never be used; place and reason of the first one of this poll."""

    LEVEL = Level.WARNING
    MESSAGE = "Records were dead-lettered."
    QUIET_SECONDS = 1.0
    APART = ("topic",)
    topic: str
    records: int
    place: str
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.dead_letters(self.topic).inc(self.records)


@dataclass(frozen=True, slots=True)
class Held(InternalEvent):
    """A partition group was put on hold: ``not-now`` (tried again by itself) or ``dead-letters`` (until it is allowed)."""

    LEVEL = Level.WARNING
    MESSAGE = "A partition group is held."
    QUIET_SECONDS = 1.0
    APART = ("why",)
    group: int
    why: str
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.held_groups(self.why).inc()


@dataclass(frozen=True, slots=True)
class Released(InternalEvent):
    """A held partition group goes on, or went to another worker."""

    LEVEL = Level.INFO
    MESSAGE = "A partition group is no longer held."
    QUIET_SECONDS = 1.0
    APART = ("why",)
    group: int
    why: str

    def count(self, metrics: Metrics) -> None:
        metrics.held_groups(self.why).dec()


@dataclass(frozen=True, slots=True)
class AllowanceTaken(InternalEvent):
    """An operator let a partition dead-letter on, through an offset."""

    LEVEL = Level.INFO
    MESSAGE = "Dead letters were allowed by an operator."
    topic: str
    partition: int
    through: int


@dataclass(frozen=True, slots=True)
class ControlRead(InternalEvent):
    """A control topic was read to its end."""

    LEVEL = Level.INFO
    MESSAGE = "A control topic was read to its end."
    topic: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ControlIgnored(InternalEvent):
    """A control record was invalid, or lost the race for its version."""

    LEVEL = Level.WARNING
    MESSAGE = "A control record was ignored."
    topic: str
    offset: int
    reason: str

    def count(self, metrics: Metrics) -> None:
        metrics.control_ignored(self.topic).inc()


@dataclass(frozen=True, slots=True)
class Lacking(InternalEvent):
    """What control records name and cannot be used yet, as it is now, and what is no longer among it."""

    names: list[str]
    gone: list[str]

    def count(self, metrics: Metrics) -> None:
        for name in self.gone:
            metrics.lacking.remove(name)
        for name in self.names:
            metrics.lacking(name).set(1)


@dataclass(frozen=True, slots=True)
class Restored(InternalEvent):
    """Keyed state of a partition was restored from its changelog."""

    LEVEL = Level.INFO
    MESSAGE = "State was restored from its changelog."
    topic: str
    partition: int
    records: int
    seconds: float

    def count(self, metrics: Metrics) -> None:
        metrics.restored_records(self.topic).inc(self.records)


@dataclass(frozen=True, slots=True)
class StoreWiped(InternalEvent):
    """Local state could not be trusted and is restored as a whole."""

    LEVEL = Level.WARNING
    MESSAGE = "Local state was wiped and is restored as a whole."
    topic: str
    partition: int
    reason: str
