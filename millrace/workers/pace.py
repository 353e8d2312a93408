"""How many records a poll may bring, so that a slow step comes back to Kafka before its group takes it for dead."""

from __future__ import annotations

SHARE = 0.2
"""How much of the poll interval processing may take: the rest is for commits that wait, and for a step that is slower the next time."""


class Pace:
    """The bound of the next poll: ``most`` records, fewer after processing took longer than its share of the interval.

    A member that does not poll within ``interval_seconds`` is thrown out of its group and its commit refused; with a bound that never
    moved, its successor would poll the same records, and be thrown out as well.

    >>> pace = Pace(5_000, 300.0)
    >>> pace.took(5_000, 600.0), pace.records
    (None, 500)
    >>> pace.took(500, 20.0), pace.records
    (None, 1000)
    """

    def __init__(self, most: int, interval_seconds: float) -> None:
        self._most = most
        self._longest_seconds = SHARE * interval_seconds
        self.records = most

    def took(self, records: int, seconds: float) -> None:
        """Take in how long the last poll's records were processed. Only a full poll that went fast tells that more would do."""
        if records and seconds > self._longest_seconds:
            self.records = max(1, min(self.records, int(records * self._longest_seconds / seconds)))
        elif records >= self.records and seconds < self._longest_seconds / 2:
            self.records = min(self._most, 2 * self.records)
