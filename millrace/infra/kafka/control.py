"""Control topics as a command sees them: read whole, and given the next version of something.

Version n+1 is valid only after n, and the first record of a version wins. An edit is therefore: read, decide, publish, read back.
Whoever finds another record in its version's place lost the race, and is told so instead of believing that it was heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.schemas.errors import DecodeError, UsageError
from millrace.schemas.event import Event
from millrace.schemas.record import Record
from millrace.schemas.topics import Topic
from millrace.schemas.versions import Versions
from millrace.schemas.wire import codec

V = TypeVar("V", bound=Event)


class Control(Generic[V]):
    """One control topic, read whole: ``versions`` for what is valid now, ``history`` for all that ever was."""

    def __init__(self, settings: Settings, topic: Topic) -> None:
        self._settings = settings
        self._topic = topic
        self._codec = codec(topic)
        self._next = 0
        self.versions: Versions[V] = Versions(topic.partitioned_by or "name")
        self.history: list[tuple[Record, V]] = []
        self.refresh()

    def refresh(self) -> None:
        """Take in what has come since."""
        self._take(read_whole(self._settings, self._topic, self._next))

    def of(self, name: str) -> list[V]:
        """All valid versions of a name, oldest first."""
        return [event for record, event in self.history if (record.key or b"").decode(errors="replace") == name]

    def append(self, name: str, build: Callable[[int], V]) -> V:
        """Publish the next version of a name, which ``build`` makes from its number, and confirm that it is the valid one.

        Raises UsageError where somebody else's edit came first.
        """
        version = self.versions.next_version(name)
        event = build(version)
        headers = self._codec.headers(f"{self._topic.name}/{name}/{version}")
        (place,) = publish(self._settings, [Outgoing(self._topic.name, name.encode(), self._codec.encode(event), headers)])
        self.refresh()
        if any(record.offset == place.offset for record, _ in self.history):
            return event
        raise UsageError(
            f"somebody else wrote version {version} of {name} on {self._topic.name} a moment earlier, and the first one counts."
            " Look at it, and run this again if the edit is still wanted."
        )

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            self._next = record.offset + 1
            try:
                event = self._codec.decode(record.value, record.headers)
            except DecodeError:
                continue  # not valid for any reader; the workers that follow this topic tell of it
            if self.versions.offer(event):
                self.history.append((record, event))
