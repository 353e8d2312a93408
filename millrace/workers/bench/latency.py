"""``millrace bench latency``: from when a request is due to when a committed reader has its answer, at a steady rate.

Open loop: requests are due on a schedule that nothing can slow down. Sender, broker, loop and reader share the machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.embedded.launch import wrapped
from millrace.infra.kafka.tail import Spot, Tail
from millrace.infra.settings import Settings, process_environment
from millrace.schemas.errors import Unavailable
from millrace.schemas.topics import PREDICTIONS
from millrace.workers.bench.bare import ROLE as BARE
from millrace.workers.bench.options import Options
from millrace.workers.bench.place import LOOPS, broker, ended, environment, loop, topics
from millrace.workers.inference import ROLE as INFERENCE

WARM_SECONDS = 3.0
START_SECONDS = 4.0
PATIENCE_SECONDS = 120.0
TARGET_RATIO = 1.5
QUANTILES = (0.5, 0.99, 0.999)


class Latency(Struct, frozen=True):
    """Milliseconds from due to read, over all measured requests of all rounds."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    requests: int

    @staticmethod
    def of(rounds: list[list[float]]) -> Latency:
        """Quantiles of each round, and of those the median: one pause of the machine must not decide."""
        found = np.median([np.quantile(seconds, QUANTILES) for seconds in rounds], axis=0) * 1_000
        p50, p99, p999 = (round(float(value), 2) for value in found)
        return Latency(p50, p99, p999, sum(map(len, rounds)))


class Report(Struct, frozen=True):
    """What ``millrace bench latency`` found at one rate."""

    rate: float
    seconds: float
    bare: Latency
    inference: Latency
    p99_ratio: float
    target_ratio: float
    met: bool


def compare(settings: Settings, options: Options, rate: float, seconds: float, tell: Callable[[str], None]) -> Report:
    """Measure both loops in turns at one rate; ``tell`` is given a line about each."""
    options = replace(options, requests=int(rate * (WARM_SECONDS + seconds)))
    found: dict[str, list[list[float]]] = {role: [] for role in LOOPS}
    with broker(settings) as placed:
        for number in range(options.rounds):
            for role in LOOPS:
                found[role].append(measure(role, placed, options, rate))
                one = Latency.of(found[role][-1:])
                said = f"p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms, p99.9 {one.p999_ms:.1f} ms"
                tell(f"round {number + 1} of {options.rounds} at {rate:,.0f}/s: {role} {said}")
    bare, inference = Latency.of(found[BARE]), Latency.of(found[INFERENCE])
    ratio = inference.p99_ms / bare.p99_ms
    return Report(rate, seconds, bare, inference, round(ratio, 3), TARGET_RATIO, ratio <= TARGET_RATIO)


def measure(role: str, settings: Settings, options: Options, rate: float) -> list[float]:
    """The latency in seconds of each request after the warm-up."""
    with topics(settings, options, f"bench-{uuid.uuid4().hex[:8]}") as fresh, loop(role, fresh, options):
        start_ns = time.monotonic_ns() + int(START_SECONDS * 1e9)
        command = (sys.executable, "-m", "millrace.workers.bench.sender", options.to_text(), str(rate), str(start_ns))
        child = subprocess.Popen(wrapped(command), env=process_environment() | environment(fresh, options))
        with ended(child):
            read_ns = _read(fresh, options, start_ns)
    due_ns = start_ns + np.arange(options.requests) * 1e9 / rate
    return ((read_ns - due_ns)[int(rate * WARM_SECONDS) :] / 1e9).tolist()  # type: ignore[no-any-return]


def _read(settings: Settings, options: Options, start_ns: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """When each request's prediction was read. Raises Unavailable where one does not come."""
    read_ns = np.zeros(options.requests, np.int64)
    missing = options.requests
    tail = Tail(settings, PREDICTIONS.name, Spot())
    last = time.monotonic() + max(0.0, start_ns / 1e9 - time.monotonic())
    try:
        while missing:
            records = tail.read(0.1)
            now_ns = time.monotonic_ns()
            for record in records:
                place = int((record.key or b"u-1")[1:])
                missing -= not read_ns[place]
                read_ns[place] = read_ns[place] or now_ns
            last = time.monotonic() if records else last
            if time.monotonic() - last > PATIENCE_SECONDS:
                raise Unavailable(f"{missing} of {options.requests} requests were not answered within {PATIENCE_SECONDS:g} s")
    finally:
        tail.close()
    return read_ns
