"""What the fold knows of its partition as a whole: how far it is, and what of it was not told yet."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from millrace.streams.experiment.subject import Coding
from millrace.streams.step import Store

KEY = b"h"


class Head(Struct, array_like=True):
    """Next offsets of both inputs, the newest times of outcomes so far, and what changed since it was emitted."""

    partition: int
    assignments: int = 0
    outcomes: int = 0
    newest_us: int | None = None
    """The newest event time of any outcome below ``outcomes``."""
    generation: int = 0
    """Of ids, by the newest append time."""
    emitted_ms: dict[str, int] = {}
    """When each experiment was last emitted, by the poll's clock."""
    changed: dict[str, list[str]] = {}
    """The experiments that changed since, with the metrics that did."""
    second: int = 0
    """The second of the last poll with records, by its clock; what was swept in it need not be swept again."""
    due: bool = True
    """Whether that poll was the first of its second."""

    def let_go(self, closed: Iterable[str]) -> bool:
        """Forget of closed experiments when they were emitted, once all of them was; whether there was any."""
        gone = [name for name in closed if name in self.emitted_ms and name not in self.changed]
        for name in gone:
            del self.emitted_ms[name]
        return bool(gone)


HEADS: Coding[Head] = Coding(Head)


def load(store: Store) -> Head | None:
    """The partition's head; None while nothing was ever folded."""
    stored = store.get(KEY)
    return HEADS.decode(stored) if stored is not None else None


def save(head: Head, store: Store) -> None:
    """Keep the head."""
    store.put(KEY, HEADS.encode(head))
