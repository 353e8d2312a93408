"""The open-loop sender of the latency benchmark, as a process: ``sender OPTIONS RATE START_NS``.

Request i is due at START_NS + i / RATE on the monotonic clock, whatever became of those before it. What is late is sent at once and its
latency still counts from when it was due: a sender that waited would leave out the very requests that a pause hurts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from millrace.infra.kafka.clients import full_name, producer
from millrace.infra.settings import load
from millrace.schemas.topics import REQUESTS
from millrace.workers.bench.options import Options
from millrace.workers.bench.traffic import Traffic

NAP_SECONDS = 0.000_5


def unit_of(i: int) -> str:
    """A unit of its own for each request, so that the key of a prediction tells which request it answers."""
    return f"u{i}"


def main(arguments: Sequence[str]) -> None:
    """Send all requests, each when it is due."""
    options, rate, start_ns = Options.from_text(arguments[0]), float(arguments[1]), int(arguments[2])
    settings, traffic = load(), Traffic(options)
    client, name = producer(settings, linger_ms=0), full_name(settings, REQUESTS)
    sent = 0
    while sent < options.requests:
        due = min(options.requests, int((time.monotonic_ns() - start_ns) * rate / 1e9) + 1)
        while sent < due:
            unit = unit_of(sent)
            client.produce(name, traffic.value(sent, unit), unit, headers=traffic.headers)
            sent += 1
        client.poll(0)
        time.sleep(NAP_SECONDS)
    if left := client.flush(30):
        sys.exit(f"Kafka did not take {left} requests")


if __name__ == "__main__":
    main(sys.argv[1:])
