"""What a group's state changes become in the open transaction."""

from __future__ import annotations

from typing import Any

from millrace.infra.settings import convert
from millrace.workers.output import Output


class Sent:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []

    def produce(self, topic: str, value: bytes | None, key: Any, headers: Any, partition: int = -1, delivered: Any = None) -> None:
        self.records.append((topic, value, key, partition, delivered))


def test_the_last_change_alone_tells_how_far_the_changelog_is() -> None:
    """Its offset is the highest, and a report for each would be the dearest part of a change."""
    sent = Sent()

    def delivered(error: Any, message: Any) -> None:
        raise AssertionError("not called here")

    Output(convert({}), sent, {}).changelog("log", 3, {b"a": b"1", b"b": None, b"c": b"3"}, delivered)
    assert sent.records == [("log", b"1", b"a", 3, None), ("log", None, b"b", 3, None), ("log", b"3", b"c", 3, delivered)]
