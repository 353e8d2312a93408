"""``millrace experiments evaluate``: the judge as a calculator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from millrace.schemas.errors import UsageError
from millrace.workers.commands.common import Json, write_json
from millrace.workers.commands.report import show

File = Annotated[Path, typer.Argument(help="A JSON file with the sums of two arms; - reads standard input.")]
COLUMNS = ("", "value", "from", "to")


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(evaluate)


def evaluate(file: File, json: Json = False) -> None:
    """Compare two arms by the sums in a file, with the judge's own functions; nothing else needs to run.

    {"kind": "mean" | "proportion" | "ratio", "difference": "relative" | "absolute", "alpha": 0.05, "tuning": 5000,
    "prior": null | {"mean": 0, "variance": 1}, "control": {"n": 10, "total": 3, "squares": 3}, "treatment": {...},
    "counts": [10, 12], "weights": [1, 1]}
    """
    from millrace.streams.judge.calculator import AnyQuestion
    from millrace.streams.judge.calculator import evaluate as answered

    given = _read(file)
    try:
        question: AnyQuestion = msgspec.json.decode(given, type=AnyQuestion)
        answer = answered(question)
    except msgspec.DecodeError as error:
        raise UsageError(f"{file}: {error}. {_remedy(str(error))}") from None
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    told = msgspec.to_builtins(answer)
    if json:
        write_json(told)
        return
    show([], [[name, *_cells(value)] for name, value in _rows(told)], COLUMNS, False)


def _remedy(error: str) -> str:
    if "`kind`" in error or "`$.kind`" in error:
        return "Write one of mean, proportion, ratio."
    return "A whole file stands in `millrace experiments evaluate --help`."


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


def _rows(told: dict[str, object]) -> list[tuple[str, object]]:
    """The numbers by name, those within another one's under both names."""
    rows: list[tuple[str, object]] = []
    for name, value in told.items():
        if isinstance(value, dict) and "reason" not in value:
            rows += [(f"{name} {inner}", one) for inner, one in value.items()]
        elif name not in ("type", "reason") and value is not None:
            rows.append((name, value))
    return rows


def _cells(value: object) -> list[object]:
    if isinstance(value, dict):
        return [f"cannot tell: {value['reason']}", None, None]
    if isinstance(value, list | tuple):
        return [None, *(f"{one:.6g}" for one in value)]
    return [f"{value:.6g}", None, None]
