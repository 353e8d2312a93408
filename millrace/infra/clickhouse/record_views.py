"""Views of every record of a topic, repeated ones too: experiments are computed again from these, and a repeated record is part of it."""

from __future__ import annotations

from millrace.infra.clickhouse.view import View
from millrace.schemas.tables import MARKS, TABLES, Table

RECORDS = {"v_assignment_records": TABLES["assignments"], "v_outcome_records": TABLES["outcomes-by-unit"]}
PLACE = ("_topic_id", "_partition", "_offset", "_appended")


def record_views() -> tuple[View, ...]:
    """One view for each."""
    return tuple(_records(name, table) for name, table in RECORDS.items())


def _records(name: str, table: Table) -> View:
    own = tuple((column.name, column.type, column.comment) for column in table.columns)
    marks = tuple((mark.name, mark.type, mark.comment) for mark in MARKS if mark.name in PLACE)
    names = ", ".join(f"`{column}`" for column, *_ in (*own, *marks))
    select = f"SELECT {names} FROM {{database}}.{table.name} WHERE _error = ''"
    return View(name, (*own, *marks), select, f"{table.topic.summary} Every record of the log, repeated ones too.")
