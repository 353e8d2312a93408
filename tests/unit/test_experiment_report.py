"""Is a report valid as a page, as charts and as text, whatever the experiment is like and whatever its names say?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import plotly.graph_objects
import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import Analysis, Correction, State, Variant
from millrace.schemas.result import Finding, Severity, Verdict
from millrace.workers.report import charts, courses, summary, tables
from millrace.workers.report.content import AgeEffect, Report, SegmentEffect
from millrace.workers.report.drawing import Figure
from millrace.workers.report.page import page
from millrace.workers.report.text import markdown
from tests.judging import experiment, judged, sealed
from tests.reporting import nothing, planned, told

EVIL = "</script><img src=x onerror=alert(1)><!--<script>|`](http://evil) %{x} ```"
LONG = "a-name-that-somebody-made-far-too-long-" * 3
REPORTS = {
    "two": told(planned("control", "challenger")),
    "three, absolute": told(planned("control", "challenger", "bold", difference="absolute")),
    "tiny": told(planned("control", "challenger"), units=9),
    "bandit": told(planned("a", "b", "c", learnt=True)),
    "mismatch": told(planned("control", "challenger"), lost=0.2),
    "long names": told(planned("control", LONG + "x", LONG + "y")),
    "one variant": told(planned("control")),
    "nobody": nothing(planned("control", "challenger")),
    "no metrics": nothing(replace(planned("control", "challenger"), metrics=())),
    "numbers as names": told(planned("1", "2", "2026-01-01")),
}
EACH = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)


class Read(HTMLParser):
    """Which tags a page has, with their attributes, and what is in its scripts and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.get_starttag_text() and self.cdata_elem == "script":
            self.scripts.append(data)
        else:
            self.text += data


def figures(report: Report) -> Iterator[Figure]:
    yield from charts.forests(report).values()
    yield from (charts.segments(report), charts.novelty(report), courses.cumulative(report), courses.sample_ratio(report))
    yield from (courses.weights(report), courses.shares(report))
    yield from (courses.effect_over_time(report, variant) for variant in report.treatments)
    yield from (charts.spread(report, spread.metric) for spread in report.spreads)


def hostile() -> Report:
    """Every name and sentence that comes from outside says something that is markup somewhere."""
    plan = planned("control", EVIL, EVIL + "2", hypothesis=f"# {EVIL}", owner=EVIL)
    report = told(plan)
    segment = SegmentEffect(metric="paid", segment=f"country={EVIL}", variant=EVIL, units=3, estimate=CannotTell(EVIL))
    drawn = [replace(one, segment=f"country={EVIL}") for one in report.segments]
    found = Finding(check=EVIL, severity=Severity.INVALID, cause=EVIL)
    decision = replace(report.result.decision, reason=EVIL, variant=EVIL, verdict=Verdict.INVALID)
    queries = tuple(replace(query, title=EVIL, gives=EVIL, sql=EVIL) for query in report.queries)
    result = replace(report.result, decision=decision)
    return replace(report, result=result, segments=(segment, *drawn), findings=(found,), queries=queries)


@EACH
def test_every_chart_is_one_that_plotly_knows(report: Report) -> None:
    drawn = list(figures(report))
    assert len(drawn) >= 6
    for figure in drawn:
        plotly.graph_objects.Figure(figure)
        assert "NaN" not in msgspec.json.encode(figure).decode()


