"""``millrace sql``: ask ClickHouse."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from millrace.workers.addresses import connected
from millrace.workers.commands.common import Data, Json, settings_with
from millrace.workers.commands.report import say, show

if TYPE_CHECKING:
    from millrace.infra.clickhouse.client import Client

CELL_CHARACTERS = 60
Statement = Annotated[str | None, typer.Argument(help="The statement; without it, standard input is read.")]
Raw = Annotated[bool, typer.Option("--admin", help="Ask as the settings' own user, who may write and read tables, not as analyst.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(sql)


def sql(statement: Statement = None, admin: Raw = False, data: Data = None, json: Json = False) -> None:
    """Run one SQL statement as an analyst, who reads the views (v_decisions, v_predictions, ...) and nothing else.

    ``SHOW TABLES`` lists what there is, ``DESCRIBE v_decisions`` says what each column means.
    """
    client = _client(data, admin)
    text = statement if statement is not None else sys.stdin.read()
    client.use_database()
    try:
        columns, rows = client.table(text)
    finally:
        client.close()
    names = [column.name for column in columns] if rows else []
    documents = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
    if names or json:
        show(documents, [[_cell(value, whole=not sys.stdout.isatty()) for value in row] for row in rows], names, json)
    elif not rows:
        say("no rows")


def _client(data: Any, admin: bool) -> Client:
    from millrace.infra.clickhouse.client import Client
    from millrace.infra.settings import Secret

    settings = settings_with(data)
    settings = settings if settings.clickhouse.address else connected(settings)
    place = settings.clickhouse
    if not admin:
        place = replace(place, user="analyst", password=Secret(settings.endpoint.analyst_password.reveal()))
    return Client(place)


def _plain(value: Any) -> Any:
    """A value as JSON has it: bytes as text, as far as they are."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _cell(value: Any, *, whole: bool) -> str:
    """A value in one line of a table; long ones are cut on a terminal."""
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else str(_plain(value))
    line = " ".join(text.split()) if value is not None else "-"
    return line if whole or len(line) <= CELL_CHARACTERS else line[: CELL_CHARACTERS - 1] + "…"
