"""What every part of a report needs: ClickHouse at the result's offsets, the plan that judged, and a comparison of two arms."""

from __future__ import annotations

from collections.abc import Mapping

from millrace.infra.clickhouse.experiments.answers import moments
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.infra.clickhouse.experiments.moments import AS_JUDGED, Variation
from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Metric
from millrace.schemas.result import Estimate, Result
from millrace.streams.judge.estimate import Pair, Terms, estimate
from millrace.streams.judge.metrics import adjusts
from millrace.streams.stats.summary import Summary, of_moments
from millrace.workers.report.asking import Asking

Told = Mapping[str, Moments]
"""Arm (``variant`` or ``variant|field=value``) to its moments, over all partitions."""
SUMS = (
    "Sums of units' values by partition and arm, in whole steps of the resolution; added over partitions they are what"
    " `millrace experiments evaluate` takes. "
)


class Archive:
    """ClickHouse, asked about one result. ``plan`` is the version that the result was judged by."""

    def __init__(self, client: Asking, question: AsOf, plan: Plan, result: Result) -> None:
        self.client, self.question, self.plan, self.result = client, question, plan, result
        self.terms = Terms.of(plan.analysis)
        self.control, *self.treatments = [variant.name for variant in plan.variants]
        self.folded = [metric for metric in plan.metrics if metric.kind is not Kind.QUANTILE]
        self.judged = {metric.name: self._judged(metric) for metric in self.folded}

    def moments(self, metric: Metric, title: str, gives: str, variation: Variation = AS_JUDGED) -> dict[str, Moments]:
        """A metric's moments by arm."""
        total: dict[str, Moments] = {}
        with self.client.about(title, SUMS + gives):
            for (_, name), found in moments(self.client, self.question, metric, variation).items():
                total[name] = total.get(name, Moments()) + found
        return total

    def _judged(self, metric: Metric) -> dict[str, Moments]:
        gives = "Means, effects, intervals, p-values, chance to win; segments, post-stratification and tables of counts too."
        return self.moments(metric, f"{metric.name}: as it was judged", gives)

    def estimate(self, metric: Metric, told: Told, variant: str, suffix: str = "", *, plain: bool = False) -> Estimate | CannotTell:
        """A variant against the control, adjusted as the judge does it unless it is to be ``plain``."""
        arms = [summary(metric, told.get(f"{name}{suffix}", Moments())) for name in (self.control, variant)]
        adjust = not plain and adjusts(self.plan, metric)
        pair = Pair(control=arms[0], treatment=arms[1], kind=metric.kind, direction=metric.direction, adjust=adjust)
        return estimate(pair, self.terms)

    def units(self, told: Told, variant: str, suffix: str = "") -> int:
        """How many units the control and a variant have together."""
        return sum(told.get(f"{name}{suffix}", Moments()).n for name in (self.control, variant))


def summary(metric: Metric, sums: Moments) -> Summary:
    """An arm's summary in the metric's own units."""
    return of_moments(sums, metric.step, metric.denominator_step)
