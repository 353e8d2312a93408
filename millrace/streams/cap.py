"""How much of a partition may be dead-lettered before a person has to look."""

from __future__ import annotations

from msgspec import Struct


class CapLimits(Struct, frozen=True):
    """The cap: this many in a row, or ``ratio`` of a window of so many records; windows follow one another and do not overlap."""

    run: int
    ratio: float
    window_records: int


class Cap(Struct, frozen=True):
    """How close one partition's dead-lettering is to its cap. It lives in the committed offset's metadata, so a restart keeps it.

    >>> limits = CapLimits(run=2, ratio=0.5, window_records=10)
    >>> cap = Cap().after(dead=True, limits=limits).after(dead=True, limits=limits)
    >>> cap.reached(limits)
    True
    """

    run: int = 0
    seen: int = 0
    dead: int = 0

    def after(self, *, dead: bool, limits: CapLimits) -> Cap:
        """The cap after one more record."""
        start = Cap(run=self.run) if self.seen >= limits.window_records else self
        return Cap(run=start.run + 1 if dead else 0, seen=start.seen + 1, dead=start.dead + dead)

    def after_good(self, records: int, limits: CapLimits) -> Cap:
        """The cap after ``records`` good ones: as ``after`` called so often, in one step."""
        if not records:
            return self
        seen = self.seen + records
        if seen <= limits.window_records:
            return Cap(run=0, seen=seen, dead=self.dead)
        return Cap(run=0, seen=(seen - 1) % limits.window_records + 1, dead=0)

    def reached(self, limits: CapLimits) -> bool:
        """Whether one more dead letter would be too many."""
        return self.run >= limits.run or self.dead >= limits.ratio * limits.window_records
