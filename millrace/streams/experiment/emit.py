"""What a partition tells the judge: the moments of each metric that changed, and last a record that seals them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from msgspec import Struct

from millrace.schemas.event import to_ms
from millrace.schemas.moments import PartitionMoments
from millrace.schemas.record import Emit
from millrace.schemas.topics import ASSIGNMENTS, MOMENTS, OUTCOMES_BY_UNIT
from millrace.schemas.wire import derived_id
from millrace.streams.experiment.definition import Definition
from millrace.streams.experiment.head import Head
from millrace.streams.experiment.plans import Plans
from millrace.streams.experiment.tally import arms_of, moments_of
from millrace.streams.step import Store

EVERY_MS = 1_000


class Teller(Struct, frozen=True):
    """One partition's moments as of where its head stands."""

    plans: Plans
    head: Head
    now: datetime
    store: Store

    def due(self) -> list[str]:
        """The experiments that changed and were not told of within the last second."""
        now_ms, told = to_ms(self.now), self.head.emitted_ms
        return [name for name in sorted(self.head.changed) if name not in told or now_ms - told[name] >= EVERY_MS]

    def tell(self, name: str) -> Iterator[Emit]:
        """An experiment's records; the first time those of all its metrics. Changes the head."""
        definition = self.plans.definition(name)
        if definition is None:
            return
        changed = self.head.changed.pop(name)
        first = name not in self.head.emitted_ms
        self.head.emitted_ms[name] = to_ms(self.now)
        for metric in definition.metrics:
            if first or metric.name in changed:
                yield self._emit(definition, metric.name, digest=metric.digest, moments=moments_of(name, metric.name, self.store))
        yield self._emit(definition, "", digest=definition.digest, arms=arms_of(name, self.store))

    def _emit(self, definition: Definition, metric: str, **said: Any) -> Emit:
        name, head = definition.name, self.head
        offsets = {ASSIGNMENTS.name: head.assignments, OUTCOMES_BY_UNIT.name: head.outcomes}
        causes = (name, metric, str(head.partition), *(f"{topic}@{offset}" for topic, offset in offsets.items()))
        event = PartitionMoments(
            id=derived_id(*causes),
            experiment=name,
            plan_version=self.plans.known[name].newest.version,
            partition=head.partition,
            time=self.now,
            offsets=offsets,
            metric=metric,
            **said,
        )
        return Emit(MOMENTS.name, f"{name}/{metric}/{head.partition}", event, partition_by=name)
