"""Where the judge keeps what it knows of an experiment, in the keyed store of the partition that the experiment is on.

``s<name>/<partition><metric>`` what was published and is not sealed yet; ``m...`` the same, sealed; ``p<name>/<partition>`` the seal;
``d<name>`` what is known of the looks; ``t<due><name>`` the next look, without a value; ``e`` how many edits of plans were compared with.
Each value begins with the version of its form.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from millrace.schemas.errors import Stop
from millrace.schemas.moments import Arm, PartitionMoments
from millrace.streams.judge.merge import Folded, Sealed
from millrace.streams.judge.past import Past
from millrace.streams.judge.signals import Heard
from millrace.streams.step import Store

FORM = b"\x01"
STAGED, SEALED, SEAL, DESK, TIMER, EDITS = b"s", b"m", b"p", b"d", b"t", b"e"
END = b"\xff"


class Seal(Struct, frozen=True):
    """What seals a partition: up to where, and what was seen of the arms."""

    offsets: dict[str, int]
    arms: dict[str, Arm]


class Desk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an experiment's looks. Times are append times, in milliseconds since the epoch."""

    changed: bool = False
    """Whether something was sealed since the last look."""
    learnt: bool = False
    """Whether something was sealed since the last policy."""
    judged_ms: int = 0
    policy_ms: int = 0
    due_ms: int = 0
    """When the next look is; 0 where none is due."""
    plan_version: int = 0
    """The version of the plan at the last look."""
    policy_version: int = 0
    stopped_from: int = 0
    """The plan version that was told to stop: told again only where another edit came first."""
    past: Past = Past()
    heard: Heard = Heard()


_encode = msgspec.msgpack.Encoder().encode
_folded = msgspec.msgpack.Decoder(Folded)
_seal = msgspec.msgpack.Decoder(Seal)
_desk = msgspec.msgpack.Decoder(Desk)


class Shelf:
    """The store of one call, as the judge reads and writes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def stage(self, event: PartitionMoments) -> None:
        """Keep a metric's sums until their partition is sealed."""
        folded = Folded(event.digest, event.plan_version, event.time, event.moments)
        self._store.put(_place(STAGED, event.experiment, event.partition) + event.metric.encode(), FORM + _encode(folded))

    def seal(self, event: PartitionMoments) -> bool:
        """Let all that was staged of a partition count, as of the seal's offsets; whether anything changed by it."""
        name, changed = _place(STAGED, event.experiment, event.partition), False
        for key, value in self._store.scan(name, name + END):
            sealed = SEALED + key[1:]
            changed |= self._store.get(sealed) != value
            self._store.put(sealed, value)
            self._store.delete(key)
        key, value = _place(SEAL, event.experiment, event.partition), FORM + _encode(Seal(event.offsets, event.arms))
        changed |= self._store.get(key) != value
        self._store.put(key, value)
        return changed

    def partitions(self, name: str) -> Iterator[Sealed]:
        """All that is sealed of an experiment."""
        prefix = SEAL + name.encode() + b"/"
        for key, value in self._store.scan(prefix, prefix + END):
            partition, seal = int.from_bytes(key[len(prefix) :], "big"), _seal.decode(_body(value))
            yield Sealed(partition=partition, offsets=seal.offsets, arms=seal.arms, metrics=dict(self._metrics(name, partition)))

    def desk(self, name: str) -> Desk:
        """What is known of the looks at an experiment."""
        value = self._store.get(DESK + name.encode())
        return Desk() if value is None else _desk.decode(_body(value))

    def keep(self, name: str, desk: Desk) -> None:
        """Remember what is known, and set the timer of the next look."""
        before = self.desk(name).due_ms
        if before != desk.due_ms:
            if before:
                self._store.delete(_timer(before, name))
            if desk.due_ms:
                self._store.put(_timer(desk.due_ms, name), b"")
        self._store.put(DESK + name.encode(), FORM + _encode(desk))

    def due(self, until_ms: int) -> tuple[int, str] | None:
        """The first look that is due by then: its time, and the experiment."""
        first = next(self._store.scan(TIMER, TIMER + (until_ms + 1).to_bytes(8, "big")), None)
        return None if first is None else (int.from_bytes(first[0][1:9], "big"), first[0][9:].decode())

    def names(self) -> list[str]:
        """The experiments of this partition group."""
        return [key[1:].decode() for key, _ in self._store.scan(DESK, DESK + END)]

    def edits(self) -> int:
        """How many edits of plans had been told when plans were last compared."""
        value = self._store.get(EDITS)
        return 0 if value is None else int.from_bytes(_body(value), "big")

    def compared(self, edits: int) -> None:
        """Remember how many edits of plans were compared with."""
        self._store.put(EDITS, FORM + edits.to_bytes(8, "big"))

    def _metrics(self, name: str, partition: int) -> Iterator[tuple[str, Folded]]:
        prefix = _place(SEALED, name, partition)
        for key, value in self._store.scan(prefix, prefix + END):
            yield key[len(prefix) :].decode(), _folded.decode(_body(value))


def _place(kind: bytes, name: str, partition: int) -> bytes:
    """Names have no slash, so that no experiment's keys lie within another's."""
    return kind + name.encode() + b"/" + partition.to_bytes(4, "big")


def _timer(due_ms: int, name: str) -> bytes:
    return TIMER + due_ms.to_bytes(8, "big") + name.encode()


def _body(value: bytes) -> bytes:
    if value[:1] != FORM:
        raise Stop(
            f"the judge's state has the form {value[:1]!r}, which this version does not read: run the version that wrote it, or a newer"
        )
    return value[1:]
