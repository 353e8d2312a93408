"""``millrace verify``: does every record of every topic stand in ClickHouse exactly once?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from millrace.workers.addresses import connected
from millrace.workers.commands.common import EXIT_PROBLEMS, Data, Json, settings_with
from millrace.workers.commands.report import say, show

if TYPE_CHECKING:
    from millrace.workers.verify import Checked, Report

COLUMNS = ("topic", "records", "rows", "missing", "duplicated", "unknown")

Wait = Annotated[float, typer.Option("--wait", min=0, help="How many seconds the archiver has to catch up.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(verify)


def verify(wait: Wait = 60.0, data: Data = None, json: Json = False) -> None:
    """Compare every committed record with the rows of its table, up to where the logs end now.

    Exit code 0: every record is one row; 1: rows are missing, duplicated, or no record explains them. May run while all works.
    """
    from millrace.workers.verify import verify as compare

    report = compare(connected(settings_with(data)), wait)
    by_topic: dict[str, list[Checked]] = {}
    for checked in report.partitions:
        by_topic.setdefault(checked.topic, []).append(checked)
    rows = [[topic, *(sum(getattr(one, kind) for one in found) for kind in COLUMNS[1:])] for topic, found in by_topic.items()]
    show({**msgspec.to_builtins(report), "clean": report.clean}, rows, COLUMNS, json)
    if not json:
        for line in _lines(report):
            say(line)
        say(f"{'clean' if report.clean else 'NOT clean'}: {report.records} records, {report.rows} rows, in {report.seconds:.1f} s")
    if not report.clean:
        raise typer.Exit(EXIT_PROBLEMS)


def _lines(report: Report) -> list[str]:
    """What is wrong and where, for reading."""
    lines = [
        f"{checked.topic}/{checked.partition}: {kind} {run.count} at offsets {run.first} to {run.last}"
        for checked in report.partitions
        for kind, runs in checked.where.items()
        for run in runs
    ]
    if report.behind:
        lines.append(f"the archiver had not passed the end of {report.behind} partitions in time: see `millrace status`, or use --wait")
    return lines
