"""``millrace experiments report``: what an experiment came to, for who decides and for who wants to know why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from millrace.schemas.errors import UsageError
from millrace.workers.addresses import connected
from millrace.workers.commands.common import Data, Json, settings_with, write_json
from millrace.workers.commands.report import say

Name = Annotated[str, typer.Argument(help="The experiment.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page with charts to this file; it needs nothing beside itself.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the same as Markdown, without charts, to this file.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="How many seconds the archiver has to catch up with the result's offsets.")]


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(report)


def report(name: Name, html: Html = None, markdown: Markdown = None, wait: Wait = 30.0, data: Data = None, json: Json = False) -> None:
    """Tell what an experiment's newest result says, with charts, segments, sensitivity and the SQL behind each number.

    Without an option it is written as Markdown to standard output. Exit code 3: the archive has not all that the result covers.
    """
    from millrace.workers.report.gather import gather
    from millrace.workers.report.page import page
    from millrace.workers.report.text import markdown as text
    from millrace.workers.results import newest_result

    settings = connected(settings_with(data))
    found = gather(settings, newest_result(settings, name), datetime.now(UTC), wait)
    for path, told in ((html, page), (markdown, text)):
        if path is not None:
            _write(path, told(found))
    if json:
        write_json(found)
    elif html is None and markdown is None:
        say(text(found).rstrip("\n"))
    else:
        say("\n".join(f"wrote {path}" for path in (html, markdown) if path is not None))


def _write(path: Path, told: str) -> None:
    try:
        path.write_text(told, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
