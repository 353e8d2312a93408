"""How commands show rows: as a table, upright where a terminal is too narrow, and in words where there are none."""

from __future__ import annotations

import os
from typing import Any

import pytest

from millrace.infra.clickhouse.client import Column
from millrace.workers.commands import sql
from millrace.workers.commands.report import show

NAMES = [Column("request_id", "String"), Column("outputs", "Map(String, Float64)")]
ROWS = [("r-1", {"score": 0.5}), ("r-22", {})]


class Answers:
    """A ClickHouse that has one answer."""

    def use_database(self) -> None: ...

    def close(self) -> None: ...

    def table(self, text: str) -> tuple[list[Column], list[tuple[Any, ...]]]:
        return NAMES, ROWS


@pytest.mark.parametrize(
    ("columns", "printed"),
    [
        (32, "request_id  outputs\nr-1         {'score': 0.5}\nr-22        {}\n"),
        (
            20,
            "row 1\n  request_id  r-1\n  outputs     {'score': 0.5}\nrow 2\n  request_id  r-22\n  outputs     {}\n",
        ),
    ],
)
def test_rows_that_are_wider_than_the_terminal_are_shown_upright(
    columns: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sql, "_client", lambda data, admin: Answers())
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(sql, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    sql.sql("SELECT 1")
    assert capsys.readouterr().out == printed


def test_a_list_without_rows_says_so_and_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    show([], [], ("name",), False, "no models yet")
    assert capsys.readouterr().out == "no models yet\n"
    show([], [], ("name",), True, "no models yet")
    assert capsys.readouterr().out == "[]\n"
