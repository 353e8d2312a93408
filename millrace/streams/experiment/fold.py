"""The experiment fold: assignments and outcomes of one partition become the moments of each experiment's arms.

A set function of the records below an offset of each input: whatever the order in which outcomes come, however polls cut them, and however
often the process is killed, the same integers come out. All memory is in the store:

- ``u<unit>`` and ``r<request>``: exposures with the states of their metrics; of a unit also its recent outcomes, their ids and day sums;
- ``g``, ``i``, ``q``: recent outcomes, ids and different values of the few subjects that have very many of them;
- ``m<experiment>/<metric>``, ``a<experiment>``: the moments and the arms;
- ``h``: how far the partition is, and what of it was not told yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from millrace.schemas.record import Emit, Record
from millrace.schemas.topics import ASSIGNMENTS
from millrace.streams.experiment import head as heads
from millrace.streams.experiment.count import Count
from millrace.streams.experiment.emit import Teller
from millrace.streams.experiment.head import Head
from millrace.streams.experiment.plans import Plans
from millrace.streams.experiment.sweep import Sweep
from millrace.streams.step import Batch, Facts, Store


class Fold:
    """Fold each unit's outcomes into its experiments, and tell the judge at most once a second what changed.

    The first exposure of a unit counts, and outcomes from then on until the window's end; a unit that met two variants leaves. Late is
    what is older than the newest outcome before it on the partition, by more than the plan's lateness.
    """

    def __init__(self) -> None:
        self._plans = Plans()

    def observe(self, record: Record) -> bool:
        """Take in a version of a plan; False where it is not the next one."""
        return self._plans.observe(record.event)

    def settle(self) -> Mapping[str, str]:
        """Nothing is lacking: a plan is usable as soon as it is known."""
        return {}

    def process(self, batch: Batch, store: Store) -> Facts:
        """Count these records. Raises NotNow for an assignment by a plan that is not known yet."""
        head = heads.load(store) or Head(batch.group)
        second = int(batch.now.timestamp())
        head.due, head.second = second != head.second, second
        count = Count(self._plans, head, self._plans.wanted(batch.records[0].appended_ms), store)
        assigned = ASSIGNMENTS.name
        for record in batch.records:
            if record.topic == assigned:
                count.assignment(record)
            else:
                count.outcome(record)
        count.save()
        heads.save(head, store)
        return ()

    def tick(self, watermark_ms: int, now: datetime, store: Store) -> Facts:
        """Tell of what changed, experiment by experiment, and let go of what can change nothing any more."""
        head = heads.load(store)
        if head is None:
            return ()
        teller, emits = Teller(self._plans, head, now, store), list[Emit]()
        for name in teller.due():
            emits.extend(teller.tell(name))
        second = int(now.timestamp())
        sweeps = head.due or head.second != second
        if (sweeps and head.let_go(self._plans.closed(watermark_ms))) or emits:
            heads.save(head, store)
        if sweeps:
            Sweep.at(self._plans, watermark_ms, store).run(second)
        return emits
