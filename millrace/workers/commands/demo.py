"""``millrace demo``: real data through the whole of it, on a stack of the demo's own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from millrace.schemas.errors import UsageError
from millrace.workers.commands.common import EXIT_PROBLEMS, Json, write_json
from millrace.workers.progress import Progress

Requests = Annotated[
    int, typer.Option("--requests", min=1, max=1_000_000, help="How many requests; more than the data has sites read it again.")
]
Rate = Annotated[float, typer.Option("--rate", min=1, max=20_000, help="How many requests a second are published.")]
WarmUp = Annotated[
    float,
    typer.Option(
        "--warm-up",
        min=0,
        max=600,
        help="How many seconds of other requests go before those that are counted: a broker that has just started is several times slower.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="What the split, the order and the models are drawn from.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the stack running, to look around in it.")]

Report = Annotated[
    Path | None, typer.Option("--report", dir_okay=False, help="Write the experiment's report, a page with charts, to this file.")
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(demo)


def demo(
    requests: Requests = 5_000,
    rate: Rate = 1_000.0,
    warm_up: WarmUp = 15.0,
    seed: Seed = 1,
    keep: Keep = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Decide about real web sites with two models and an experiment, and check that nothing was lost, doubled or wrong.

    Runs on a one-machine stack of its own, in a temporary folder and on free ports: it disturbs no other and reads no settings.
    Exit code 1 if anything was lost, duplicated or wrong, or if the experiment's result is not what ClickHouse computes.
    """
    from millrace.workers.demo.run import Options, run
    from millrace.workers.demo.story import Story

    if report is not None and not report.absolute().parent.is_dir():
        raise UsageError(f"--report {report}: there is no folder {report.absolute().parent}; make it first")
    with _ended_in_order():
        found = run(
            Options(requests=requests, per_second=rate, warm_up_seconds=warm_up, seed=seed, keep=keep, report=report),
            Progress(),
            lambda told, kept: None if json else Story().tell(told.result, told.evidence, kept),
        )
    if json:
        write_json(found)
    if not found.good:
        raise typer.Exit(EXIT_PROBLEMS)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """While inside, SIGTERM ends the demo as Ctrl-C does: what it started is stopped first."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
