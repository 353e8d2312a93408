"""The demo told to a person: what was published, what ClickHouse has, how long it took, and what to do next."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from millrace.infra.clickhouse.client import Column
from millrace.schemas.evidence import Kind
from millrace.schemas.topics import OUTCOMES, REQUESTS
from millrace.workers.demo.control import EXPERIMENT
from millrace.workers.demo.result import Conclusion, Effect, Latency, Result

SHOWN_PROBLEMS = 5
SHOWN_CHARACTERS = 100
PLAIN_WIDTH = 120
WHOLE_WIDTH = 100
"""Characters that the widest table takes."""
LEAST_WIDTH = 78
"""What it takes without its column of remarks: in a terminal still narrower, lines go on in the next rather than being cut."""


class Evidence(Struct, frozen=True):
    """What the story shows beside the result: what was published about how many sites, and what was read back with which SQL."""

    published: int
    outcomes: Mapping[str, int]
    sites: int
    request: str
    outcome: str
    accuracy_sql: str
    columns: list[Column]
    rows: list[tuple[object, ...]]


class Story:
    """Tells on standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        self._console.width = max(self._console.width, LEAST_WIDTH)

    def tell(self, result: Result, evidence: Evidence, kept: Path | None) -> None:
        """All of it, in the order in which it happened. ``kept``: the folder of a stack that stays."""
        self._published(result, evidence)
        self._variants(result)
        self._rows(evidence)
        self._latency(result)
        self._experiment(result, evidence)
        self._verdict(result)
        self._sql(evidence)
        self._go_on(kept)

    def _go_on(self, kept: Path | None) -> None:
        if kept is None:
            self._head("Go on")
            self._line("millrace up --detach                        a stack of your own; `millrace down` stops it")
            self._line("millrace models add NAME FILE.onnx          your own model behind it")
            self._line("millrace demo --report FILE.html            this demo again, with the experiment's report as a page")
            self._line("millrace demo --keep                        this demo again, with its stack left running")
            self._line("README.md, docs/producers.md, docs/experiments.md, docs/analysts.md")
            return
        self._head("The stack still runs")
        report = f"experiments report {EXPERIMENT} --html report.html"
        for command in ("status", 'sql "SELECT * FROM v_decisions LIMIT 10"', "topics tail predictions", report, "down"):
            self._line(f"millrace {command} --data {kept}")
        self._line(f"`down` stops it; its data stays in {kept} until you remove it", "dim")

    def _published(self, result: Result, evidence: Evidence) -> None:
        self._head(f"Published by a plain Kafka client, {result.requests_per_second:,.0f} requests a second")
        kinds = ", ".join(f"{count:,} {metric}" for metric, count in evidence.outcomes.items())
        told = f"{sum(evidence.outcomes.values()):,} {OUTCOMES.name} ({kinds})"
        for what, example in ((f"{evidence.published:,} {REQUESTS.name}", evidence.request), (told, evidence.outcome)):
            self._line(f"{what}, such as")
            self._line(f"  {cut(example)}", "dim")

    def _variants(self, result: Result) -> None:
        self._head("What ClickHouse has of each variant")
        roomy = self._console.width >= WHOLE_WIDTH
        table = _table(("variant", "model", *(("",) if roomy else ())), ("assignments", "predictions", "labels", "accuracy"))
        for name, arm in result.variants.items():
            accuracy = "-" if arm.accuracy is None else f"{arm.accuracy:.1%}"
            counts = (f"{count:,}" for count in (arm.assignments, arm.predictions, arm.outcomes))
            table.add_row(name, arm.model, *((arm.kind,) if roomy else ()), *counts, accuracy)
        self._show(table)

    def _rows(self, evidence: Evidence) -> None:
        self._head("The first decisions, each in one row: request, assignment, prediction, outcome")
        table = _table(
            [column.name for column in evidence.columns if not _is_number(column)],
            [column.name for column in evidence.columns if _is_number(column)],
        )
        for row in evidence.rows:
            table.add_row(*map(_cell, row))
        self._show(table)

    def _latency(self, result: Result) -> None:
        self._head("From publishing a request to seeing its committed prediction")
        self._line("no request was answered" if result.latency_ms is None else _percentiles(result.latency_ms))
        self._line(f"at {result.requests_per_second:,.0f} requests a second, {_after(result.warm_up_seconds)}", "dim")

    def _experiment(self, result: Result, evidence: Evidence) -> None:
        found = result.experiment
        if found is None:
            self._head("What the experiment says")
            self._line("nothing yet: see below", "red")
            return
        self._head(f"What the experiment says: {found.decision} {found.variant}".rstrip())
        for finding in found.health:
            self._line(finding, "yellow")
        names = list(found.arms)
        table = _table(("metric", "role"), (*names, "effect", "always valid", "to win"))
        for one in found.metrics:
            table.add_row(one.metric, one.role, *(_mean(one.means[name], one.kind) for name in names), *_effect(one))
        self._show(table)
        self._line(found.reason)
        self._line(_split(found))
        self._line("intervals are always valid: they hold however often anybody looks", "dim")
        if evidence.published > evidence.sites:
            self._line(f"{evidence.published:,} requests about {evidence.sites:,} sites: this holds for them, not for sites unseen", "dim")

    def _verdict(self, result: Result) -> None:
        self._head("Was anything lost, doubled or wrong?")
        self._line(f"{result.verified_records:,} records on Kafka compared with the rows in ClickHouse (millrace verify)")
        if result.experiment is not None:
            self._line(_equality(result.experiment))
        self._line(f"lost {result.lost}, duplicated {result.duplicated}, wrong {result.wrong}", "bold green" if result.good else "bold red")
        for problem in result.problems[:SHOWN_PROBLEMS]:
            self._line(problem, "red")
        if len(result.problems) > SHOWN_PROBLEMS:
            self._line(f"and {len(result.problems) - SHOWN_PROBLEMS} more; --json shows all", "red")

    def _sql(self, evidence: Evidence) -> None:
        self._head("The accuracy above, asked by hand (any ClickHouse client can)")
        for line in evidence.accuracy_sql.splitlines():
            self._line(line)

    def _head(self, text: str) -> None:
        self._console.print(f"\n{text}", style="bold", markup=False, soft_wrap=True)

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(f"  {text}", style=style or None, markup=False, soft_wrap=True)

    def _show(self, table: Table) -> None:
        self._console.print(Padding(table, (0, 0, 0, 2), expand=False))


