"""Which of a plan's metrics are folded: all but quantiles, which are not a function of mergeable moments."""

from __future__ import annotations

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Metric


def folded(plan: Plan) -> list[Metric]:
    """The metrics that moments are made of, in the plan's order; of two with one name the first."""
    first = {metric.name: metric for metric in reversed(plan.metrics)}
    return [metric for metric in plan.metrics if metric.kind is not Kind.QUANTILE and first[metric.name] is metric]
