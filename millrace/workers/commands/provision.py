"""``millrace provision`` and ``millrace offsets``: topics, and where groups stand on them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from msgspec import structs

from millrace.infra.kafka import offsets
from millrace.infra.kafka.clients import full_name
from millrace.infra.kafka.provision import provision as make
from millrace.schemas.errors import UsageError
from millrace.schemas.topics import READERS
from millrace.workers.commands.common import Data, Json
from millrace.workers.commands.report import kafka_settings, show
from millrace.workers.progress import Progress

Role = Annotated[str, typer.Argument(help="A role that reads with a consumer group, e.g. inference.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="A topic, without prefix; all that the role reads if left out.")]
To = Annotated[
    str,
    typer.Option(
        "--to",
        help="earliest, latest, commits (where the role's last committed transaction ended; nothing twice, nothing lost), or an offset.",
    ),
]
COLUMNS = ("topic", "partition", "offset")


class FirstStart(Enum):
    """Where a group without any offset begins."""

    EARLIEST = "earliest"
    LATEST = "latest"


Begin = Annotated[FirstStart, typer.Option("--start", help="Where a group that never ran begins.")]
group = typer.Typer(name="offsets", help="Where the consumer groups of the workers stand.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(provision)
    group.command()(reset)
    app.add_typer(group)


def provision(start: Begin = FirstStart.EARLIEST, data: Data = None, json: Json = False) -> None:
    """Make the topics and the start offsets that are missing, and check those that are there. Can be run again at any time."""
    changes = make(kafka_settings(data), start=offsets.Start(start.value))
    show(
        [structs.asdict(change) for change in changes],
        map(structs.astuple, changes),
        ("kind", "name", "detail"),
        json,
        "everything was there",
    )


def reset(role: Role, to: To, topic: Topics = None, data: Data = None, json: Json = False) -> None:
    """Set where a role's group goes on. Its workers must be stopped; a killed one's place frees after its session time-out.

    After lost offsets take `--to commits`; for a topic that was deleted and made anew, `--to earliest`.
    """
    settings = kafka_settings(data)
    names = [full_name(settings, name) for name in _inputs(role, topic)]
    with Progress().waiting(f"waiting until {role} has no live members"):
        placed = offsets.reset(settings, role, names, _start(to))
    rows = sorted((topic, partition, offset) for (topic, partition), offset in placed.items())
    show([dict(zip(COLUMNS, row, strict=True)) for row in rows], rows, COLUMNS, json)


def _inputs(role: str, wanted: list[str] | None) -> list[str]:
    if role not in READERS:
        raise UsageError(f"no role {role!r} reads with a group: use one of {', '.join(READERS)}")
    known = [topic.name for topic in READERS[role]]
    for name in wanted or ():
        if name not in known:
            raise UsageError(f"{role} does not read {name!r}: it reads {', '.join(known)}")
    return wanted or known


def _start(to: str) -> offsets.Start | int:
    if to.isdecimal():
        return int(to)
    try:
        return offsets.Start(to)
    except ValueError:
        raise UsageError(f"--to {to!r}: use {', '.join(start.value for start in offsets.Start)} or an offset") from None
