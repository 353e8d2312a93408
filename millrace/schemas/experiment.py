"""The plan of an experiment, as a version on the control topic ``experiments``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from millrace.schemas.event import Event, Name, Time

Share = Annotated[float, Meta(ge=0, le=1)]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class State(StrEnum):
    """Where an experiment stands in its life. Only a running one assigns."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"


class Test(StrEnum):
    """How a condition compares the context's value with its own."""

    __test__ = False  # pytest would take its name for a test's

    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    IN = "in"
    NOT_IN = "not_in"
    RANGE = "range"


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One condition on a request's context. ``range`` takes ``[low, high)``, either of which may be null."""

    field: Annotated[str, Meta(min_length=1)]
    test: Test
    value: Any


class Variant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm: its share of the units by weight, and the model that answers for it, where it chooses one."""

    name: Word
    weight: Annotated[float, Meta(ge=0)] = 1.0
    model: Word | None = None
    parameters: dict[str, Any] = {}


class Plan(Event, frozen=True):
    """One version of an experiment's plan. Version n+1 is valid only after n: the first record of a version wins."""

    name: Annotated[Word, Meta(description="The experiment.", extra={"low_cardinality": True})]
    version: Annotated[int, Meta(ge=1, description="The plan's version.")]
    state: Annotated[State, Meta(description="draft, running, paused, stopped or completed.")]
    time: Annotated[Time, Meta(description="When this version was written.")]
    salt: Annotated[str, Meta(min_length=1, description="What the hashes are salted with; it never changes while running.")]
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, description="The arms; the first is the control.")]
    sample: Annotated[Share, Meta(description="The share of targeted units that take part.")] = 1.0
    targeting: Annotated[tuple[Condition, ...], Meta(description="All must hold for a request to take part.")] = ()
    overrides: Annotated[dict[str, str], Meta(description="Units whose variant is named by hand.")] = {}
    models: Annotated[
        tuple[Word, ...], Meta(description="The routes it takes part in; empty means all, and requests without a model.")
    ] = ()
    owner: Annotated[Name, Meta(description="Who answers for it.")] = ""
    hypothesis: Annotated[str, Meta(description="What it is to show.")] = ""
