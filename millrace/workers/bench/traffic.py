"""The requests of a benchmark, and what must stand on the control topics for them to be answered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw

from millrace.infra.kafka.control import Control
from millrace.infra.models import inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import Settings
from millrace.schemas.experiment import Plan, State, Variant
from millrace.schemas.topics import EXPERIMENTS
from millrace.workers.bench.options import Encoding, Options, Shape
from millrace.workers.commands.models import add_model

ROWS = 512
UNITS = 5_000
EXPERIMENT = "bench"
DIGITS = 6


class Traffic:
    """Least requests with drawn features; rows of features repeat, ids do not."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._encode = msgspec.json.encode if options.encoding is Encoding.JSON else msgspec.msgpack.encode
        rng = np.random.default_rng(7)
        self._rows = [self._features(row) for row in rng.standard_normal((ROWS, options.network.sizes[0])).astype(np.float32)]
        self.headers: list[tuple[str, str | bytes | None]] = [("content-type", options.encoding.form.value.encode())]

    def value(self, i: int, unit: str | None = None) -> bytes:
        """The bytes of the i-th request."""
        unit = unit or f"unit-{i * 2_654_435_761 % UNITS:06d}"
        return self._encode({"id": f"request-{i:010d}", "unit_id": unit, "model": self._options.network.value, **self._rows[i % ROWS]})

    def values(self) -> Iterator[tuple[int, bytes]]:
        """All requests, numbered."""
        return ((i, self.value(i)) for i in range(self._options.requests))

    def _features(self, row: Any) -> dict[str, Raw]:
        values = [round(float(value), DIGITS) for value in row]
        if self._options.shape is Shape.NAME:
            return {"features": Raw(self._encode({f"f{i}": value for i, value in enumerate(values)}))}
        binary = self._options.encoding is Encoding.MSGPACK
        return {"vector": Raw(self._encode(row.astype("<f4").tobytes() if binary else values))}


def network(options: Options) -> bytes:
    """The model's bytes."""
    return perceptron(options.network.sizes)


def prepare(settings: Settings, options: Options) -> None:
    """Add the model, route it, and start one experiment with two variants."""
    data, now = network(options), datetime.now(UTC)
    add_model(settings, options.network.value, (inspect(data), data))
    arms = (Variant(name="control"), Variant(name="treatment"))
    Control[Plan](settings, EXPERIMENTS).append(
        EXPERIMENT, lambda n: Plan(name=EXPERIMENT, version=n, state=State.RUNNING, time=now, salt="bench-1", variants=arms)
    )
