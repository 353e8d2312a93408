"""What a benchmark is run with."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from millrace.schemas.record import Format


class Encoding(StrEnum):
    """How requests are encoded."""

    JSON = "json"
    MSGPACK = "msgpack"

    @property
    def form(self) -> Format:
        """The same, as records know it."""
        return Format.MSGPACK if self is Encoding.MSGPACK else Format.JSON


class Shape(StrEnum):
    """How requests carry their features."""

    NAME = "name"
    VECTOR = "vector"


class Network(StrEnum):
    """The model that answers."""

    SMALL = "small"
    POLICY = "policy"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths of its layers."""
        return (100, 64, 1) if self is Network.SMALL else (263, 512, 512, 4)


class Options(Struct, frozen=True):
    """One benchmark: the requests, the model, and how often each loop is measured."""

    encoding: Encoding = Encoding.JSON
    shape: Shape = Shape.NAME
    network: Network = Network.SMALL
    requests: int = 100_000
    rounds: int = 3
    poll_records: int = 5_000
    gather_seconds: float = 0.005

    @property
    def target_ratio(self) -> float:
        """The least ratio to the bare loop's rate that we hold ourselves to."""
        if self.network is Network.POLICY:
            return 0.75
        return 0.65 if self.encoding is Encoding.JSON else 0.5

    def to_text(self) -> str:
        """For the command line of a child process."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_text(text: str) -> Options:
        """What ``to_text`` gave."""
        return msgspec.json.decode(text, type=Options)
