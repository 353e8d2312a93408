"""What a metric's sums are sums of, as a short text: sums of another digest do not add."""

from __future__ import annotations

import msgspec
import xxhash

from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Metric
from millrace.streams.experiment.folded import folded


def digest(plan: Plan, metric: Metric) -> str:
    """The xxh3_128, in hex, of all of the plan that decides a metric's moments, as JSON with sorted keys.

    The metric's role, direction, quantile, minimal effect and limit are not in it: they may change while the experiment runs.
    """
    parts: dict[str, object] = {
        "name": metric.name,
        "outcome": metric.outcome,
        "kind": metric.kind,
        "aggregation": metric.aggregation,
        "resolution": metric.resolution,
        "cap": metric.cap,
        "denominator": metric.denominator,
        "window_seconds": metric.window_seconds,
        "covariate_days": metric.covariate_days,
        "unit": plan.unit,
        "lateness_seconds": plan.analysis.lateness_seconds,
        "segments": plan.segments,
    }
    if features := plan.learnt_over(metric.name):
        parts["features"] = features
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(parts, order="deterministic"))


def digest_of_all(plan: Plan) -> str:
    """What the sealing record carries: one digest over those of all folded metrics, in the plan's order."""
    return xxhash.xxh3_128_hexdigest("\x1f".join(digest(plan, metric) for metric in folded(plan)).encode())
