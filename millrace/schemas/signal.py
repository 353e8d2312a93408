"""A rule looked at a number."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from millrace.schemas.event import Event, Name, Time


class SignalKind(StrEnum):
    """What kind of rule it was."""

    GUARDRAIL = "guardrail"
    HEALTH = "health"
    DECISION = "decision"
    DRIFT = "drift"


class Signal(Event, frozen=True):
    """A rule looked at a number, and this is what it saw. ``fingerprint`` tells which rule on which subject."""

    id: Annotated[str, Meta(description="Hash of fingerprint and of what it was computed from.")]
    fingerprint: Annotated[str, Meta(description="Hash of kind, subject and rule: signals of one are one story.")]
    time: Annotated[Time, Meta(description="When the rule looked.")]
    kind: Annotated[SignalKind, Meta(description="guardrail, health, decision or drift.")]
    subject: Annotated[Name, Meta(description="The experiment or model.")]
    rule: Annotated[Name, Meta(description="The rule, e.g. a guardrail's metric and variant.")]
    firing: Annotated[bool, Meta(description="Whether the rule's condition holds.")]
    severity: Annotated[Name, Meta(description="critical, warning or info.")]
    message: Annotated[str, Meta(description="One sentence for a person.")]
    value: Annotated[float, Meta(description="The number that was looked at.")] = 0.0
    threshold: Annotated[float, Meta(description="What it was compared with.")] = 0.0
    offsets: Annotated[dict[str, dict[str, int]], Meta(description="What it was computed from.")] = {}
    evidence: Annotated[dict[str, float], Meta(description="The numbers behind it.")] = {}
