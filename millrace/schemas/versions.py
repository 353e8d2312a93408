"""Folding a control topic: the newest valid version of each name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from millrace.schemas.event import Event

V = TypeVar("V", bound=Event)


class Versions(Generic[V]):
    """The newest valid version of each name on one control topic, told record by record in the order of offsets.

    Version n+1 is valid only after n, and the first record of a version wins: of two racing edits, one is ignored
    and told so. ``key`` names the field that is versioned.

    >>> from millrace.schemas.topics import ROUTES
    >>> from millrace.schemas.event import from_ms
    >>> from millrace.schemas.model import Route, Share
    >>> def route(version, serves): return Route(name="m", version=version, time=from_ms(0), shares=(Share(version=serves),))
    >>> routes: Versions[Route] = Versions()
    >>> [routes.offer(event) for event in (route(1, 1), route(2, 2), route(2, 3), route(4, 4))]
    [True, True, False, False]
    >>> routes.newest("m").shares[0].version, routes.next_version("m"), routes.next_version("new")
    (2, 3, 1)
    """

    def __init__(self, key: str = "name") -> None:
        self._key = key
        self._newest: dict[str, V] = {}

    def offer(self, event: V) -> bool:
        """Take an event in if it is the next version of its name; False where it is not, and nothing changed."""
        name, version = self._place(event)
        if version != self.next_version(name):
            return False
        self._newest[name] = event
        return True

    def newest(self, name: str) -> V | None:
        """The newest valid version of a name."""
        return self._newest.get(name)

    def next_version(self, name: str) -> int:
        """The only version number that would be valid now."""
        known = self._newest.get(name)
        return 1 if known is None else self._place(known)[1] + 1

    def __iter__(self) -> Iterator[V]:
        """The newest version of every name, in the order of names."""
        return iter([self._newest[name] for name in sorted(self._newest)])

    def __len__(self) -> int:
        return len(self._newest)

    def _place(self, event: Any) -> tuple[str, int]:
        return getattr(event, self._key), event.version
