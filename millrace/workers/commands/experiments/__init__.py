"""``millrace experiments``: plans, from a file to running to concluded, and what they do with a unit."""

from __future__ import annotations

import typer

from millrace.workers.commands.experiments import evaluate, life, look, ope, power, report, results, verify

group = typer.Typer(name="experiments", help="Create, start, look at and conclude experiments.", no_args_is_help=True)
MODULES = (life, look, results, evaluate, power, ope, verify, report)


def register(app: typer.Typer) -> None:
    """Add the commands of this package."""
    for module in MODULES:
        module.add_to(group)
    app.add_typer(group)
