"""Planted situations for tests of the judge: plans, arms and sums of which the test knows what is wrong with them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Analysis, Plan, State, Variant
from millrace.schemas.metric import Metric, Role
from millrace.schemas.moments import Arm, PartitionMoments, to_sums
from millrace.schemas.result import Finding, Result
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known
from millrace.streams.judge.merge import Folded, Sealed
from millrace.streams.judge.past import Past

START = from_ms(1_700_000_000_000)
PAID = Metric(name="paid", outcome="paid", kind=Kind.PROPORTION, role=Role.PRIMARY)
Sums = dict[str, Moments]


def experiment(*metrics: Metric, analysis: Analysis | None = None, **fields: Any) -> Plan:
    """A running plan of a control ``a`` and a treatment ``b``, started at ``START``."""
    given: dict[str, Any] = {
        "variants": (Variant(name="a"), Variant(name="b")),
        "state": State.RUNNING,
        "version": 1,
        "started": START,
    } | fields
    return Plan(name="e", time=START, salt="s", metrics=metrics or (PAID,), analysis=analysis or Analysis(), created=START, **given)


def counted(n: int, hits: int) -> Moments:
    """So many units, of which so many did it."""
    return Moments(n, hits, hits)


def spread(n: int, mean: float, deviation: float = 1.0, covariate: float = 0.0) -> Moments:
    """Units whose values average ``mean``, half of them ``deviation`` above it and half below, in steps of 1e-6, as does the covariate."""
    total, x, step = round(n * mean * 1e6), round(n * covariate * 1e6), round(deviation * 1e6)
    squares, x_squares = total * total // n + n * step * step, x * x // n + n * step * step
    return Moments(n, total, squares, 0, 0, 0, x, x_squares, total * x // n)


def seen(units: int, **fields: Any) -> Arm:
    """An arm whose units were all assigned once and exposed."""
    return Arm(**({"assigned": units, "exposed": units, "assignments": units} | fields))


def sealed(metrics: dict[str, Sums], arms: dict[str, Arm] | None = None, partition: int = 0, digest: str = "d", version: int = 1) -> Sealed:
    """One partition; without ``arms``, each has as many units as the first metric."""
    first = next(iter(metrics.values()))
    arms = arms if arms is not None else {name: seen(sums.n) for name, sums in first.items() if "|" not in name}
    folded = {
        name: Folded(digest, version, START, {key: to_sums(moments) for key, moments in sums.items()}) for name, sums in metrics.items()
    }
    return Sealed(partition=partition, offsets={"assignments": 10 + partition, "outcomes-by-unit": 20}, arms=arms, metrics=folded)


def judged(plan: Plan, *partitions: Sealed, after_seconds: float = 86_400.0, past: Past | None = None, **known: Any) -> Result:
    """The result so long after the start."""
    return judge(Known(plan=plan, **known), partitions, past or Past(), later(after_seconds)).result


def later(seconds: float) -> datetime:
    """So long after the start."""
    return START + timedelta(seconds=seconds)


def found(result: Result, check: str) -> list[Finding]:
    """What a check has found."""
    return [finding for finding in result.health if finding.check == check]


def published(one: Sealed, plan_version: int = 1) -> list[PartitionMoments]:
    """A sealed partition as records of ``moments``: its metrics, and then what seals them."""
    base = PartitionMoments(
        id="i", experiment="e", plan_version=plan_version, partition=one.partition, time=START, offsets=one.offsets, digest="d"
    )
    metrics = [replace(base, metric=name, moments=folded.moments, digest=folded.digest) for name, folded in one.metrics.items()]
    return [*metrics, replace(base, arms=one.arms)]
