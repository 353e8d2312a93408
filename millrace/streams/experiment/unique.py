"""How many different values there were: a list of them, until a subject has so many that each becomes a key of its own."""

from __future__ import annotations

from typing import Any

from millrace.schemas.metric import Aggregation
from millrace.streams.experiment.subject import digest_of
from millrace.streams.experiment.value import AGGREGATORS
from millrace.streams.step import Store

INLINE = 256
VALUES = b"q"
Owner = tuple[str, str, int]
"""The subject, the experiment and the slot whose values they are."""
_list = AGGREGATORS[Aggregation.UNIQUE].update


def one_more(state: Any, value: int, owner: Owner, store: Store) -> Any:
    """The state with one more value: the list of them, or, once they stand in the store, their number."""
    if isinstance(state, int):
        return state + _added(value, owner, store)
    values = _list(state, value, 0, 0)
    if len(values) <= INLINE:
        return values
    return sum(_added(known, owner, store) for known in values)


def prefix(owner: Owner) -> bytes:
    """What all keys of one slot's values begin with."""
    return VALUES + digest_of(owner[0], owner[1], str(owner[2]))


def _added(value: int, owner: Owner, store: Store) -> int:
    place = prefix(owner) + str(value).encode()
    if store.get(place) is not None:
        return 0
    store.put(place, b"\x01")
    return 1
