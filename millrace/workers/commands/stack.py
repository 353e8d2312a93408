"""``millrace up``, ``status`` and ``down``: the one-machine stack."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from millrace.infra.settings import Settings
from millrace.workers.commands.common import EXIT_PROBLEMS, EXIT_UNAVAILABLE, Data, Json, settings_with, write_json
from millrace.workers.progress import Progress
from millrace.workers.stack.plan import Plan, make
from millrace.workers.stack.status import Row, Verdict
from millrace.workers.stack.status import status as look

PortBase = Annotated[
    int | None,
    typer.Option(
        "--port-base", min=1024, max=65_000, help="First port: Kafka N, its controller N+1, ClickHouse N+2, metrics N+3 and from N+10."
    ),
]
Inference = Annotated[int | None, typer.Option("--inference", min=1, max=64, help="How many inference workers.", show_default="1")]
NoWorkers = Annotated[bool, typer.Option("--no-workers", help="Start Kafka and ClickHouse alone.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return once the stack is ready; it goes on by itself.")]
STYLES = {"ready": "green", "starting": "yellow", "not-ready": "yellow", "backing-off": "red", "failed": "red", "stopped": "dim"}
COLUMNS = ("name", "role", "pid", "state", "uptime", "restarts", "lag", "last error")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(up)
    app.command()(status)
    app.command()(down)


def up(
    data: Data = None,
    port_base: PortBase = None,
    inference: Inference = None,
    no_workers: NoWorkers = False,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Start Kafka, ClickHouse and the workers on this machine, and keep them running until Ctrl-C.

    An address in MILLRACE_KAFKA or MILLRACE_CLICKHOUSE replaces the embedded one. With --json it prints, once all is started,
    what status --json prints; without --detach as one line, and goes on.
    """
    from millrace.infra.kafka.provision import provision
    from millrace.workers.stack import up

    settings = settings_with(data, port_base)
    wanted = make(settings, inference, not no_workers)
    if not detach:
        up.up(wanted, provision, Progress(), partial(_line, settings) if json else up.nothing)
        return
    running = up.detach(_arguments(wanted, inference, no_workers), wanted, Progress())
    late = [entry.name for entry in running.processes if entry.state != "ready"]
    if json:
        write_json(look(settings)[0])
    else:
        typer.echo(f"ready: Kafka {running.addresses.kafka}, ClickHouse {running.addresses.clickhouse}, data {wanted.data}")
    if late:
        typer.echo(f"not ready yet: {', '.join(late)}. See: millrace status", err=True)
        raise typer.Exit(EXIT_PROBLEMS)


def status(data: Data = None, json: Json = False) -> None:
    """Say what runs. Exit code 0: all is ready; 1: something is not; 3: no stack runs."""
    settings = settings_with(data)
    found, verdict = look(settings)
    if json:
        write_json(found)
    elif found.processes:
        _table([_cells(row) for row in found.processes])
        typer.echo(f"Kafka {found.addresses.kafka}, ClickHouse {found.addresses.clickhouse}, data {settings.stack.folder}")
    if verdict is Verdict.GOOD:
        return
    typer.echo(f"{verdict.value} (data {settings.stack.folder})", err=True)
    raise typer.Exit(EXIT_UNAVAILABLE if verdict is Verdict.NOTHING else EXIT_PROBLEMS)


def down(data: Data = None, json: Json = False) -> None:
    """Stop the stack, its workers first; they finish what they have begun."""
    from millrace.workers.stack import up

    folder = settings_with(data).stack.folder
    stopped = up.down(folder, Progress())
    if json:
        write_json({"stopped": stopped})
    else:
        typer.echo(f"stopped the stack on {folder}" if stopped else f"no stack runs on {folder}")


def _arguments(wanted: Plan, inference: int | None, no_workers: bool) -> list[str]:
    """The same command line, for the process that goes on by itself."""
    settings = wanted.settings.stack
    base = ["--port-base", str(settings.port_base)] if settings.port_base else []
    workers = ["--no-workers"] if no_workers else [] if inference is None else ["--inference", str(inference)]
    return ["--data", str(wanted.data), *base, *workers]


def _line(settings: Settings) -> None:
    """The status on one line, for whoever reads on."""
    sys.stdout.write(msgspec.json.encode(look(settings)[0]).decode() + "\n")
    sys.stdout.flush()


def _cells(row: Row) -> list[str]:
    uptime, lag = _span(row.uptime_seconds), _or_dash(row.lag)
    return [row.name, row.role, _or_dash(row.pid), row.state, uptime, str(row.restarts), lag, row.last_error]


def _table(rows: list[list[str]]) -> None:
    """Aligned columns, the last as long as it is; coloured on a terminal."""
    widths = [max(len(row[column]) for row in [list(COLUMNS), *rows]) for column in range(len(COLUMNS) - 1)]
    console = Console(highlight=False)
    for row in [list(COLUMNS), *rows]:
        line = "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        console.print(Text(line.rstrip(), style=STYLES.get(row[3], "bold")), soft_wrap=True)


def _or_dash(value: object | None) -> str:
    return "-" if value is None else str(value)


def _span(seconds: float | None) -> str:
    """A duration for reading.

    >>> _span(5.2), _span(125), _span(7300), _span(None)
    ('5 s', '2 min', '2.0 h', '-')
    """
    match seconds:
        case None:
            return "-"
        case _ if seconds < 60:
            return f"{seconds:.0f} s"
        case _ if seconds < 3600:
            return f"{seconds / 60:.0f} min"
        case _:
            return f"{seconds / 3600:.1f} h"
