"""A decision was asked for."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw

from millrace.schemas.event import NOTHING, Event, Name, Time


class Request(Event, frozen=True):
    """A decision was asked for. Least: ``id``, ``unit_id``, ``model`` and either ``features`` or ``vector``.

    ``features`` and ``vector`` stay in their own bytes, so that the prediction can carry them on unparsed.
    """

    id: Annotated[str, Meta(description="The producer's id of this request; the same id is answered with the same derived ids.")]
    unit_id: Annotated[str, Meta(description="Who or what the decision is about; the key of everything derived from it.")]
    time: Annotated[Time | None, Meta(description="When it was asked for; the record's timestamp where absent.")] = None
    model: Annotated[Name | None, Meta(description="The model's route. Absent: assignments alone.")] = None
    features: Annotated[Raw, Meta(description="Features by name: an object of finite numbers.")] = NOTHING
    vector: Annotated[
        Raw, Meta(description="Features in the model's declared order: numbers, or float32 in binary.", extra={"vector": True})
    ] = NOTHING
    entities: Annotated[dict[str, str], Meta(description="Entities whose stored features are looked up, kind to id.")] = {}
    context: Annotated[dict[str, Any], Meta(description="What experiments target by.")] = {}
    deadline: Annotated[Time | None, Meta(description="After this time an answer is useless: it is answered `expired`.")] = None
