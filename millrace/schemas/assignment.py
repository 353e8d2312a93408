"""One experiment gave one unit one variant."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from millrace.schemas.event import Event, Name, Time


class Assignment(Event, frozen=True):
    """One experiment gave one unit one variant, for one request."""

    id: Annotated[str, Meta(description="Hash of request id and experiment.")]
    request_id: Annotated[str, Meta(description="The request it was made for.")]
    unit_id: Annotated[str, Meta(description="The unit that was assigned.")]
    time: Annotated[Time, Meta(description="When it was decided.")]
    experiment: Annotated[Name, Meta(description="The experiment's name.")]
    plan_version: Annotated[int, Meta(description="The version of the plan that assigned.")]
    variant: Annotated[Name, Meta(description="The variant given.")]
    bucket: Annotated[float, Meta(description="Where the variant hash of the unit (or request) fell, in [0, 1).")]
    propensity: Annotated[float, Meta(description="The chance that this variant had, in (0, 1].")]
    exposed: Annotated[bool, Meta(description="Whether the unit really met the variant: an expired or failed request did not.")] = True
    override: Annotated[
        bool, Meta(description="Whether the plan names this unit's variant by hand; such units are left out of results.")
    ] = False
    model: Annotated[Name | None, Meta(description="The model that the variant chose, where it chooses one.")] = None
    policy_version: Annotated[int, Meta(description="The version of the policy whose weights were used; 0 where they were the plan's.")] = 0
    propensities: Annotated[
        dict[str, float], Meta(description="Each variant's chance, where a policy gave it; empty where the plan's weights did.")
    ] = {}
    segments: Annotated[dict[str, str], Meta(description="The plan's segments that the request falls into, field to value.")] = {}
    features: Annotated[dict[str, float], Meta(description="The numbers that a contextual policy chose by.")] = {}
