"""What commands share: the options that many take, settings with them applied, and how a report is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec.structs import replace

from millrace.infra.settings import Settings, load

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the one-machine stack. Default: MILLRACE_DATA, else the user's state directory.")
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output.")]

EXIT_PROBLEMS = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3


def settings_with(data: Path | None = None, port_base: int | None = None) -> Settings:
    """The settings of this process, with what the command line says in place of theirs."""
    settings = load()
    stack = settings.stack
    if data is not None:
        stack = replace(stack, data=str(data))
    if port_base is not None:
        stack = replace(stack, port_base=port_base)
    return replace(settings, stack=stack)


def write_json(document: object) -> None:
    """One JSON document on standard output, indented, with its last newline."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
