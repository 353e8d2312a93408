"""What earlier looks left behind, as far as a published result tells it: for who judges without the judge's own state."""

from __future__ import annotations

from collections.abc import Iterable

from millrace.schemas.experiment import Looks, Plan
from millrace.schemas.result import Decision, LookEvidence, MetricResult, Result, Verdict
from millrace.streams.judge.decide import KEPT
from millrace.streams.judge.health.ratio import CHECK
from millrace.streams.judge.metrics import mixtures, sequence_of
from millrace.streams.judge.past import Look, Past, largest, places, smallest
from millrace.streams.judge.terms import thresholds


def recall(result: Result, plan: Plan) -> Past:
    """The past that a result shows; ``plan`` is the version that it was judged by.

    Not shown, and so begun anew: the sample ratio's largest evidence where it found nothing, comparisons that the result could not tell,
    and a word that was kept while health or harm stood before it.
    """
    seen = {place: one.look for place, one in places(result.metrics) if one.look is not None}
    return Past(
        ratio_log=max((one.numbers.get("largest_log_bayes_factor", 0.0) for one in result.health if one.check == CHECK), default=0.0),
        sequence=sequence_of(plan.analysis),
        smallest=smallest(result.metrics, {}),
        largest=largest(result.metrics, mixtures(plan), {}),
        fixed=result.decision if _is_word(result.decision, plan) else None,
        looks=_looks(result.metrics, plan.analysis.looks),
        seen=seen,
    )


def _is_word(decision: Decision, plan: Plan) -> bool:
    rule = plan.analysis.rule
    return rule in KEPT and decision.rule == rule and decision.verdict is not Verdict.CONTINUE


def _looks(metrics: Iterable[MetricResult], planned: Looks | None) -> tuple[Look, ...]:
    newest = next((one.look for _, one in places(metrics) if isinstance(one.look, LookEvidence)), None)
    if newest is None or planned is None:
        return ()
    *before, last = newest.units
    made = [Look(number=sum(units >= wanted for wanted in thresholds(planned)), units=units) for units in before]
    return (*made, Look(number=newest.number, units=last, last=newest.last))