@EACH
def test_a_page_needs_nothing_beside_itself(report: Report) -> None:
    read = Read(page(report))
    assert {tag for tag, _ in read.tags} & {"img", "link", "iframe", "object", "embed", "base", "a", "form"} == set()
    assert [attributes for _, attributes in read.tags if {"src", "href", "srcset", "data", "action"} & set(attributes)] == []
    policy = next(attributes["content"] for tag, attributes in read.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


@EACH
def test_every_chart_of_a_page_has_its_numbers(report: Report) -> None:
    read = Read(page(report))
    places = [attributes["data-chart"] for _, attributes in read.tags if "data-chart" in attributes]
    numbers = [attributes["id"] for tag, attributes in read.tags if tag == "script" and attributes.get("type") == "application/json"]
    assert places == numbers
    assert len(set(places)) == len(places)


@EACH
def test_markdown_is_sound(report: Report) -> None:
    rendered = Read(MarkdownIt("commonmark").enable("table").render(markdown(report)))
    assert {tag for tag, _ in rendered.tags} <= MARKS
    for _, table in tables.all_tables(report):
        assert all(len(row) == len(table.headings) for row in table.rows)
    assert "nan" not in rendered.text.lower().split()


MARKS = {"h1", "h2", "h3", "p", "strong", "ul", "li", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}


def test_names_are_letters_and_nothing_else_in_a_page() -> None:
    read = Read(page(hostile()))
    tags = {tag for tag, _ in read.tags}
    assert "img" not in tags
    assert sum(tag == "main" for tag, _ in read.tags) == 1
    scripts = [attributes for tag, attributes in read.tags if tag == "script"]
    assert [attributes for attributes in scripts if attributes not in ({}, {"type": "application/json", "id": attributes.get("id")})] == []
    assert sum(not attributes for attributes in scripts) == 2
    for body in read.scripts[1:-1]:
        if body.startswith("{"):
            assert "<" not in body
            json.loads(body)
    assert EVIL in read.text


def test_names_are_letters_and_nothing_else_in_charts() -> None:
    """Plotly draws ``<b>`` bold and fills ``%{x}`` in."""
    report = hostile()
    for figure in figures(report):
        for text in texts(figure):
            assert "<img" not in text
            assert "</script" not in text
            assert "%{x} `" not in text


def texts(value: Any) -> Iterator[str]:
    """All texts that a figure would draw, less its own ``<extra>``."""
    if isinstance(value, str):
        yield value.replace("<extra>", "").replace("</extra>", "")
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def test_names_are_letters_and_nothing_else_in_markdown() -> None:
    rendered = Read(MarkdownIt("commonmark").enable("table").render(markdown(hostile())))
    assert {tag for tag, _ in rendered.tags} <= MARKS
    assert sum(tag == "h1" for tag, _ in rendered.tags) == 1
    assert "<img src=x onerror=alert(1)>" in rendered.text
    columns = [(tag, len(list(group))) for tag, group in rows(rendered.tags)]
    assert all(tag in ("tr", "table") for tag, _ in columns)
    widths = [width for _, width in columns if width]
    assert sorted(set(widths)) == sorted({len(table.headings) for _, table in tables.all_tables(hostile()) if table.rows})


def rows(tags: list[tuple[str, dict[str, str | None]]]) -> Iterator[tuple[str, list[str]]]:
    """Each row with its cells."""
    cells: list[str] | None = None
    for tag, _ in tags:
        if tag == "tr":
            if cells is not None:
                yield "tr", cells
            cells = []
        elif tag in ("td", "th") and cells is not None:
            cells.append(tag)
    if cells is not None:
        yield "tr", cells


def test_what_cannot_be_told_has_no_number() -> None:
    report = nothing(planned("control", "challenger"))
    assert charts.forests(report) == {}
    assert all(row[5:] == ["cannot tell", "", "", "", ""] for row in tables.comparisons(report).rows)
    assert all("needs at least 2" in row[2] for row in tables.untold(report).rows)
    assert len(tables.untold(report).rows) == 3
    assert "cannot tell for challenger" in page(report)


def test_relative_effects_share_a_chart_and_absolute_ones_have_their_own_axes() -> None:
    assert list(charts.forests(REPORTS["two"])) == [""]
    assert list(charts.forests(REPORTS["three, absolute"])) == ["paid", "revenue", "refunds"]
    (row, *_) = tables.comparisons(REPORTS["three, absolute"]).rows
    assert row[5] == "+0.012"
    assert tables.comparisons(REPORTS["two"]).rows[0][5] == "+12 %"


def test_names_that_are_short_for_the_same_keep_their_rows() -> None:
    report = told(planned("control", f"{LONG}x{LONG}", f"{LONG}y{LONG}"))
    (figure,) = charts.forests(report).values()
    rows = {place for trace in figure["data"] for place in trace["y"]}
    assert rows == set(range(6))


def test_intervals_say_at_which_level_they_are() -> None:
    assert "each interval is at 97.5 % or 98.75 %" in summary.levels(REPORTS["three, absolute"])
    assert summary.levels(REPORTS["nobody"]) == "Intervals are at 95 %."
    alone = told(replace(planned("a", "b"), analysis=Analysis(alpha=0.1, correction=Correction.NONE)))
    assert summary.levels(alone) == "Intervals are at 90 %."


def test_an_invalid_experiment_tells_its_fault_first_and_no_effect_in_short() -> None:
    sentences = list(summary.in_short(REPORTS["mismatch"]))
    assert sentences[0].startswith("sample_ratio: the arms do not have the units")
    assert not any("chance to win" in sentence for sentence in sentences)
    whole = page(REPORTS["mismatch"])
    assert whole.index("<h3>Health") < whole.index("<h3>Effects")


def test_a_bandit_shows_its_weights_and_says_what_they_do() -> None:
    whole = page(REPORTS["bandit"])
    assert "<h3>Weights over time" in whole
    assert "<h3>Sample ratio over time" not in whole
    assert "millrace experiments ope e" in whole
    assert "`millrace experiments ope e`" in markdown(REPORTS["bandit"])
    assert "<h3>Sample ratio over time" in page(REPORTS["two"])


def test_a_fading_effect_is_a_finding_and_one_that_stays_is_none() -> None:
    found = [finding for finding in REPORTS["three, absolute"].findings if finding.check == "novelty"]
    assert [finding.variant for finding in found] == ["challenger"]
    assert "fades, from +0.2 on the day of the exposure to +0.032" in found[0].cause
    assert "novelty" in page(REPORTS["three, absolute"])


def test_a_few_values_far_out_do_not_press_the_others_flat() -> None:
    figure = charts.spread(REPORTS["two"], "revenue")
    assert max(value for trace in figure["data"] for value in trace["y"]) < 100.0
    assert all("(50% not 0)" in trace["x0"] for trace in figure["data"])


def test_the_state_is_that_of_the_newest_version() -> None:
    assert summary.standing(replace(REPORTS["two"], state=State.STOPPED)).startswith("stopped now (judged as running)")


def test_variants_that_the_plan_no_longer_has_are_drawn_all_the_same() -> None:
    report = REPORTS["two"]
    ghost = AgeEffect(metric="paid", variant="ghost", day=1, units=5, effect=0.1, std_error=0.1, interval=(-0.1, 0.3))
    points = (*report.points, replace(report.points[0], variant="ghost"))
    spreads = (*report.spreads, replace(report.spreads[0], variant="ghost"))
    page(replace(report, points=points, spreads=spreads, ages=(*report.ages, ghost)))


def test_a_weight_of_nothing_is_left_out_of_the_sample_ratio() -> None:
    plan = planned("a", "b", variants=(Variant(name="a"), Variant(name="b"), Variant(name="c", weight=0.0)))
    assert [trace["name"] for trace in courses.sample_ratio(told(plan))["data"]] == ["a", "b"]


def test_a_report_without_metrics_is_told() -> None:
    plan = replace(experiment(), metrics=())
    report = Report(plan=plan, result=judged(plan, sealed({"paid": {}}, arms={})), made=plan.time)
    assert report.primary == ""
    assert "There is nothing to compare." in page(report)
    assert markdown(report).startswith("# e")


def test_the_command_line_does_not_pay_for_charts_that_nobody_asked_for() -> None:
    asked = [sys.executable, "-X", "importtime", "-m", "millrace", "experiments", "report", "--help"]
    ran = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "millrace" in ran.stderr
    assert "plotly" not in ran.stderr
    assert "--html" in ran.stdout
