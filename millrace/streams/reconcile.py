"""Compare the offsets that a log shows with the offsets that a table holds: what is missing, twice there, or from nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec import Struct

Offsets = np.ndarray[Any, np.dtype[np.int64]]
EMPTY: Offsets = np.empty(0, np.int64)


class Run(Struct, frozen=True):
    """The offsets from ``first`` to ``last``, of which ``count`` are meant: a log has gaps."""

    first: int
    last: int
    count: int


class Difference(Struct):
    """How the rows of one partition differ from its records, over all chunks that were compared."""

    records: int = 0
    rows: int = 0
    missing: list[Run] = []
    duplicated: list[Run] = []
    unknown: list[Run] = []

    def add(self, log: Offsets, table: Offsets) -> None:
        """Take in one range of offsets: those of the log, each once and in order, and those of the table, in order."""
        distinct, copies = np.unique(table, return_counts=True)
        self.records += len(log)
        self.rows += len(table)
        self.missing += runs(log[~np.isin(log, distinct, assume_unique=True)])
        self.duplicated += runs(distinct[copies > 1])
        self.unknown += runs(distinct[~np.isin(distinct, log, assume_unique=True)])


def runs(offsets: Offsets) -> list[Run]:
    """Offsets in order as runs of neighbours.

    >>> runs(np.array([3, 4, 5, 9]))
    [Run(first=3, last=5, count=3), Run(first=9, last=9, count=1)]
    """
    if not len(offsets):
        return []
    pieces = np.split(offsets, np.flatnonzero(np.diff(offsets) > 1) + 1)
    return [Run(int(piece[0]), int(piece[-1]), len(piece)) for piece in pieces]


def total(found: list[Run]) -> int:
    """How many offsets these runs mean."""
    return sum(run.count for run in found)


def above(found: list[Run], start: int) -> list[Run]:
    """What of these runs lies at or above an offset; runs without gaps inside.

    >>> above([Run(3, 5, 3), Run(9, 9, 1)], 5)
    [Run(first=5, last=5, count=1), Run(first=9, last=9, count=1)]
    """
    return [Run(first := max(run.first, start), run.last, run.last - first + 1) for run in found if run.last >= start]
