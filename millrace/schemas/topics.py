"""The one list of topics: provisioning, tables and the AsyncAPI document are made from it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from millrace.schemas.assignment import Assignment
from millrace.schemas.commit import Commit
from millrace.schemas.dead_letter import Allowance, DeadLetter
from millrace.schemas.event import Event
from millrace.schemas.experiment import Plan
from millrace.schemas.model import ModelVersion, Route
from millrace.schemas.moments import PartitionMoments
from millrace.schemas.outcome import Outcome, UnitOutcome
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.prediction import Prediction
from millrace.schemas.request import Request
from millrace.schemas.result import Result
from millrace.schemas.signal import Signal

MEBIBYTE = 1 << 20


class Kind(StrEnum):
    """How a topic is kept: for a time (log), by key (compacted), or whole and in one partition (control).

    A followed topic has one partition too, which whoever needs it reads as a whole, but is kept for a time only: the newest version counts.
    """

    LOG = "log"
    COMPACTED = "compacted"
    CONTROL = "control"
    FOLLOWED = "followed"


class Topic(Struct, frozen=True, kw_only=True):
    """One topic: its name before any prefix, what it carries, and what its partition is computed from."""

    name: str
    event: type[Event]
    summary: str
    partitioned_by: str | None
    kind: Kind = Kind.LOG
    owner: str = ""
    """The role that alone validates and dead-letters a public topic; empty for a topic of our own."""
    retention_days: int = 7
    record_bytes: int = 2 * MEBIBYTE

    @property
    def public(self) -> bool:
        """Whether outside producers write to it."""
        return bool(self.owner)

    @property
    def one_partition(self) -> bool:
        """Whether it has one partition, whatever the settings say of others: who needs it reads all of it."""
        return self.kind in (Kind.CONTROL, Kind.FOLLOWED)

    @property
    def table(self) -> str:
        """The ClickHouse table that keeps it."""
        return self.name.replace("-", "_")

    @property
    def event_type(self) -> str:
        """Its CloudEvents ``type``."""
        return f"io.millrace.{self.name}.v1"


REQUESTS = Topic(
    name="requests", event=Request, partitioned_by=None, owner="inference", record_bytes=MEBIBYTE, summary="A decision was asked for."
)
OUTCOMES = Topic(
    name="outcomes", event=Outcome, partitioned_by=None, owner="intake", record_bytes=MEBIBYTE, summary="Something happened to a unit."
)
OUTCOMES_BY_UNIT = Topic(
    name="outcomes-by-unit", event=UnitOutcome, partitioned_by="unit_id", summary="A validated outcome, on its unit's partition."
)
ASSIGNMENTS = Topic(name="assignments", event=Assignment, partitioned_by="unit_id", summary="One experiment gave one unit one variant.")
PREDICTIONS = Topic(name="predictions", event=Prediction, partitioned_by="unit_id", summary="A model answered.")
EXPERIMENTS = Topic(name="experiments", event=Plan, partitioned_by="name", kind=Kind.CONTROL, summary="A version of an experiment's plan.")
MODELS = Topic(name="models", event=ModelVersion, partitioned_by="name", kind=Kind.CONTROL, summary="A version of a model.")
ROUTES = Topic(name="routes", event=Route, partitioned_by="name", kind=Kind.CONTROL, summary="Which versions serve what share.")
POLICIES = Topic(
    name="policies",
    event=PolicyVersion,
    partitioned_by="experiment",
    kind=Kind.FOLLOWED,
    retention_days=28,
    summary="A learning experiment's weights, and what they were learnt from.",
)
MOMENTS = Topic(
    name="moments",
    event=PartitionMoments,
    partitioned_by="experiment",
    kind=Kind.COMPACTED,
    summary="What one partition says of one metric of one experiment.",
)
RESULTS = Topic(name="results", event=Result, partitioned_by="experiment", kind=Kind.COMPACTED, summary="The judged experiment.")
SIGNALS = Topic(name="signals", event=Signal, partitioned_by="fingerprint", retention_days=28, summary="A rule looked at a number.")
ALLOWANCES = Topic(
    name="allowances",
    event=Allowance,
    partitioned_by="worker",
    kind=Kind.CONTROL,
    summary="An operator lets a held worker dead-letter on.",
)
DEAD_LETTERS = Topic(
    name="dead-letters",
    event=DeadLetter,
    partitioned_by="topic",
    record_bytes=3 * MEBIBYTE,
    retention_days=28,
    summary="What could not be used.",
)
COMMITS = Topic(name="commits", event=Commit, partitioned_by="worker", retention_days=28, summary="One data-plane transaction.")

TOPICS: tuple[Topic, ...] = (
    REQUESTS,
    OUTCOMES,
    OUTCOMES_BY_UNIT,
    ASSIGNMENTS,
    PREDICTIONS,
    EXPERIMENTS,
    MODELS,
    ROUTES,
    POLICIES,
    MOMENTS,
    RESULTS,
    SIGNALS,
    ALLOWANCES,
    DEAD_LETTERS,
    COMMITS,
)
BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}

READERS: dict[str, tuple[Topic, ...]] = {
    "inference": (REQUESTS,),
    "intake": (OUTCOMES,),
    "experimenter": (ASSIGNMENTS, OUTCOMES_BY_UNIT),
    "judge": (MOMENTS,),
    "archiver": TOPICS,
}
"""Role to the topics that its consumer group reads: each of their partitions has an explicitly committed start offset.
Control topics that a worker knows as a whole are read without a group and do not stand here."""

STATEFUL = ("experimenter", "judge")
"""The roles with keyed state: each has a changelog."""


def changelog(role: str) -> str:
    """The name of the compacted topic that a worker's keyed state is rebuilt from."""
    return f"{role}-changelog"
