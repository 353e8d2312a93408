"""How far behind a worker is, told at an interval, whether it reads or not: on-call looks when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from millrace.infra.kafka.inputs import Inputs
from millrace.infra.telemetry import EndUnknown, Lagging, Telemetry

LAG_SECONDS = 1.0

Lags = Mapping[tuple[str, int], tuple[int, float]]
"""By topic and partition: records, and seconds."""


class LagReport:
    """Tells the lag once a second, from where the logs ended a second before. Nothing waits for Kafka here."""

    def __init__(self, inputs: Inputs, telemetry: Telemetry, lag: Callable[[], Lags]) -> None:
        self._inputs, self._telemetry, self._lag = inputs, telemetry, lag
        self._told = 0.0

    def turn(self) -> None:
        """Tell the lag and ask for the ends, where that is due."""
        for (name, number), reason in self._inputs.log_ends.look().items():
            self._telemetry.emit(EndUnknown(topic=self._inputs.short(name), partition=number, reason=reason))
        now = time.monotonic()
        if now - self._told >= LAG_SECONDS:
            self._told = now
            self._telemetry.emit(Lagging(lag=self._lag()))
            self._inputs.log_ends.ask(self._inputs.owned)
