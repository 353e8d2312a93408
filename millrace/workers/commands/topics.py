"""``millrace topics``: what stands on Kafka, and publishing to the public topics."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Annotated, Any

import msgspec
import typer

from millrace.infra.kafka import clients
from millrace.infra.kafka.last import REACH_OFFSETS
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.kafka.tail import From, Spot, Tail, extents
from millrace.infra.settings import Settings
from millrace.schemas import plain
from millrace.schemas.errors import DecodeError, UsageError
from millrace.schemas.event import from_ms
from millrace.schemas.record import Format, Record
from millrace.schemas.topics import BY_NAME, TOPICS, Topic
from millrace.schemas.wire import TRACEPARENT, codec
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.report import cut, kafka_settings, say, show, when

Name = Annotated[str, typer.Argument(help="The topic, without prefix.")]
WHERE = (
    "earliest, latest, an offset, or -N for the last N committed records of each partition, looked for in its last"
    f" {REACH_OFFSETS:,} offsets (or 4 N)."
)
Where = Annotated[str, typer.Option("--from", help=WHERE)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
Most = Annotated[int | None, typer.Option("--max", min=1, help="Stop after so many records.")]
Lines = Annotated[str | None, typer.Argument(help="One record as JSON; without it, JSON lines are read from standard input.")]
Key = Annotated[str | None, typer.Option("--key", help="The key of every record. Default: its unit_id.")]
Trace = Annotated[str | None, typer.Option("--traceparent", help="A W3C traceparent header for every record.")]
BY_DEFAULT = "-10"
SHOWN_PLACES = 20
COLUMNS = ("topic", "kind", "partitions", "offsets", "written by", "carries")

group = typer.Typer(name="topics", help="Look at topics, and publish to the public ones.", no_args_is_help=True)


class Wire(Enum):
    """How a published record is encoded."""

    JSON = "json"
    MSGPACK = "msgpack"


WireFormat = Annotated[Wire, typer.Option("--format", help="How records are encoded.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group.command("list")(list_topics)
    group.command()(tail)
    group.command()(produce)
    app.add_typer(group)


def list_topics(data: Data = None, json: Json = False) -> None:
    """All topics: how they are kept, and how many offsets they span."""
    settings = kafka_settings(data)
    infos = clients.describe(settings, [clients.full_name(settings, topic) for topic in TOPICS])
    spans = extents(settings, infos)
    documents = [_described(topic, clients.full_name(settings, topic), infos, spans) for topic in TOPICS]
    rows = [[d["topic"], d["kind"], d["partitions"], d["offsets"], d["written_by"], d["carries"]] for d in documents]
    show(documents, rows, COLUMNS, json)


def tail(topic: Name, where: Where = BY_DEFAULT, follow: Follow = False, most: Most = None, data: Data = None, json: Json = False) -> None:
    """Print committed records, decoded from JSON or MessagePack, in the order of each partition. With --json one object a line."""
    watched = _watched(kafka_settings(data), topic, _spot(where))
    try:
        for count, record in enumerate(_records(watched, follow), 1):
            say(msgspec.json.encode(plain.document(record)).decode() if json else _line(record))
            if follow:
                sys.stdout.flush()
            if count == most:
                return
    finally:
        watched.close()


def produce(
    topic: Name,
    record: Lines = None,
    key: Key = None,
    form: WireFormat = Wire.JSON,
    traceparent: Trace = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Publish records to a public topic as an outside producer would. All are checked first; one bad line and none is published."""
    settings = kafka_settings(data)
    target = _public(topic)
    headers = [(TRACEPARENT, traceparent.encode())] if traceparent else []
    lines = [record] if record is not None else [line for line in sys.stdin if line.strip()]
    outgoing = [_outgoing(target, number, line, form, key, headers) for number, line in enumerate(lines, 1)]
    places = publish(settings, outgoing)
    if json:
        write_json(places)
        return
    for place in places if len(places) <= SHOWN_PLACES else ():
        say(f"{place.topic}/{place.partition}@{place.offset}")
    if len(places) > SHOWN_PLACES:
        say(f"{len(places)} records published to {topic}")


def _described(topic: Topic, name: str, infos: dict[str, Any], spans: dict[str, Any]) -> dict[str, Any]:
    there = name in infos
    return {
        "topic": name,
        "kind": topic.kind.value,
        "partitions": infos[name].partitions if there else None,
        "offsets": sum(extent.end - extent.start for extent in spans[name]) if there else None,
        "written_by": "outside producers" if topic.public else "millrace",
        "carries": topic.summary if there else "missing: run `millrace provision`",
    }


def _spot(where: str) -> Spot:
    if where.removeprefix("-").isdecimal():
        return Spot(before_end=int(where[1:])) if where.startswith("-") else Spot(offset=int(where))
    try:
        return Spot(place=From(where))
    except ValueError:
        raise UsageError(f"--from {where!r}: use earliest, latest, an offset, or -N for the last N of each partition") from None


def _watched(settings: Settings, topic: str, spot: Spot) -> Tail:
    """The reader of a topic, known or not: changelogs are not listed. Raises UsageError that says which there are."""
    try:
        return Tail(settings, topic, spot)
    except UsageError:
        if topic in BY_NAME:
            raise
        raise UsageError(f"there is no topic {topic}: use one of {', '.join(known.name for known in TOPICS)}") from None


def _records(watched: Tail, follow: bool) -> Iterator[Record]:
    yield from watched.until_end()
    while follow:
        yield from watched.read(0.2)


def _line(record: Record) -> str:
    shown = plain.document(record)
    value = shown["raw"] if "raw" in shown else msgspec.json.encode(shown["value"]).decode()
    error = f"  !! {shown['error']}" if "error" in shown else ""
    return f"{record.place}  {when(from_ms(record.appended_ms))}  {shown['key'] or '-'}  {cut(str(value))}{error}"


def _public(name: str) -> Topic:
    topic = BY_NAME.get(name)
    if topic is not None and topic.public:
        return topic
    public = ", ".join(topic.name for topic in TOPICS if topic.public)
    why = "is written by millrace alone" if topic else "is no topic of millrace"
    raise UsageError(f"{name} {why}: publish to {public}. Models, routes and experiments have commands of their own.")


def _outgoing(topic: Topic, number: int, line: str, form: Wire, key: str | None, headers: Iterable[tuple[str, bytes]]) -> Outgoing:
    """One line as a record; raises UsageError that says which line and where in it."""
    try:
        value = plain.plain(line.encode(), None)
        named = [*headers, ("content-type", Format.MSGPACK.value.encode())] if form is Wire.MSGPACK else list(headers)
        body = plain.to_msgpack(value) if form is Wire.MSGPACK else line.strip().encode()
        event = codec(topic).decode(body, named)
    except DecodeError as error:
        raise UsageError(f"record {number}: {error}. Nothing was published.") from None
    return Outgoing(topic.name, (key or event.unit_id).encode(), body, named)
