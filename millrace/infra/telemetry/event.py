"""What an internal event is: one small class, which owns its log line and its metrics.

``MESSAGE`` is a fixed sentence; what varies stands in the fields. ``LEVEL`` None: it only counts. ``FAILURE``: something went
wrong that nobody asked for; a test in which one is emitted fails unless it expects it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar

from millrace.infra.telemetry.metrics import Metrics


class Level(Enum):
    """How loud a log line is, in Python's own numbers."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Stage(Enum):
    """The stages of a poll, in their order."""

    GATHER = "gather"
    DECODE = "decode"
    PROCESS = "process"
    PRODUCE = "produce"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class InternalEvent:
    """Something that happened inside a process."""

    LEVEL: ClassVar[Level | None] = None
    MESSAGE: ClassVar[str] = ""
    FAILURE: ClassVar[bool] = False
    QUIET_SECONDS: ClassVar[float] = 0.0
    """At most one line in so many seconds; the next one says how many were left out."""
    APART: ClassVar[tuple[str, ...]] = ()
    """Fields of few values: lines that differ in one of them are quiet apart, so that none hides another that asks for something else."""

    def count(self, metrics: Metrics) -> None:
        """Update the metrics."""

    @property
    def kind(self) -> tuple[Any, ...]:
        """What its lines are counted under while they are quiet."""
        return (type(self), *(getattr(self, name) for name in self.APART))

    def line(self) -> dict[str, Any]:
        """The fields of the log line."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
