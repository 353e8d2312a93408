"""``millrace dead-letters``: what could not be used, and letting a held worker go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from millrace.infra.kafka import clients
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.offsets import committed_metadata
from millrace.infra.kafka.tail import Spot, Tail, extents
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import RunnerSettings, Settings
from millrace.schemas import plain
from millrace.schemas.dead_letter import Allowance, DeadLetter
from millrace.schemas.errors import UsageError
from millrace.schemas.record import Record
from millrace.schemas.topics import ALLOWANCES, DEAD_LETTERS, READERS
from millrace.schemas.wire import codec
from millrace.streams.cap import Cap, CapLimits
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.report import cut, kafka_settings, say, show, when

WorkerOption = Annotated[str | None, typer.Option("--worker", help="Those of one role alone.")]
Newest = Annotated[int, typer.Option("--max", min=1, help="At most so many, the newest.")]
Which = Annotated[str, typer.Argument(help="Its id, or the place of the original: requests/3@120.")]
Role = Annotated[str, typer.Argument(help="The role that is held, e.g. inference.")]
OfTopic = Annotated[str | None, typer.Option("--topic", help="A topic that it reads; all if left out.")]
OfPartition = Annotated[int | None, typer.Option("--partition", min=0, help="A partition; all if left out.")]
All = Annotated[bool, typer.Option("--all", help="Allow on every partition, held or not.")]
COLUMNS = ("time", "worker", "place", "reason")
ALLOWED = ("topic", "partition", "through")

group = typer.Typer(name="dead-letters", help="What could not be used, and why; let a held worker go on.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group.command("list")(list_letters)
    group.command("show")(show_letter)
    group.command()(allow)
    app.add_typer(group)


def list_letters(worker: WorkerOption = None, most: Newest = 50, data: Data = None, json: Json = False) -> None:
    """The newest dead letters, oldest first."""
    letters = [letter for letter in _newest(kafka_settings(data), most) if worker in (None, letter.worker)]
    shown = sorted(letters, key=lambda letter: letter.time)[-most:]
    show(
        [_document(letter) for letter in shown],
        [[when(x.time), x.worker, _place(x), cut(x.reason, 200)] for x in shown],
        COLUMNS,
        json,
        "no dead letters",
    )


def show_letter(which: Which, data: Data = None, json: Json = False) -> None:
    """One dead letter: why, and the original record."""
    for letter in _letters(read_whole(kafka_settings(data), DEAD_LETTERS)):
        if which in (letter.id, _place(letter)):
            break
    else:
        raise UsageError(f"no dead letter has the id or place {which!r}; see `millrace dead-letters list`")
    document = _document(letter)
    if json:
        write_json(document)
        return
    for name, value in document.items():
        say(f"{name:>9}  {value}")


def allow(
    role: Role, topic: OfTopic = None, partition: OfPartition = None, everywhere: All = False, data: Data = None, json: Json = False
) -> None:
    """Let a role that is held at its cap dead-letter on, through what stands on its partitions now.

    Without --topic, --partition or --all it is given for the held partitions. Everything up to the present end of each is then
    dead-lettered without counting; what comes after counts from 0 again.
    """
    settings = kafka_settings(data)
    wanted = [
        place for place in _places(settings, role, held_only=not (everywhere or topic or partition is not None))
        if topic in (None, place[0]) and partition in (None, place[1])
    ]  # fmt: skip
    if not wanted:
        otherwise = "see `millrace status`, or name --topic, --partition or --all"
        raise UsageError(f"no such partition of {role} is held at its dead-letter cap; {otherwise}")
    ends = _ends(settings, {place[0] for place in wanted})
    given = [_give(Control(settings, ALLOWANCES), role, place, ends[place] - 1) for place in wanted if ends[place] > 0]
    show(given, [[a.topic, a.partition, a.through] for a in given], ALLOWED, json)


def _give(allowances: Control[Allowance], role: str, place: tuple[str, int], through: int) -> Allowance:
    topic, partition = place

    def build(version: int) -> Allowance:
        return Allowance(version=version, time=datetime.now(UTC), worker=role, topic=topic, partition=partition, through=through)

    return allowances.append(role, build)


def _places(settings: Settings, role: str, *, held_only: bool) -> list[tuple[str, int]]:
    """The partitions that a role reads: unprefixed topic and number; the held ones by what their committed offsets say."""
    if role not in READERS:
        raise UsageError(f"no role {role!r} reads with a group: use one of {', '.join(READERS)}")
    infos = clients.describe(settings, [clients.full_name(settings, topic) for topic in READERS[role]])
    limits = _limits(settings.runner)
    committed = committed_metadata(settings, role, infos)
    found = [place for place, metadata in committed.items() if not held_only or _cap(metadata).reached(limits)]
    return [(topic.removeprefix(settings.topic_prefix), partition) for topic, partition in found]


def _cap(metadata: str) -> Cap:
    try:
        return msgspec.json.decode(metadata or "{}", type=Cap)
    except msgspec.MsgspecError:
        return Cap()


def _limits(runner: RunnerSettings) -> CapLimits:
    return CapLimits(runner.dead_letter_run, runner.dead_letter_ratio, runner.dead_letter_window_records)


def _ends(settings: Settings, topics: set[str]) -> dict[tuple[str, int], int]:
    infos = clients.describe(settings, [clients.full_name(settings, topic) for topic in topics])
    found = extents(settings, infos)
    return {(name.removeprefix(settings.topic_prefix), extent.partition): extent.end for name in found for extent in found[name]}


def _newest(settings: Settings, most: int) -> Iterator[DeadLetter]:
    """The last letters of each partition: more than are shown, because --worker leaves some of them out."""
    tail = Tail(settings, DEAD_LETTERS.name, Spot(before_end=2 * most + 100))
    try:
        yield from _letters(tail.until_end())
    finally:
        tail.close()


def _letters(records: Iterator[Record]) -> Iterator[DeadLetter]:
    decode = codec(DEAD_LETTERS).decode
    return (decode(record.value, record.headers) for record in records)


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}/{letter.partition}@{letter.offset}"


def _document(letter: DeadLetter) -> dict[str, Any]:
    """The letter with its original as text, or as hex where it is none."""
    return {
        "id": letter.id,
        "time": letter.time,
        "worker": letter.worker,
        "place": _place(letter),
        "topic_id": letter.topic_id,
        "reason": letter.reason,
        "key": plain.text(letter.key),
        "headers": {name: plain.text(value) for name, value in letter.headers},
        "value": plain.text(letter.value),
    }
