"""A model answered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Raw, field

from millrace.schemas.event import NOTHING, Event, Name, Time


class Status(StrEnum):
    """How a request was answered."""

    OK = "ok"
    EXPIRED = "expired"
    ERROR = "error"


def _no_outputs() -> dict[str, float | list[float]]:
    """A default that is not known to be one, so that it is written and not left out."""
    return {}


class Prediction(Event, frozen=True):
    """A model answered a request, or could not, and says why."""

    id: Annotated[str, Meta(description="Hash of request id, model, and the shadow's version where it is one.")]
    request_id: Annotated[str, Meta(description="The request that is answered.")]
    unit_id: Annotated[str, Meta(description="The request's unit.")]
    time: Annotated[Time, Meta(description="When it was decided.")]
    model: Annotated[Name, Meta(description="The model's name.")]
    version: Annotated[int, Meta(description="The model's version; 0 where none could be chosen.")]
    digest: Annotated[Name, Meta(description="sha256 of the model's bytes; empty where none could be chosen.")]
    status: Annotated[Status, Meta(description="ok, expired or error.")]
    outputs: Annotated[dict[str, float | list[float]], Meta(description="Name to number or numbers; empty where there is no answer.")] = (
        field(default_factory=_no_outputs)
    )
    features: Annotated[Raw, Meta(description="The features really used, by name.")] = NOTHING
    vector: Annotated[Raw, Meta(description="The features really used, in the model's order.", extra={"vector": True})] = NOTHING
    features_digest: Annotated[str, Meta(description="Hash of the features, where the model records no more than that.")] = ""
    shadow: Annotated[bool, Meta(description="Whether this answer came from a shadow and was not to be acted upon.")] = False
    requested: Annotated[Time | None, Meta(description="The request's own time.")] = None
    latency_seconds: Annotated[
        float,
        Meta(description="From the request's append until its micro-batch was taken up, by wall clock. The run and the commit follow."),
    ] = 0.0
    batch_records: Annotated[int, Meta(description="How many requests the model answered in the same run.")] = 0
    cache: Annotated[Name, Meta(description="Whether looked-up features came from a cache: empty where none was asked.")] = ""
    error: Annotated[str, Meta(description="Why there is no output.")] = ""
