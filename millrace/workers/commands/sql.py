"""``millrace sql``: ask ClickHouse."""

from __future__ import annotations

import sys
from datetime import datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.schemas.errors import UsageError
from millrace.workers.addresses import as_analyst, connected
from millrace.workers.commands.common import Data, Json, settings_with
from millrace.workers.commands.report import say, show

if TYPE_CHECKING:
    from millrace.infra.clickhouse.client import Client, Column
    from millrace.infra.settings import ClickHouseSettings

CELL_CHARACTERS = 60
ACCESS_DENIED = 497
NOT_LET_IN = frozenset({192, 193, 194, 516})
"""ClickHouse's numbers for a user that there is not and for a wrong password, which it does not always tell apart."""
FAULTS = frozenset({ACCESS_DENIED, 36, 42, 43, 46, 47, 53, 60, 62, 81, 164, 215})
"""ClickHouse's numbers for a statement that cannot be run as it stands: syntax, unknown names, types, rights, settings."""
Statement = Annotated[str | None, typer.Argument(help="The statement; without it, standard input is read.")]
Raw = Annotated[bool, typer.Option("--admin", help="Ask as the settings' own user, who may write and read tables, not as analyst.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(sql)


def sql(statement: Statement = None, admin: Raw = False, data: Data = None, json: Json = False) -> None:
    """Run one SQL statement as an analyst, who reads the views (v_decisions, v_predictions, ...) and none of the tables.

    ``SHOW TABLES`` lists what there is, ``DESCRIBE v_decisions`` says what each column means.
    """
    client = _client(data, admin)
    text = statement if statement is not None else sys.stdin.read()
    client.use_database()
    try:
        columns, rows = _told(client, text, admin)
    finally:
        client.close()
    names = [column.name for column in columns] if rows else []
    documents = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
    terminal = sys.stdout.isatty()
    cells = [[_cell(value, whole=not terminal) for value in row] for row in rows]
    if terminal and not json and _width(names, cells) > get_terminal_size().columns:
        _show_upright(names, [[_cell(value, whole=True) for value in row] for row in rows])
    else:
        show(documents, cells, names, json, "no rows")


def _told(client: Client, text: str, admin: bool) -> tuple[list[Column], list[tuple[Any, ...]]]:
    """The answer; raises UsageError where the statement is at fault, and says what an analyst may read."""
    from millrace.infra.clickhouse.client import Refusal

    try:
        return client.table(text)
    except Refusal as error:
        if error.code not in FAULTS:
            raise
        hint = "" if admin or error.code != ACCESS_DENIED else ". An analyst reads views: SHOW TABLES lists them; --admin may read all"
        raise UsageError(f"{error}{hint}") from None


def _width(names: list[str], rows: list[list[str]]) -> int:
    """How many characters a line of a table takes."""
    return sum(max(map(len, column)) + 2 for column in zip(names, *rows, strict=True)) if names else 0


def _show_upright(names: list[str], rows: list[list[str]]) -> None:
    """A column on each line, for rows that are wider than the terminal."""
    wide = max(map(len, names))
    for number, row in enumerate(rows, 1):
        say(f"row {number}")
        for name, cell in zip(names, row, strict=True):
            say(f"  {name.ljust(wide)}  {cell}")


def _client(data: Any, admin: bool) -> Client:
    from millrace.infra.clickhouse.client import Client, Refusal

    settings = settings_with(data)
    if admin:
        return Client((settings if settings.clickhouse.address else connected(settings)).clickhouse)
    place = as_analyst(settings)
    try:
        return Client(place)
    except Refusal as error:
        if error.code not in NOT_LET_IN:
            raise
        raise UsageError(_not_let_in(place, str(error))) from None


def _not_let_in(place: ClickHouseSettings, reason: str) -> str:
    return (
        f"ClickHouse does not let the analyst {place.user} in: {reason.rstrip('.')}. Is that user there? docs/operations.md,"
        " 'An analyst on a server of your own', has the statements that make it. Its name and password are clickhouse.analyst_user and"
        " clickhouse.analyst_password. Or ask as the user of clickhouse.user: --admin"
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it: bytes as text, as far as they are."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _cell(value: Any, *, whole: bool) -> str:
    """A value in one line of a table; long ones are cut on a terminal."""
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else str(_plain(value))
    line = " ".join(text.split()) if value is not None else "-"
    return line if whole or len(line) <= CELL_CHARACTERS else line[: CELL_CHARACTERS - 1] + "…"
