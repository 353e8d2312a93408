"""``millrace replay``: do the recorded transactions of a role come to the same bytes again?"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from millrace.schemas.errors import UsageError
from millrace.workers.commands.common import EXIT_PROBLEMS, Data, Json, write_json
from millrace.workers.commands.report import cut, kafka_settings, say

if TYPE_CHECKING:
    from millrace.workers.replay import Report

Role = Annotated[str, typer.Argument(help="Whose transactions, e.g. inference.")]
Since = Annotated[str | None, typer.Option("--from", help="Only those since a time with its zone, e.g. 2026-05-01T12:00:00Z.")]
Last = Annotated[int | None, typer.Option("--last", min=1, help="Only the last so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(replay)


def replay(role: Role, since: Since = None, last: Last = None, data: Data = None, json: Json = False) -> None:
    """Run a role's transactions again, as `commits` has them, and compare what comes of them with the log, byte by byte.

    Exit code 0: nothing differs; 1: something does. May run while all works: it ends where the logs end now, and writes nothing.
    """
    from millrace.workers.replay import ROLES, Window
    from millrace.workers.replay import replay as run

    if role not in ROLES:
        raise UsageError(f"there is no role {role!r} to replay: {', '.join(ROLES)}")
    if since is not None and last is not None:
        raise UsageError("--from and --last say different things: use one of them")
    report = run(kafka_settings(data), ROLES[role], Window(None if since is None else _time(since), last))
    if json:
        write_json({**msgspec.to_builtins(report), "equal": report.equal})
    else:
        for line in _lines(report):
            say(line)
    if not report.equal:
        raise typer.Exit(EXIT_PROBLEMS)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--from {text!r} is not a time: write it as 2026-05-01T12:00:00Z") from None
    if time.tzinfo is None:
        raise UsageError(f"--from {text!r} has no zone: write 2026-05-01T12:00:00Z, or +02:00 in place of the Z")
    return time


def _lines(report: Report) -> list[str]:
    """The report for reading."""
    lines = []
    for difference in report.first:
        of = "" if difference.commit in (None, difference.place) else f" of {difference.commit}"
        lines.append(f"{difference.place}{of}: {cut(difference.what)}")
    if report.differences > len(report.first):
        lines.append(f"and {report.differences - len(report.first)} more")
    if report.gone:
        lines.append(f"{report.gone} transactions are gone, not judged: {report.why_gone}")
    if report.dropped:
        lines.append(f"{report.dropped} events are not judged: retention has dropped what they are to be compared with")
    lines.append(
        f"{'equal' if report.equal else 'NOT equal'}: {report.transactions_equal} of {report.transactions} transactions, "
        f"{report.events_equal} of {report.events} events, in {report.seconds:.1f} s"
    )
    return lines
