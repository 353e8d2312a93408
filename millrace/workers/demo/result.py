"""What the demo found: the object that ``--json`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import asdict

from millrace.schemas.result import Interval
from millrace.workers.demo.traffic import Visit


class Latency(Struct, frozen=True):
    """Percentiles in milliseconds, from when a request was due to when a read-committed consumer saw its prediction, after the warm-up."""

    p50: float
    p99: float
    p999: float
    max: float


class Arm(Struct, frozen=True, kw_only=True):
    """One variant as ClickHouse has it. ``accuracy`` is None where no labelled decision is."""

    model: str
    kind: str
    assignments: int
    predictions: int
    outcomes: int
    accuracy: float | None


class Effect(Struct, frozen=True, kw_only=True):
    """One metric: each arm's mean, the treatment's effect on it, and its always-valid interval. None is what cannot be told."""

    metric: str
    kind: str
    role: str
    means: dict[str, float | None]
    effect: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    chance_to_win: float | None = None
    harmed: bool | None = None
    """Whether a guardrail is breached; None for other metrics, and where it cannot be told."""


class Conclusion(Struct, frozen=True, kw_only=True):
    """The decision, the primary metric's effect, and how many integers of the stream ClickHouse's rows say again.

    ``effect``, ``interval`` (always valid) and ``chance_to_win`` are those of the first metric that decides. ``sample_ratio_p`` is
    Pearson's.
    """

    name: str
    decision: str
    variant: str
    rule: str
    reason: str
    effect: float | None
    interval: Interval | None
    chance_to_win: float | None
    units: int
    arms: dict[str, int]
    sample_ratio_p: float | None
    metrics: tuple[Effect, ...]
    health: tuple[str, ...]
    compared: int
    unequal: int
    equal: bool


class Counts(Struct, frozen=True):
    """Rows in ClickHouse: those of the demo's requests, and what followed from them."""

    requests: int
    predictions: int
    assignments: int
    outcomes: int


class Checks(Struct, frozen=True, kw_only=True):
    """What must be nothing. ``lost`` and ``duplicated`` count at the committed reader and between records and rows."""

    lost: int
    duplicated: int
    wrong: int
    problems: tuple[str, ...]
    verified_records: int


class Result(Struct, frozen=True, kw_only=True):
    """The whole of it. ``good`` says whether every promise was kept; the four counts are rows in ClickHouse."""

    good: bool
    requests: int
    predictions: int
    assignments: int
    outcomes: int
    accuracy: dict[str, float | None]
    latency_ms: Latency | None
    lost: int
    duplicated: int
    wrong: int
    problems: tuple[str, ...]
    verified_records: int
    variants: dict[str, Arm]
    experiment: Conclusion | None
    seed: int
    requests_per_second: float
    warm_up_seconds: float
    seconds: float


class Found(Struct, frozen=True):
    """What was measured."""

    counts: Counts
    arms: dict[str, Arm]
    latency_ms: Latency | None
    checks: Checks
    experiment: Conclusion | None


class Setting(Struct, frozen=True):
    """What the run was asked for, and how long it all took."""

    seed: int
    requests_per_second: float
    warm_up_seconds: float
    seconds: float


def result(found: Found, setting: Setting) -> Result:
    """The object, from its parts."""
    return Result(
        good=not found.checks.problems,
        accuracy={name: arm.accuracy for name, arm in found.arms.items()},
        variants=found.arms,
        latency_ms=found.latency_ms,
        experiment=found.experiment,
        **asdict(found.counts),
        **asdict(found.checks),
        **asdict(setting),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0], 0.99)
    (2.0, 2.0)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency(visits: Sequence[Visit], due: Sequence[float], seen: Mapping[str, float]) -> Latency | None:
    """The percentiles over all answered requests; None where none was."""
    waits = sorted(1_000 * (seen[v.request_id] - at) for v, at in zip(visits, due, strict=True) if v.request_id in seen)
    if not waits:
        return None
    return Latency(*(round(percentile(waits, share), 1) for share in (0.5, 0.99, 0.999, 1.0)))
