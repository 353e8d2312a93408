"""``millrace settings``: what is in effect, and where it comes from."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from msgspec.structs import replace

from millrace.infra.settings import DEFAULT, Settings, Shown, shown
from millrace.schemas.errors import Unavailable
from millrace.workers.addresses import connected
from millrace.workers.commands.common import Data, Json, settings_with
from millrace.workers.commands.report import show

COLUMNS = ("setting", "value", "from")

Changed = Annotated[bool, typer.Option("--changed", help="Those alone that are not left at their default.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(settings)


def settings(changed: Changed = False, data: Data = None, json: Json = False) -> None:
    """Every setting that is in effect here, and where it comes from: its default, the file, a variable, or the stack that runs.

    Passwords are shown as ***. docs/operations.md says what each setting means.
    """
    found = [one for one in _effective(settings_with(data), data is not None) if not changed or one.origin != DEFAULT]
    rows = [[one.key, msgspec.json.encode(one.value).decode(), one.origin] for one in found]
    show([{"key": one.key, "value": one.value, "from": one.origin} for one in found], rows, COLUMNS, json)


def _effective(given: Settings, by_option: bool) -> list[Shown]:
    """With the addresses of the stack that runs on the data folder, where none are set."""
    try:
        placed = connected(given)
    except Unavailable:
        placed = given
    filled = {"kafka.address": placed.kafka != given.kafka, "clickhouse.address": placed.clickhouse != given.clickhouse}
    origins = {key: f"the stack on {given.stack.folder}" for key, was_empty in filled.items() if was_empty}
    if by_option:
        origins["stack.data"] = "--data"
    return [replace(one, origin=origins.get(one.key, one.origin)) for one in shown(placed)]
