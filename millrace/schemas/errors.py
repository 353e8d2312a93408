"""Every error that millrace raises on purpose, named by who must act.

    MillraceError
    ├── NotNow            nobody: hold this partition group, keep polling, try again
    ├── Never             the event's producer: dead-letter this event, go on with the next
    │   ├── DecodeError       the payload is not what its topic carries; says where
    │   └── ModelRefused      a model's bytes cannot be used, or are not what its manifest says
    ├── Stop              the operator: end this process, nothing is committed
    │   ├── TopicRecreated    a topic has another id than the one this work began with
    │   ├── OffsetsLost       the group has no committed offset for a partition it was given
    │   ├── CommitLost        Kafka answered a commit and did not keep it
    │   ├── NotCoPartitioned  joined topics were assigned apart
    │   └── Fenced            another process took this slot
    ├── UsageError        the caller of a command: exit code 2
    │   ├── SettingsError     a setting is unknown or out of range; says which
    │   └── LiveMembers       a group's offsets are to be moved while it has members
    └── Unavailable       the operator: a place (Kafka, ClickHouse) does not answer; exit code 3
        ├── PortTaken         a port that the one-machine stack needs is in use
        └── PathInUse         another process owns this data folder

Each message says what happened and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping


class MillraceError(Exception):
    """The base of all errors raised on purpose."""


class NotNow(MillraceError):
    """Something this event needs is not there yet: hold its partition group and try the same events again.

    ``retry_seconds`` is how long to hold before the next try. A stateless step may say where to wait: ``at`` has, by (topic, partition),
    the first offset that waits; what stands before it or elsewhere goes on. Without it, everything that the step was given waits.
    """

    def __init__(self, reason: str, retry_seconds: float = 1.0, at: Mapping[tuple[str, int], int] | None = None) -> None:
        super().__init__(reason)
        self.retry_seconds = retry_seconds
        self.at = at


class Never(MillraceError):
    """This event can never be used: dead-letter it in the same transaction and go on."""


class DecodeError(Never):
    """The payload is not what its topic carries. The message says where in the payload."""


class ModelRefused(Never):
    """A model's bytes are not self-contained standard ONNX, or not what its manifest says."""


class Stop(MillraceError):
    """Going on could lose or double something: end the process without committing."""


class TopicRecreated(Stop):
    """A topic has another id than the one this group's offsets belong to."""


class OffsetsLost(Stop):
    """The group has no committed offset for an assigned partition, or one that the log no longer holds."""


class CommitLost(Stop):
    """Kafka answered a commit of this process and did not keep it."""


class NotCoPartitioned(Stop):
    """Joined topics differ in their partitions, or this member was given different ones of each."""


class Fenced(Stop):
    """Another process runs under this slot's identity and has taken over."""


class UsageError(MillraceError):
    """The command cannot be run as it was given."""


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type or out of its range."""


class LiveMembers(UsageError):
    """A group's offsets cannot be moved while it has members."""

    def __init__(self, group: str) -> None:
        super().__init__(f"group {group} has live members and only they may move its offsets: stop its workers, then run this again")


class Unavailable(MillraceError):
    """A place that millrace needs does not answer."""


class PortTaken(Unavailable):
    """A port that the one-machine stack needs is in use by somebody else."""


class PathInUse(Unavailable):
    """Another live process owns this data folder."""
