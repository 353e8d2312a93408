"""One poll's records, folded into the subjects that they touch: each is read once, changed in memory, and written once at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millrace.schemas.assignment import Assignment
from millrace.schemas.errors import NotNow
from millrace.schemas.record import Record
from millrace.streams.experiment import tally as counts
from millrace.streams.experiment.definition import Contribution, Covariate, Definition, Wanted
from millrace.streams.experiment.head import Head
from millrace.streams.experiment.plans import Plans
from millrace.streams.experiment.recent import GRACE_MS, recall, remember
from millrace.streams.experiment.repeated import GENERATION_MS, repeated
from millrace.streams.experiment.subject import (
    REQUEST,
    SUBJECTS,
    UNIT,
    UNITS,
    Entry,
    Exposure,
    Subject,
    UnitState,
    digest_of,
    key,
)
from millrace.streams.experiment.tally import Tally
from millrace.streams.experiment.unique import one_more
from millrace.streams.experiment.value import DAY_US, day_with, micros
from millrace.streams.step import Store

RETRY_SECONDS = 0.2
KEPT_DAYS = 60
"""How many more days than the covariate's are kept of a unit: an exposure may be told of so many days with outcomes later."""


class Count:
    """The subjects of one poll, and what became of their contributions."""

    def __init__(self, plans: Plans, head: Head, wanted: dict[str, list[Wanted]], store: Store) -> None:
        self._plans, self._head, self._wanted, self._store = plans, head, wanted, store
        self._units: dict[str, UnitState] = {}
        self._keys: dict[str, bytes] = {}
        self._requests: dict[str, Subject] = {}
        self._touched_units: set[str] = set()
        self._touched_requests: set[str] = set()
        self._before: dict[tuple[int, int], tuple[Exposure, Definition, Contribution | None]] = {}
        self._tally = Tally()

    def assignment(self, record: Record) -> None:
        """Count an assignment. Raises NotNow where its plan is not known yet."""
        event: Assignment = record.event
        definition = self._plans.definition(event.experiment)
        if definition is None or not self._plans.knows(event.experiment, event.plan_version):
            raise NotNow(f"version {event.plan_version} of experiment {event.experiment!r} is not known yet", RETRY_SECONDS)
        self._head.assignments = record.offset + 1
        closes_ms = self._plans.closes_ms.get(event.experiment)
        if closes_ms is not None and record.appended_ms >= closes_ms:
            return
        exposure = self._exposure(event, definition)
        arm = self._tally.counts(event.experiment, event.variant)
        arm[counts.ASSIGNMENTS] += 1
        if event.override or exposure.overridden:
            return
        if not self._plans.derives(event):
            arm[counts.UNDERIVED] += 1
        if event.exposed and exposure.variant is None:
            self._expose(exposure, definition, record)
        elif event.exposed and event.variant != exposure.variant and not exposure.multiple:
            self._leave(exposure, definition, event)

    def outcome(self, record: Record) -> None:
        """Count an outcome: for the exposures there are, and for those to come."""
        event, head, appended_ms = record.event, self._head, record.appended_ms
        unit_id, name, value, time_us = event.unit_id, event.metric, event.value, micros(event.time)
        head.outcomes = record.offset + 1
        newest = head.newest_us
        if newest is None or time_us > newest:
            head.newest_us = time_us
        if (generation := appended_ms // GENERATION_MS) > head.generation:
            head.generation = generation
        unit = self._units.get(unit_id) or self._unit(unit_id)
        self._touched_units.add(unit_id)
        again = repeated(unit, digest_of(unit_id, event.id), head.generation, self._store)
        behind = None if newest is None else newest - time_us
        entry = (appended_ms, time_us, record.offset, name, value, event.request_id, again, behind)
        remember(unit_id, unit, entry, self._store)
        if name in self._wanted and not again:
            self._days(unit, entry)
        for exposure in unit.exposures:
            self._take(unit_id, exposure, entry)
        if self._plans.by_request and event.request_id is not None:
            self._for_request(unit_id, event.request_id, entry)

    def save(self) -> None:
        """Write all that was touched, once."""
        store = self._store
        for (_, metric), (exposure, definition, old) in self._before.items():
            new = definition.contribution(metric, exposure)
            if new != old:
                self._move(exposure, definition, metric, old, new)
        for unit_id in self._touched_units_in_order():
            store.put(self._keys[unit_id], UNITS.encode(self._units[unit_id]))
        for request_id in sorted(self._touched_requests):
            store.put(key(REQUEST, request_id), SUBJECTS.encode(self._requests[request_id]))
        for experiment, name in self._tally.save(store):
            changed = self._head.changed.setdefault(experiment, [])
            if name is not None and name not in changed:
                changed.append(name)

    def _touched_units_in_order(self) -> Iterable[str]:
        """In the order in which they came: a set's order is another in each process."""
        return (unit_id for unit_id in self._units if unit_id in self._touched_units)

    def _exposure(self, event: Assignment, definition: Definition) -> Exposure:
        """The experiment's view of the subject, which its first assignment makes."""
        subject = self._requests.get(event.request_id) or self._request(event.request_id) if definition.by_request else None
        exposures = (subject or self._units.get(event.unit_id) or self._unit(event.unit_id)).exposures
        for exposure in exposures:
            if exposure.experiment == event.experiment:
                return exposure
        made = Exposure(event.experiment, overridden=event.override)
        exposures.append(made)
        self._touch(event, definition)
        self._tally.counts(event.experiment, event.variant)[counts.OVERRIDDEN if event.override else counts.ASSIGNED] += 1
        return made

    def _touch(self, event: Assignment, definition: Definition) -> None:
        if definition.by_request:
            self._touched_requests.add(event.request_id)
        else:
            self._touched_units.add(event.unit_id)

    def _expose(self, exposure: Exposure, definition: Definition, record: Record) -> None:
        """The first exposure: outcomes that were appended shortly before it count too."""
        event: Assignment = record.event
        self._touch(event, definition)
        for metric in range(len(definition.metrics)):
            self._keep(exposure, definition, metric)
        exposure.variant, exposure.time_us, exposure.appended_ms = event.variant, micros(event.time), record.appended_ms
        exposure.segments = [f"{field}={value}" for field, value in event.segments.items()]
        exposure.unit = event.unit_id if definition.by_request else ""
        exposure.values = [None] * definition.slots
        exposure.steps = definition.ranges.of(event.features) if definition.ranges is not None else None
        self._tally.counts(event.experiment, event.variant)[counts.EXPOSED] += 1
        self._tally.segment(event.experiment, event.variant, exposure.segments, 1)
        unit = self._units.get(event.unit_id) or self._unit(event.unit_id)
        for covariates in definition.before.values():
            for covariate in covariates:
                exposure.values[covariate.slot.index] = _from_days(covariate, exposure, unit)
        subject = event.request_id if definition.by_request else event.unit_id
        for entry in recall(event.unit_id, unit, record.appended_ms - GRACE_MS, self._store):
            if not definition.by_request or entry[5] == event.request_id:
                self._into(subject, exposure, definition, entry)

    def _leave(self, exposure: Exposure, definition: Definition, event: Assignment) -> None:
        """A second variant: the subject counts no more."""
        self._touch(event, definition)
        for metric in range(len(definition.metrics)):
            self._keep(exposure, definition, metric)
        variant = exposure.variant or ""
        exposure.multiple = True
        self._tally.counts(exposure.experiment, variant)[counts.MULTIPLE] += 1
        self._tally.segment(exposure.experiment, variant, exposure.segments, -1)

    def _take(self, subject: str, exposure: Exposure, entry: Entry) -> None:
        """An outcome after the exposure."""
        name = exposure.experiment
        definition = self._plans.definition(name)
        if definition is None or exposure.variant is None or entry[0] >= self._plans.closes_ms.get(name, entry[0] + 1):
            return
        if entry[3] in definition.into and entry[0] >= exposure.appended_ms - GRACE_MS:
            self._into(subject, exposure, definition, entry)
        if entry[3] in definition.before and not entry[6] and not _late(entry, definition):
            self._before_exposure(exposure, definition, entry)

    def _into(self, subject: str, exposure: Exposure, definition: Definition, entry: Entry) -> None:
        """Put an outcome into each window that it is in, and count it once."""
        into = definition.into.get(entry[3])
        if into is None:
            return
        _, time_us, offset, _, value, _, again, _ = entry
        elapsed = time_us - exposure.time_us
        late = _late(entry, definition)
        inside = False
        for index, metric, window_us, resolution, update in into:
            if 0 <= elapsed < window_us:
                inside = True
                if not (again or late or exposure.multiple):
                    self._keep(exposure, definition, metric)
                    steps, values = round(value / resolution), exposure.values
                    if update is None:
                        values[index] = one_more(values[index], steps, (subject, exposure.experiment, index), self._store)
                    else:
                        values[index] = update(values[index], steps, time_us, offset)
        if inside:
            arm = self._tally.counts(exposure.experiment, exposure.variant or "")
            arm[counts.DUPLICATES if again else counts.LATE if late else counts.OUTCOMES] += 1

    def _before_exposure(self, exposure: Exposure, definition: Definition, entry: Entry) -> None:
        """An outcome of the days before, told after the exposure."""
        day, exposed_day = entry[1] // DAY_US, exposure.time_us // DAY_US
        for covariate in definition.before[entry[3]]:
            if covariate.covers(exposed_day, day) and not exposure.multiple:
                slot, values = covariate.slot, exposure.values
                self._keep(exposure, definition, slot.metric)
                values[slot.index] = slot.aggregator.update(values[slot.index], round(entry[4] / slot.resolution), entry[1], entry[2])

    def _days(self, unit: UnitState, entry: Entry) -> None:
        """Add an outcome to the sums of its day, for exposures to come."""
        behind, day = entry[7], entry[1] // DAY_US
        for one in self._wanted[entry[3]]:
            if day >= one.first_day and (behind is None or behind <= one.lateness_us):
                days = unit.days.setdefault(one.key, {})
                days[day] = day_with(days.get(day), round(entry[4] / one.resolution))
                if len(days) > one.days + KEPT_DAYS:
                    del days[min(days)]

    def _for_request(self, unit_id: str, request_id: str, entry: Entry) -> None:
        subject = self._requests.get(request_id) or self._request(request_id)
        for exposure in subject.exposures:
            if exposure.unit == unit_id:
                self._touched_requests.add(request_id)
                self._take(request_id, exposure, entry)

    def _keep(self, exposure: Exposure, definition: Definition, metric: int) -> None:
        """Remember what a subject added to a metric before this poll."""
        place = (id(exposure), metric)
        if place not in self._before:
            self._before[place] = (exposure, definition, definition.contribution(metric, exposure))

    def _move(self, exposure: Exposure, definition: Definition, metric: int, old: Contribution | None, new: Contribution | None) -> None:
        variant, folded = exposure.variant or "", definition.metrics[metric]
        labels = [variant, *(f"{variant}|{name}" for name in exposure.segments)] if folded.segmented else [variant]
        self._tally.move((definition.name, folded.name), labels, old, new)
        if folded.ranges is not None and exposure.steps is not None:
            self._tally.regress((definition.name, folded.name), variant, exposure.steps, (old, new))

    def _unit(self, unit_id: str) -> UnitState:
        place = self._keys[unit_id] = key(UNIT, unit_id)
        stored = self._store.get(place)
        unit = self._units[unit_id] = UnitState() if stored is None else UNITS.decode(stored)
        return unit

    def _request(self, request_id: str) -> Subject:
        stored = self._store.get(key(REQUEST, request_id))
        subject = self._requests[request_id] = Subject() if stored is None else SUBJECTS.decode(stored)
        return subject


def _late(entry: Entry, definition: Definition) -> bool:
    return entry[7] is not None and entry[7] > definition.lateness_us


def _from_days(covariate: Covariate, exposure: Exposure, unit: UnitState) -> Any:
    """What the covariate begins with: the days before that are known by now."""
    of_days, exposed_day = covariate.slot.aggregator.of_days, exposure.time_us // DAY_US
    days = [sums for day, sums in unit.days.get(covariate.key, {}).items() if covariate.covers(exposed_day, day)]
    return of_days(days) if of_days is not None and days else None
