"""The report as one HTML file that needs nothing beside itself: the charts' JavaScript is in it, and a policy forbids to load any more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

import msgspec
from plotly.offline import get_plotlyjs

from millrace.schemas.evidence import CannotTell
from millrace.schemas.result import Verdict
from millrace.streams.judge.decide import chosen_by_context
from millrace.workers.report import charts, courses, summary
from millrace.workers.report import tables as shown
from millrace.workers.report.content import Query, Report
from millrace.workers.report.drawing import Figure
from millrace.workers.report.style import STYLE
from millrace.workers.report.tables import Table

TONES = {Verdict.IMPLEMENT: "good", Verdict.REJECT: "bad", Verdict.CONTINUE: "open", Verdict.INVALID: "invalid"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
NUMERIC = re.compile(r"[\[\]+\-.,%<>\d\s]+")
PRINTED_PIXELS = 690
DRAW = """
const charts = [...document.querySelectorAll("[data-chart]")];
for (const chart of charts) {
  const figure = JSON.parse(document.getElementById(chart.dataset.chart).textContent);
  Plotly.newPlot(chart, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
addEventListener("beforeprint", () => charts.forEach(chart => Plotly.relayout(chart, {autosize: false, width: PRINTED_PIXELS})));
addEventListener("afterprint", () => charts.forEach(chart => Plotly.relayout(chart, {autosize: true, width: null})));
""".replace("PRINTED_PIXELS", str(PRINTED_PIXELS))
SECOND_LOOK = "Not corrected for their number: look for reversals, not for winners."


def page(report: Report) -> str:
    """The whole page: a summary for who decides, then what an analyst wants to see."""
    name = escape(report.plan.name)
    body = "\n".join([_head(report), *_summary(report), *_technical(report), *_asked_otherwise(report), *_sources(report), _foot(report)])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: experiment report</title>\n<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script></head>\n"
        f"<body><main>\n{body}\n</main>\n<script>{DRAW}</script></body></html>\n"
    )


def _head(report: Report) -> str:
    plan = report.plan
    hypothesis = f'<p class="lead">{escape(plan.hypothesis)}</p>' if plan.hypothesis else ""
    return f'<header><h1>{escape(plan.name)}</h1>{hypothesis}<p class="dim">{escape(summary.standing(report))}</p></header>'


def _summary(report: Report) -> Iterable[str]:
    decision = report.result.decision
    short = "".join(f"<li>{_told(sentence)}</li>" for sentence in summary.in_short(report))
    yield (
        f'<section class="verdict {TONES[decision.verdict]}"><h2>{escape(summary.verdict(report))}</h2>'
        f"<p>{_told(decision.reason)}</p><ul>{short}</ul></section>"
    )
    sick = decision.verdict is Verdict.INVALID
    if sick:
        yield _health(report)
    if drawn := charts.forests(report):
        intro = "Dot: the effect. Thick: the interval that holds at one look. Thin: the one that holds however often one looks. "
        figures = "".join(_chart(f"forest-{name}", figure) for name, figure in drawn.items())
        yield _section("Effects", figures, intro + summary.levels(report))
    yield _tabled("Every metric", shown.comparisons(report), summary.levels(report), "There is nothing to compare.")
    yield from _if_any("Cannot tell", shown.untold(report))
    yield from _if_any("Guardrails", shown.guardrails(report), "One-sided and always valid: a breach is one however often one looks.")
    if not sick:
        yield _health(report)


def _health(report: Report) -> str:
    return _tabled("Health: what speaks against trusting it", shown.health(report), "", "No check found anything.")


def _technical(report: Report) -> Iterable[str]:
    yield "<h2 class='part'>In detail</h2>"
    yield from _if_any("Arms", shown.arms(report), "Units that count: exposed, less those that met another variant too.")
    yield from _if_any("Tests", shown.tests(report), "At one look: right if looked at once. Corrected over metrics and variants.")
    yield from _if_any("Mixture SPRT", shown.mixtures(report), "Right at every look. The p-value follows from the largest evidence so far.")
    yield from _if_any("Planned looks", shown.looks(report), "As of the newest look: between looks nothing changes.")
    for variant in report.treatments:
        if sum(k.metric == report.primary and k.variant == variant for k in report.looks) > 1:
            figure = courses.effect_over_time(report, variant)
            yield _section(f"Effect of {variant} on {report.primary} over time", _chart(f"looks-{variant}", figure))
    if report.points:
        told = "Units exposed by then, and what had happened to them by then."
        yield _section(f"{report.primary}, cumulated", _chart("cumulative", courses.cumulative(report)), told)
    yield from _dealt(report)
    for metric in dict.fromkeys(spread.metric for spread in report.spreads):
        body = _chart(f"spread-{metric}", charts.spread(report, metric)) + _table(shown.spread(report, metric))
        told = "Drawn: values that are not 0, of some units, up to where few are left. The table: exact quantiles, of all units."
        yield _section(f"Distribution of {metric}", body, told)
    for one in report.crosstabs:
        yield _tabled(f"{one.metric} as a table", shown.crosstab(one), shown.crosstab_told(one), "")
    yield from _if_any("Quantiles", shown.quantiles(report), "Of single outcomes, with units as clusters.")
    if report.ages:
        told = "The effect on what happened on each day since the exposure, of units seen to its end. One that falls to 0 was novelty."
        yield _section("Novelty", _chart("novelty", charts.novelty(report)) + _table(shown.trends(report)), told)


def _dealt(report: Report) -> Iterable[str]:
    """How variants filled: against the plan's weights, or beside those that were learnt."""
    if report.plan.allocation is None:
        if report.points:
            told = "Against the units that the plan's weights give to each variant: 0 is as planned."
            yield _section("Sample ratio over time", _chart("ratio", courses.sample_ratio(report)), told)
        return
    if report.weights:
        told = "The chance that each version of the policy gave; dashed, the floor. There is no fixed ratio to test counts against."
        if chosen_by_context(report.plan):
            told += " Each request has chances of its own: shown are those at the average of the features."
        yield _section("Weights over time", _chart("weights", courses.weights(report)), told)
    if report.points:
        yield _section("Share of each variant over time", _chart("shares", courses.shares(report)))


def _asked_otherwise(report: Report) -> Iterable[str]:
    if report.segments:
        drawn = any(not isinstance(segment.estimate, CannotTell) for segment in report.segments)
        chart = _chart("segments", charts.segments(report)) if drawn else ""
        yield _section(f"Segments of {report.primary}", chart + _table(shown.segments(report)), SECOND_LOOK)
    yield from _if_any("Sensitivity", shown.sensitivity(report), "The same question in other ways: the answer should not turn.")


def _sources(report: Report) -> Iterable[str]:
    told = "Everything above is of the records below these offsets and no others; earlier looks are the results up to this one."
    yield from _if_any("Offsets covered", shown.sources(report), told)
    if report.queries:
        told = "Each runs as it stands with millrace sql, and gives the same rows while the archive keeps them: the offsets are in it."
        yield _section("SQL", "".join(map(_statement, report.queries)), told)


def _statement(query: Query) -> str:
    return (
        f'<details><summary>{escape(query.title)}</summary><p class="dim">{escape(query.gives)}</p><pre>{escape(query.sql)}</pre></details>'
    )


def _foot(report: Report) -> str:
    plan = f"<details><summary>The plan</summary><pre>{escape(_plan(report))}</pre></details>"
    return f'<footer class="dim">Made {report.made:%Y-%m-%d %H:%M:%S} UTC by millrace.{plan}</footer>'


def _told(sentence: str) -> str:
    """A sentence, with what stands between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(sentence))


def _section(title: str, inner: str, intro: str = "") -> str:
    told = f'<p class="dim">{escape(intro)}</p>' if intro else ""
    return f"<section><h3>{escape(title)}</h3>{told}{inner}</section>"


def _tabled(title: str, table: Table, intro: str, otherwise: str) -> str:
    return _section(title, _table(table), intro) if table.rows else _section(title, f"<p>{escape(otherwise)}</p>")


def _if_any(title: str, table: Table, intro: str = "") -> Iterable[str]:
    if table.rows:
        yield _section(title, _table(table), intro)


def _chart(name: str, figure: Figure) -> str:
    """A place for a figure, and its numbers beside it, without any ``<``: no tag and no comment begins or ends in them."""
    key = escape(f"figure-{name}", quote=True)
    numbers = msgspec.json.encode(figure).decode().replace("<", "\\u003c")
    height = int(figure["layout"]["height"])
    place = f'<div class="chart" data-chart="{key}" style="height:{height}px"></div>'
    return f'{place}<script type="application/json" id="{key}">{numbers}</script>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = "".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cells(row: Sequence[str]) -> str:
    """Numbers stay on one line."""
    return "".join(f"<td{' class=n' if NUMERIC.fullmatch(cell) else ''}>{escape(cell)}</td>" for cell in row)


def _plan(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report.plan), indent=2).decode()
