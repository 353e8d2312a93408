"""``millrace experiments verify``: does ClickHouse compute the same moments as the stream?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from millrace.workers.addresses import connected
from millrace.workers.commands.common import EXIT_PROBLEMS, Data, Json, settings_with
from millrace.workers.commands.report import say, show

if TYPE_CHECKING:
    from millrace.workers.experiments_verify import Unequal, Verified

COLUMNS = ("metric", "variant", "stream = batch")
SHOWN = 3

Name = Annotated[str, typer.Argument(help="The experiment.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="How many seconds the archiver has to catch up with the named offsets.")]
Sql = Annotated[bool, typer.Option("--sql", help="Write the statements too, over all partitions at once, for `millrace sql`.")]


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(verify)


def verify(name: Name, wait: Wait = 30.0, sql: Sql = False, data: Data = None, json: Json = False) -> None:
    """Compute an experiment's moments again from ClickHouse's records, at the offsets that the stream names, and compare each integer.

    Exit code 0: all are equal; 1: some differ; 3: ClickHouse has not all records below those offsets, or a place does not answer.
    """
    from millrace.workers.experiments_verify import verify_experiment

    verified = verify_experiment(connected(settings_with(data)), name, wait)
    document = {**msgspec.to_builtins(verified), "equal": verified.equal}
    if not sql:
        del document["statements"]
    show(document, rows(verified), COLUMNS, json)
    if not json:
        _tell(verified, sql)
    if not verified.equal:
        raise typer.Exit(EXIT_PROBLEMS)


def _tell(verified: Verified, sql: bool) -> None:
    offsets = "; ".join(
        f"{number}: " + ", ".join(f"{topic} {end}" for topic, end in named.items()) for number, named in verified.offsets.items()
    )
    say(f"partitions below the offsets: {offsets}")
    said = "all equal" if verified.equal else f"{len(verified.unequal)} DIFFER"
    say(f"{verified.compared} integers compared in {verified.seconds:.1f} s: {said}")
    if sql:
        for metric, statement in verified.statements.items():
            say(f"\n-- {f'metric {metric}' if metric else 'arms'}\n{statement};")


def rows(verified: Verified) -> list[list[str]]:
    """A row for each metric and variant, the counters of the arms last."""
    return [
        [metric or "(arms)", variant, _cell([one for one in verified.unequal if one.metric == metric and _variant(one) == variant])]
        for metric in [*verified.metrics, ""]
        for variant in dict.fromkeys([*verified.variants, *(_variant(one) for one in verified.unequal if one.metric == metric)])
    ]


def _variant(one: Unequal) -> str:
    """An arm's variant, without its segment or what marks its sums over features."""
    return one.arm.partition("|")[0].partition("#")[0]


def _cell(unequal: list[Unequal]) -> str:
    if not unequal:
        return "equal"
    shown = [f"{one.number} of {one.arm} on {one.partition}: {one.stream} is not {one.batch}" for one in unequal[:SHOWN]]
    return "; ".join([*shown, *([f"and {len(unequal) - SHOWN} more"] if len(unequal) > SHOWN else [])])
