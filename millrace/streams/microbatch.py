"""Run a model on many rows, so that a row it cannot answer costs its neighbours nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from millrace.schemas.model import ModelVersion
from millrace.streams.features import Matrix

BLAMED = "the model"
"""How the reason begins where it is the model that has no answer, and not the request."""

Outputs = dict[str, float | list[float]]
Columns = Mapping[str, NDArray[Any]]


class Model(Protocol):
    """A loaded model version. ``run`` maps float32 (n, k) to its named outputs, each (n,) or (n, m), and may raise anything."""

    @property
    def manifest(self) -> ModelVersion:
        """What it is, without its bytes."""
        ...

    def run(self, matrix: Matrix) -> Columns:
        """The outputs of these rows."""
        ...


class Part(Struct):
    """Rows [start, end) that were answered by one run: their outputs in order, and by row why one has none."""

    start: int
    end: int
    outputs: list[Outputs]
    errors: dict[int, str]


def run_apart(model: Model, matrix: Matrix) -> list[Part]:
    """Run the model on all rows; where it raises, on each half, down to the rows that make it raise.

    A row with an output that is not finite is an error of that row alone.
    """
    return _run(model, matrix, 0, len(matrix)) if len(matrix) else []


def _run(model: Model, matrix: Matrix, start: int, end: int) -> list[Part]:
    try:
        columns = model.run(matrix[start:end])
    except Exception as error:  # noqa: BLE001 - whatever a model raises is the answer of these rows
        if end - start == 1:
            return [Part(start, end, [{}], {start: f"{BLAMED} raised {type(error).__name__}: {error}"[:500]})]
        middle = (start + end) // 2
        return _run(model, matrix, start, middle) + _run(model, matrix, middle, end)
    return [Part(start, end, _rows(columns), _not_finite(columns, start))]


def _rows(columns: Columns) -> list[Outputs]:
    if len(columns) == 1:
        ((name, column),) = columns.items()
        return [{name: value} for value in column.tolist()]
    names = tuple(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*(column.tolist() for column in columns.values()), strict=True)]


def _not_finite(columns: Columns, start: int) -> dict[int, str]:
    errors: dict[int, str] = {}
    for name, column in columns.items():
        finite = np.isfinite(column)
        if not finite.all():
            bad = ~finite.reshape(len(column), -1).all(axis=1)
            errors |= {start + i: f"{BLAMED} has no finite answer for {name!r}" for i in np.flatnonzero(bad).tolist()}
    return errors
