"""Lets go of what can change nothing any more: a slice of the subjects a second, so that its cost is bounded and no cursor is kept.

What is let go of is decided by append times and plans, in the same way as in the fold itself: nothing that is emitted shows when a
sweep came by, or whether one did.
"""

from __future__ import annotations

from itertools import islice

from msgspec import Struct

from millrace.streams.experiment.plans import Plans
from millrace.streams.experiment.recent import KEPT_MS, forget
from millrace.streams.experiment.repeated import GENERATION_MS
from millrace.streams.experiment.repeated import key as id_key
from millrace.streams.experiment.subject import REQUEST, SLICES, SUBJECTS, UNIT, UNITS, Exposure, Subject, UnitState
from millrace.streams.experiment.unique import prefix
from millrace.streams.step import Store

KEYS = 500
"""How many subjects of each kind a sweep looks at."""
IDS = 2_000
"""How many ids of their own a sweep removes: they need no look."""
ROUNDS = 4_096
"""In so many seconds each subject is looked at once, of up to KEYS * ROUNDS of a kind; of more, once in SLICES / ROUNDS as long."""
KEY_BYTES = 3
"""The kind of a subject, and the two bytes that say its slice."""


class Sweep(Struct, frozen=True):
    """One sweep: what is known of plans, and the time before which no record will be appended."""

    plans: Plans
    watermark_ms: int
    generation: int
    wanted: dict[str, int]
    """The day sums that some plan wants, by their keys, and the first day of each."""
    store: Store

    @staticmethod
    def at(plans: Plans, watermark_ms: int, store: Store) -> Sweep:
        """A sweep at this time."""
        wanted = {one.key: one.first_day for same in plans.wanted(watermark_ms).values() for one in same}
        return Sweep(plans, watermark_ms, watermark_ms // GENERATION_MS, wanted, store)

    def run(self, second: int) -> None:
        """Sweep the slices of this second."""
        for stored, value in self._turn(UNIT, second):
            unit = UNITS.decode(value)
            gone, empty = self._tidied(stored[KEY_BYTES:].decode(), unit), self._is_empty(unit)
            if gone or empty:
                self._keep(stored, UNITS.encode(unit), empty=empty)
        for stored, value in self._turn(REQUEST, second):
            subject = SUBJECTS.decode(value)
            if self._closed(stored[KEY_BYTES:].decode(), subject):
                self._keep(stored, SUBJECTS.encode(subject), empty=not subject.exposures)
        for stored, _ in self._some(id_key(0), id_key(max(0, self.generation - 1)), IDS):
            self.store.delete(stored)

    def _turn(self, kind: bytes, second: int) -> list[tuple[bytes, bytes]]:
        """The subjects of a second's slices, from another one on in each round, or the last of too many would have no turn."""
        width = SLICES // ROUNDS
        first, behind = second % ROUNDS * width, second // ROUNDS % width
        found = self._some(*_range(kind, first + behind, width - behind), KEYS)
        return found + self._some(*_range(kind, first, behind), KEYS - len(found))

    def _keep(self, stored: bytes, value: bytes, *, empty: bool) -> None:
        if empty:
            self.store.delete(stored)
        else:
            self.store.put(stored, value)

    def _tidied(self, unit_id: str, unit: UnitState) -> bool:
        """Whether there was anything to let go of."""
        gone = forget(unit_id, unit, self.watermark_ms - KEPT_MS, self.store)
        gone = self._closed(unit_id, unit) or gone
        if unit.generation < self.generation - 1 and (unit.ids or unit.older):
            unit.ids = unit.older = b""
            gone = True
        return self._past(unit) or gone

    def _past(self, unit: UnitState) -> bool:
        """Let go of day sums that no plan wants; whether there were any."""
        before, first = sum(map(len, unit.days.values())), self.wanted
        kept = {key: {day: sums for day, sums in days.items() if day >= first[key]} for key, days in unit.days.items() if key in first}
        unit.days = {key: days for key, days in kept.items() if days}
        return sum(map(len, unit.days.values())) < before

    def _is_empty(self, unit: UnitState) -> bool:
        """Whether a unit is as one that was never seen."""
        remembers = unit.recent or unit.chunks or unit.ids or unit.older or unit.spilled >= self.generation - 1
        return not (remembers or unit.exposures or unit.days)

    def _closed(self, name: str, subject: Subject | UnitState) -> bool:
        """Let go of closed experiments; their values that are keys of their own go first."""
        left = [exposure for exposure in subject.exposures if not self._over(name, exposure)]
        gone = len(left) < len(subject.exposures)
        subject.exposures = left
        return gone

    def _over(self, name: str, exposure: Exposure) -> bool:
        closes_ms = self.plans.closes_ms.get(exposure.experiment)
        if closes_ms is None or self.watermark_ms < closes_ms:
            return False
        definition = self.plans.definition(exposure.experiment)
        uniques = [
            slot.index
            for metric in (definition.metrics if definition is not None else ())
            for slot in (metric.value, metric.denominator)
            if slot is not None and slot.unique
        ]
        return not any(self._values_left(name, exposure, index) for index in uniques)

    def _values_left(self, name: str, exposure: Exposure, index: int) -> bool:
        """Remove some of a slot's values; whether there may be more."""
        if index >= len(exposure.values) or not isinstance(exposure.values[index], int):
            return False
        start = prefix((name, exposure.experiment, index))
        some = self._some(start, start + b"\xff", KEYS)
        for stored, _ in some:
            self.store.delete(stored)
        return len(some) == KEYS

    def _some(self, start: bytes, end: bytes, keys: int) -> list[tuple[bytes, bytes]]:
        return list(islice(self.store.scan(start, end), keys))


def _range(kind: bytes, first: int, width: int) -> tuple[bytes, bytes]:
    """The keys of some slices."""
    end = kind + (first + width).to_bytes(2, "big") if first + width < SLICES else bytes([kind[0] + 1])
    return kind + first.to_bytes(2, "big"), end
