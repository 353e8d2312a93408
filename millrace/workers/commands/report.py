"""What commands that talk to Kafka share: where it is, and how rows and documents are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from millrace.infra.settings import Settings
from millrace.workers.addresses import connected
from millrace.workers.commands.common import settings_with, write_json

CUT_CHARACTERS = 400


def kafka_settings(data: Path | None) -> Settings:
    """The settings with Kafka's address: the one that is set, else that of the stack on the data folder."""
    settings = settings_with(data)
    return settings if settings.kafka.address else connected(settings)


def show(document: object, rows: Iterable[Sequence[object]], columns: Sequence[str], json: bool, nothing: str = "none") -> None:
    """A list: one JSON document where it was asked for, a table otherwise; ``nothing`` is said where it has no row."""
    if json:
        write_json(document)
        return
    rows = list(rows)
    if not rows:
        say(nothing)
        return
    lines = [list(columns), *[["-" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    console = Console(highlight=False)
    for index, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        console.print(Text(text, style="" if index else "bold"), soft_wrap=True)


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")


def cut(text: str, characters: int = CUT_CHARACTERS) -> str:
    """A long text cut for reading.

    >>> cut("abcdef", 3)
    'abc… (6 characters; --json shows all)'
    """
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text)} characters; --json shows all)"


def when(time: datetime) -> str:
    """A time for reading, to the second, in UTC."""
    return f"{time:%Y-%m-%d %H:%M:%S}Z"
