"""``millrace bench inference``: requests a second, of the bare loop and of the real worker, in turns on one broker."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Callable

from msgspec import Struct

from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.schemas.errors import Stop
from millrace.schemas.topics import ASSIGNMENTS, PREDICTIONS
from millrace.workers.bench.bare import ROLE as BARE
from millrace.workers.bench.options import Options
from millrace.workers.bench.place import LOOPS, broker, loop, publish, topics, wait_until_done
from millrace.workers.inference import ROLE as INFERENCE

WARM_SHARE = 0.1


class Rates(Struct, frozen=True):
    """Requests a second of each round, their median, and the microseconds that one request costs at it."""

    rounds: list[float]
    median: float
    microseconds: float

    @staticmethod
    def of(rounds: list[float]) -> Rates:
        """From the rate of each round."""
        median = statistics.median(rounds)
        return Rates([round(rate, 1) for rate in rounds], round(median, 1), round(1e6 / median, 2))


class Report(Struct, frozen=True):
    """What ``millrace bench inference`` found."""

    encoding: str
    features: str
    model: str
    requests: int
    bare: Rates
    inference: Rates
    ratio: float
    target_ratio: float
    met: bool


def compare(settings: Settings, options: Options, tell: Callable[[str], None]) -> Report:
    """Measure both loops ``rounds`` times in turns; ``tell`` is given a line about each."""
    rates: dict[str, list[float]] = {role: [] for role in LOOPS}
    with broker(settings) as placed:
        for number in range(options.rounds):
            for role in LOOPS:
                rates[role].append(measure(role, placed, options))
                tell(f"round {number + 1} of {options.rounds}: {role} {rates[role][-1]:,.0f} requests/s")
    bare, inference = Rates.of(rates[BARE]), Rates.of(rates[INFERENCE])
    ratio = inference.median / bare.median
    return Report(
        encoding=options.encoding,
        features=options.shape,
        model=options.network,
        requests=options.requests,
        bare=bare,
        inference=inference,
        ratio=round(ratio, 3),
        target_ratio=options.target_ratio,
        met=ratio >= options.target_ratio,
    )


def measure(role: str, settings: Settings, options: Options) -> float:
    """Publish all requests, let the loop answer them, and give its rate."""
    with topics(settings, options, f"bench-{uuid.uuid4().hex[:8]}") as fresh:
        publish(fresh, options)
        with loop(role, fresh, options) as child:
            wait_until_done(role, fresh, options.requests, child)
        return rate(fresh, options)


def rate(settings: Settings, options: Options) -> float:
    """Requests a second, by the broker's own append times of the predictions, without the first tenth: start-up is not the loop.

    Raises Stop unless there is one prediction and one assignment for each request: a rate of half the work is none.
    """
    times = sorted(record.appended_ms for record in read_whole(settings, PREDICTIONS))
    assigned = sum(1 for _ in read_whole(settings, ASSIGNMENTS))
    if (len(times), assigned) != (options.requests, options.requests):
        raise Stop(f"{options.requests} requests have {len(times)} predictions and {assigned} assignments")
    first = int(len(times) * WARM_SHARE)
    return (len(times) - 1 - first) / max(1e-3, (times[-1] - times[first]) / 1_000)