def cut(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """A long text, cut for reading.

    >>> cut("abcdef", 3)
    'abc…'
    """
    return text if len(text) <= characters else f"{text[:characters]}…"


def _table(words: Iterable[str], numbers: Iterable[str]) -> Table:
    """Columns of words, then columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", show_edge=False)
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    return table


def _is_number(column: Column) -> bool:
    return "Float" in column.type


def _cell(value: object) -> str:
    """A value of a row, short.

    >>> _cell(0.123456), _cell(None), _cell("linear")
    ('0.123', '-', 'linear')
    """
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)


def _mean(value: float | None, kind: str) -> str:
    """A mean, for reading.

    >>> _mean(0.0312, "proportion"), _mean(0.0312, "mean"), _mean(None, "mean")
    ('3.12%', '0.0312', 'cannot tell')
    """
    if value is None:
        return "cannot tell"
    return f"{value:.2%}" if kind == Kind.PROPORTION else f"{value:.4f}"


def _effect(one: Effect) -> tuple[str, str, str]:
    """Effect and interval, of a proportion in percentage points, and the chance to win.

    >>> _effect(Effect(metric="m", kind="proportion", role="primary", means={}, effect=0.04, interval=(0.02, 0.0617), chance_to_win=0.9))
    ('+4.00 pt', '+2.00 to +6.17', '90.0%')
    """
    if one.effect is None or one.interval is None or one.chance_to_win is None:
        return "cannot tell", "", ""
    if one.kind == Kind.PROPORTION:
        low, high = (f"{100 * end:+.2f}" for end in one.interval)
        return f"{100 * one.effect:+.2f} pt", f"{low} to {high}", _chance(one.chance_to_win)
    low, high = (f"{end:+.4f}" for end in one.interval)
    return f"{one.effect:+.4f}", f"{low} to {high}", _chance(one.chance_to_win)


def _chance(share: float) -> str:
    """A chance that is never said to be certain.

    >>> _chance(0.97), _chance(0.99996), _chance(0.0001)
    ('97.0%', '> 99.9%', '< 0.1%')
    """
    if share > 0.999:
        return "> 99.9%"
    return "< 0.1%" if share < 0.001 else f"{share:.1%}"


def _split(found: Conclusion) -> str:
    """How the units were split, and how likely a split as uneven as this is."""
    arms = ", ".join(f"{count:,} {name}" for name, count in found.arms.items())
    likely = "" if found.sample_ratio_p is None else f"; sample ratio: p {found.sample_ratio_p:.2f}"
    return f"{found.units:,} units: {arms}{likely}"


def _equality(found: Conclusion) -> str:
    """Whether stream and batch say the same."""
    told = "all equal" if found.equal else f"{found.unequal:,} are not equal"
    return f"{found.compared:,} integers recomputed from ClickHouse: {told} (millrace experiments verify)"


def _after(warm_up_seconds: float) -> str:
    """What the latency was measured after.

    >>> _after(0.0), _after(15.0)
    ('on a stack that has just started', 'after 15 s of requests that are not counted')
    """
    return f"after {warm_up_seconds:g} s of requests that are not counted" if warm_up_seconds else "on a stack that has just started"


def _percentiles(found: Latency) -> str:
    return f"p50 {found.p50:.1f} ms   p99 {found.p99:.1f} ms   p99.9 {found.p999:.1f} ms   longest {found.max:.1f} ms"
