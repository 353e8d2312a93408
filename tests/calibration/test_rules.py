"""Peeking at nothing through the judge's own decisions: does each rule find what is not there in alpha of the experiments at most?

Six looks at each of 400 experiments without an effect, judged as the judge does, each with what the look before left behind. ``ERROR`` is
three Monte-Carlo standard deviations of a rate of 5 % in so many.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from millrace.schemas.experiment import Analysis, Looks, Rule, Spending
from millrace.schemas.result import Decision, Estimate, Verdict
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known
from millrace.streams.judge.past import Past
from tests.judging import counted, experiment, later, sealed

RUNS, LOOKS, A_LOOK = 400, 6, 500
ERROR = 3.0 * math.sqrt(0.05 * 0.95 / RUNS)
"""0.033."""
EVEN = tuple(look / LOOKS for look in range(1, LOOKS + 1))


def finds(decision: Decision) -> bool:
    """Whether an effect was found, of either side; that nothing was shown at the end is none."""
    told = decision.verdict is Verdict.REJECT and ("worse" in decision.reason or "worth having" in decision.reason)
    return decision.verdict is Verdict.IMPLEMENT or told


def peeked(seed: int, analysis: Analysis) -> tuple[float, float]:
    """The shares of experiments in which the rule found an effect at some look, and in which the naive test did."""
    known = Known(plan=experiment(analysis=analysis))
    draws = np.random.default_rng(seed).binomial(A_LOOK, 0.1, (RUNS, 2, LOOKS)).cumsum(axis=2).tolist()
    by_rule = naive = 0
    for control, treatment in draws:
        past, decided, found = Past(), False, False
        for look, (a, b) in enumerate(zip(control, treatment, strict=True), 1):
            n = A_LOOK * look
            judged = judge(known, [sealed({"paid": {"a": counted(n, a), "b": counted(n, b)}})], past, later(60.0 * look))
            past, estimate = judged.past, judged.result.metrics[0].comparisons[0].estimate
            assert isinstance(estimate, Estimate)
            decided, found = decided or finds(judged.result.decision), found or estimate.fixed.p_value <= 0.05
        by_rule, naive = by_rule + decided, naive + found
    return by_rule / RUNS, naive / RUNS


@pytest.mark.parametrize(
    "analysis",
    [
        Analysis(difference="absolute"),
        Analysis(difference="absolute", rule=Rule.MSPRT, tau=0.02),
        Analysis(difference="absolute", rule=Rule.GROUP_SEQUENTIAL, looks=Looks(units=6_000, fractions=EVEN, spending=Spending.POCOCK)),
        Analysis(difference="absolute", rule=Rule.FIXED),
    ],
    ids=lambda analysis: str(analysis.rule),
)
def test_a_rule_keeps_its_level_under_peeking(analysis: Analysis) -> None:
    by_rule, naive = peeked(1, analysis)
    assert by_rule <= 0.05 + ERROR
    assert naive > 0.1
    if analysis.rule in (Rule.GROUP_SEQUENTIAL, Rule.FIXED):
        assert by_rule >= 0.05 - ERROR  # they spend their level, where the others keep some for looks to come
