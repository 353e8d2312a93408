"""The report as Markdown. Names and sentences come from plans and errors: none of them is markup, a link or HTML here."""

from __future__ import annotations

import re
from collections.abc import Iterable

from millrace.workers.report import summary
from millrace.workers.report.content import Query, Report
from millrace.workers.report.tables import Table, all_tables

HOW = "Each statement runs as it stands with `millrace sql`, and gives the same rows while the archive keeps them: the offsets are in it."
MARKUP = re.compile(r"([\\`*|~]|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|:(?=//)|@(?=\w))")
BEGINS = re.compile(r"^(\s*)([#>+=-]|\d+[.)])")


def plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line.

    >>> print(plain("a|b <img src=x> [c](http://d) 3 < 4 snake_case"))
    a\\|b \\<img src=x> [c\\](http\\://d) 3 < 4 snake_case
    """
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def paragraph(text: str) -> str:
    """The same at the beginning of a line, where a few more characters are markup.

    >>> paragraph("# no heading"), paragraph("1. no list")
    ('\\\\# no heading', '1\\\\. no list')
    """
    told = plain(text)
    found = BEGINS.match(told)
    return told if found is None else told[: found.end() - 1] + "\\" + told[found.end() - 1 :]


def markdown(report: Report) -> str:
    """The whole report: the same tables as the page's, without charts."""
    plan, decision = report.plan, report.result.decision
    lines = [
        f"# {plain(plan.name)}",
        "",
        *([paragraph(plan.hypothesis), ""] if plan.hypothesis.strip() else []),
        f"**{plain(summary.verdict(report))}.** {plain(decision.reason)}",
        "",
        paragraph(summary.standing(report)),
        "",
        *(f"- {_code(sentence)}" for sentence in summary.in_short(report)),
        "",
        paragraph(summary.levels(report)),
    ]
    for title, table in all_tables(report):
        if table.rows:
            lines += ["", f"## {plain(title)}", "", *_lines(table)]
    if report.queries:
        lines += ["", "## SQL", "", HOW]
    for query in report.queries:
        lines += _statement(query)
    return "\n".join(lines) + "\n"


def _code(sentence: str) -> str:
    """A sentence in which commands stand between backticks: ours alone, since names have none."""
    parts = sentence.split("`")
    if len(parts) != 3:
        return plain(sentence)
    return f"{plain(parts[0])} `{parts[1]}`{plain(parts[2])}"


def _statement(query: Query) -> list[str]:
    """Fenced by more backticks than there are in it."""
    fence = "`" * (3 + max((len(run) for run in re.findall("`+", query.sql)), default=0))
    return ["", f"### {plain(query.title)}", "", _code(query.gives), "", f"{fence}sql", query.sql, fence]


def _lines(table: Table) -> Iterable[str]:
    yield _row(table.headings)
    yield "| " + " | ".join(["---"] * len(table.headings)) + " |"
    for row in table.rows:
        yield _row(row)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(plain, cells)) + " |"
