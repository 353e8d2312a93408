"""What a learning experiment's weights are, and what they were learnt from."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw

from millrace.schemas.event import NOTHING, Event, Name, Time


class PolicyVersion(Event, frozen=True):
    """One version of an experiment's policy. The judge alone writes them; the newest version of the running plan counts."""

    experiment: Annotated[Name, Meta(description="The experiment.")]
    version: Annotated[int, Meta(ge=1, description="The policy's version.")]
    plan_version: Annotated[int, Meta(description="The plan that it was learnt under.")]
    time: Annotated[Time, Meta(description="When it was made.")]
    offsets: Annotated[
        dict[str, dict[str, int]], Meta(description="What it was learnt from: source partition, topic, and the offset below which.")
    ]
    weights: Annotated[
        dict[str, float], Meta(description="Variant to its chance; of a contextual policy, its chance at the average features so far.")
    ]
    contextual: Annotated[Raw, Meta(description="Coefficients of a contextual policy, by which each request gets its own weights.")] = (
        NOTHING
    )

    @property
    def id(self) -> str:
        """What its headers call it: there is one record of a version."""
        return f"policies/{self.experiment}/{self.version}"
