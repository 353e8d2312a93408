"""The ``millrace`` command. Exit codes: 0 well, 1 found problems, 2 wrong usage, 3 a place does not answer."""

from __future__ import annotations

import sys

import typer

from millrace.schemas.errors import MillraceError, Unavailable, UsageError
from millrace.workers.commands import (
    archive,
    asyncapi,
    bench,
    dead_letters,
    demo,
    experiments,
    models,
    predict,
    provision,
    replay,
    settings,
    sql,
    stack,
    topics,
)
from millrace.workers.commands.common import EXIT_PROBLEMS, EXIT_UNAVAILABLE, EXIT_USAGE

GROUPS = (stack, demo, predict, models, experiments, topics, dead_letters, sql, archive, replay, provision, settings, bench, asyncapi)
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="millrace",
    help="Model decisions as a stream: assigned, predicted, joined and archived exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for group in GROUPS:
    group.register(app)


def main() -> None:
    """Run the command line; an error raised on purpose is one line on stderr and an exit code, never a traceback."""
    try:
        app()
    except MillraceError as error:
        sys.stderr.write(f"millrace: {error}\n")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def exit_code(error: MillraceError) -> int:
    """The exit code that tells a script who must act."""
    match error:
        case UsageError():
            return EXIT_USAGE
        case Unavailable():
            return EXIT_UNAVAILABLE
        case _:
            return EXIT_PROBLEMS
