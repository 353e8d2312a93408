"""The rules that look back: the mixture SPRT's largest evidence, planned looks, and what a result tells of both."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Analysis, Correction, Looks, Plan, Rule, Spending, Variant
from millrace.schemas.metric import Role
from millrace.schemas.result import Estimate, LargestEvidence, LookEvidence, MixtureEvidence, Result, Verdict
from millrace.streams.judge.judge import Judged, judge
from millrace.streams.judge.known import Known
from millrace.streams.judge.past import Largest, Look, Past
from millrace.streams.judge.recall import recall
from millrace.streams.judge.shelf import DESK, FORM, Desk, Shelf
from millrace.streams.stats.group_sequential import boundaries
from tests.driver import MemoryStore
from tests.judging import PAID, counted, experiment, found, judged, later, sealed, spread

FOUR = Looks(units=10_000, fractions=(0.25, 0.5, 0.75, 1.0))
PLANNED = Analysis(rule=Rule.GROUP_SEQUENTIAL, looks=FOUR, difference="absolute")
MIXED = Analysis(rule=Rule.MSPRT, tau=0.02, difference="absolute")


def units(n: int, share: float = 0.1, of: str = "paid") -> Any:
    """``n`` units in each of two arms: a tenth of the control's did it, and this share of the treatment's."""
    return sealed({of: {"a": counted(n, n // 10), "b": counted(n, round(n * share))}})


def course(plan: Plan, *steps: Any, past: Past | None = None) -> list[Judged]:
    """Looks a minute apart, each with what the one before left behind."""
    told: list[Judged] = []
    for minute, step in enumerate(steps, 1):
        told.append(judge(Known(plan=plan), [step], told[-1].past if told else past or Past(), later(60.0 * minute)))
    return told


def mixture(result: Result) -> MixtureEvidence:
    estimate = result.metrics[0].comparisons[0].estimate
    assert isinstance(estimate, Estimate)
    assert isinstance(estimate.always_valid.mixture, MixtureEvidence), estimate.always_valid.mixture
    return estimate.always_valid.mixture


def seen(result: Result, variant: int = 0) -> LookEvidence:
    look = result.metrics[0].comparisons[variant].look
    assert isinstance(look, LookEvidence), look
    return look


def test_the_evidence_is_pure_and_its_largest_is_kept_apart() -> None:
    """Evidence comes and goes: the e-value follows it, the largest stays, and the p-value follows from that."""
    strong, weak = course(experiment(analysis=MIXED), units(2_000, 0.15), units(4_000, 0.105))
    now, most = mixture(weak.result), mixture(weak.result).so_far
    assert mixture(judged(experiment(analysis=MIXED), units(4_000, 0.105))).log_evalue == now.log_evalue < most.log_evalue
    assert most == mixture(strong.result).so_far
    assert most.log_evalue == mixture(strong.result).log_evalue
    assert most.effect == pytest.approx(0.05)
    assert most.p_value == pytest.approx(math.exp(-most.log_evalue))
    assert weak.past.largest == {"paid/b": Largest("absolute tau 0.02", most.log_evalue, most.effect)}


def test_the_mixture_decides_by_its_largest_evidence() -> None:
    strong, weak, gone = course(experiment(analysis=MIXED), units(2_000, 0.15), units(4_000, 0.105), units(8_000, 0.098))
    for one in (strong, weak):
        assert (one.result.decision.verdict, one.result.decision.rule) == (Verdict.IMPLEMENT, Rule.MSPRT)
        assert one.result.decision.numbers["largest_log_evalue"] == mixture(strong.result).log_evalue
    # what was found was an effect above 0: one below 0 is not what it speaks for
    assert gone.result.decision.verdict is Verdict.CONTINUE
    assert judged(experiment(analysis=MIXED), units(4_000, 0.105)).decision.verdict is Verdict.CONTINUE


def test_tau_is_the_plan_s_or_the_least_effect_worth_having_or_the_sequence_s() -> None:
    own, least, none = (
        judged(experiment(replace(PAID, minimal_effect=effect), analysis=Analysis(difference="absolute", tau=tau)), units(5_000, 0.12))
        for tau, effect in ((0.03, 0.01), (None, 0.01), (None, 0.0))
    )
    assert [mixture(one).tau for one in (own, least)] == [0.03, 0.01]
    estimate = none.metrics[0].comparisons[0].estimate
    assert isinstance(estimate, Estimate)
    assert mixture(none).tau == pytest.approx(0.0398400668 * estimate.std_error * math.sqrt(10_000))
    assert mixture(none).so_far.p_value == pytest.approx(estimate.always_valid.p_value)
    assert mixture(none).interval == pytest.approx(estimate.always_valid.interval)


def test_evidence_of_another_mixture_does_not_count_on() -> None:
    """The largest of two mixtures would be two tests at one level; so would the smallest p-value of two sequences."""
    strong = judge(Known(plan=experiment(analysis=MIXED)), [units(2_000, 0.15)], Past(), later(60))
    for other in (replace(MIXED, tau=0.05), replace(MIXED, difference="relative")):
        result = judge(Known(plan=experiment(analysis=other)), [units(4_000, 0.105)], strong.past, later(120)).result
        assert mixture(result).so_far.log_evalue == mixture(result).log_evalue
    again = [
        judge(Known(plan=experiment(analysis=replace(MIXED, tuning=tuning))), [units(4_000, 0.105)], strong.past, later(120)).past.smallest
        for tuning in (5_000.0, 9_000.0)
    ]
    assert again == [strong.past.smallest, {"paid/b": 1.0}]
    assert strong.past.smallest["paid/b"] < 1e-3


def test_the_mixture_s_p_values_are_corrected_for_their_family() -> None:
    analysis = replace(MIXED, correction=Correction.BONFERRONI)
    plan = experiment(PAID, replace(PAID, name="other", role=Role.SECONDARY), analysis=analysis)
    arms = {"a": counted(5_000, 500), "b": counted(5_000, 600)}
    result = judged(plan, sealed({"paid": arms, "other": arms}))
    assert mixture(result).so_far.adjusted_p_value == pytest.approx(2 * mixture(result).so_far.p_value)
    assert mixture(result).level == 0.025


def test_a_tau_that_no_double_bears_is_told_as_such() -> None:
    result = judged(experiment(analysis=replace(MIXED, tau=1e-300)), units(5_000, 0.15))
    estimate = result.metrics[0].comparisons[0].estimate
    assert isinstance(estimate, Estimate)
    assert isinstance(estimate.always_valid.mixture, CannotTell)
    assert (result.decision.verdict, "too far" in result.decision.reason) == (Verdict.CONTINUE, True)


def test_planned_looks_are_made_once_each_when_their_units_count() -> None:
    """Between looks nothing changes, whatever comes."""
    before, first, between, second = course(
        experiment(analysis=PLANNED), units(1_000, 0.2), units(1_250, 0.11), units(2_000, 0.3), units(2_500, 0.11)
    )
    assert before.result.metrics[0].comparisons[0].look is None
    assert "look 1 of 4 is at 2500 units, and 2000 count" in before.result.decision.reason
    assert (seen(first.result).number, seen(first.result).units, seen(first.result).fraction) == (1, (2_500,), 0.25)
    assert seen(between.result) == seen(first.result)
    assert between.result.decision.verdict is Verdict.CONTINUE
    assert "look 2 of 4 is at 5000 units, and 4000 count" in between.result.decision.reason
    assert seen(second.result).units == (2_500, 5_000)
    limits = boundaries([0.25, 0.5], 0.05, Spending.OBRIEN_FLEMING)
    assert [seen(one.result).boundary for one in (first, second)] == pytest.approx(limits)
    assert found(second.result, "looks") == []


def test_a_look_that_crosses_decides_and_is_the_last() -> None:
    first, later_on = course(experiment(analysis=PLANNED), units(1_250, 0.18), units(2_500, 0.1))
    assert (first.result.decision.verdict, first.result.decision.variant) == (Verdict.IMPLEMENT, "b")
    assert first.result.decision.numbers["z"] > first.result.decision.numbers["boundary"] > 4.0
    assert later_on.result.decision == first.result.decision
    assert later_on.past.looks == (Look(number=1, units=2_500),)
    worse = course(experiment(analysis=PLANNED), units(1_250, 0.05))[0].result.decision
    assert (worse.verdict, "worse" in worse.reason) == (Verdict.REJECT, True)


def test_the_last_look_rejects_what_is_open() -> None:
    *_, last = course(experiment(analysis=PLANNED), *(units(n, 0.105) for n in (1_250, 2_500, 3_750, 5_000)))
    assert (last.result.decision.verdict, last.result.decision.rule) == (Verdict.REJECT, Rule.GROUP_SEQUENTIAL)
    assert "at the last of the planned looks" in last.result.decision.reason
    assert seen(last.result).last


def test_units_that_overrun_a_look_move_its_boundary_and_are_told() -> None:
    """The boundary is that of the share that did count; of looks that were jumped over, the last is made."""
    first, jumped, over = course(experiment(analysis=PLANNED), units(2_000, 0.11), units(4_000, 0.11), units(6_000, 0.11))
    assert seen(first.result).boundary == pytest.approx(boundaries([0.4], 0.05, Spending.OBRIEN_FLEMING)[-1])
    assert "planned at 2500 units and made at 4000" in found(first.result, "looks")[0].cause
    assert (seen(jumped.result).number, seen(jumped.result).fraction) == (3, 0.8)
    assert "took the place of 1 before it" in found(jumped.result, "looks")[1].cause
    assert (seen(over.result).last, seen(over.result).fraction) == (True, 1.2)
    assert seen(over.result).boundary == pytest.approx(boundaries([0.4, 0.8, 1.2], 0.05, Spending.OBRIEN_FLEMING, ended=True)[-1])


def test_the_maximal_run_time_makes_the_last_look() -> None:
    plan = experiment(analysis=replace(PLANNED, maximal_seconds=100.0))
    first, last = course(plan, units(1_250, 0.11), units(2_000, 0.14))
    assert (seen(last.result).last, seen(last.result).number, seen(last.result).fraction) == (True, 4, 0.4)
    spends = boundaries([0.25, 0.4], 0.05, Spending.OBRIEN_FLEMING, ended=True)[-1]
    assert seen(last.result).boundary == pytest.approx(spends)
    assert spends < 2.0 < seen(first.result).boundary
    assert last.result.decision.verdict is Verdict.IMPLEMENT
    assert "its time was over" in found(last.result, "looks")[0].cause


def test_no_look_is_made_too_early_nor_while_health_forbids_nor_where_nothing_can_be_told() -> None:
    early = course(experiment(analysis=replace(PLANNED, minimal_seconds=1_000.0)), units(1_250, 0.18))[0]
    uneven = course(experiment(analysis=PLANNED), sealed({"paid": {"a": counted(1_000, 100), "b": counted(1_500, 270)}}))[0]
    silent = course(experiment(analysis=PLANNED), sealed({"paid": {"a": counted(1_250, 0), "b": counted(1_250, 0)}}))[0]
    for one, verdict in ((early, Verdict.CONTINUE), (uneven, Verdict.INVALID), (silent, Verdict.CONTINUE)):
        assert (one.result.decision.verdict, one.past.looks) == (verdict, ())


def test_comparisons_share_the_level_of_each_look() -> None:
    variants = tuple(Variant(name=name) for name in "abc")
    arms = {"a": counted(2_000, 200), "b": counted(2_000, 220), "c": counted(2_000, 230)}
    for correction, level in ((Correction.HOLM, 0.025), (Correction.NONE, 0.05)):
        result = judged(experiment(variants=variants, analysis=replace(PLANNED, correction=correction)), sealed({"paid": arms}))
        assert [seen(result, number).level for number in (0, 1)] == [level, level]
        assert seen(result).boundary == pytest.approx(boundaries([0.6], level, Spending.OBRIEN_FLEMING)[-1])


def test_spending_moves_the_boundaries() -> None:
    early = [
        seen(judged(experiment(analysis=replace(PLANNED, looks=replace(FOUR, spending=spending))), units(1_250, 0.11))).boundary
        for spending in Spending
    ]
    assert early == pytest.approx([4.333, 2.368], abs=1e-3)


@pytest.mark.parametrize("analysis", [MIXED, PLANNED, Analysis(rule=Rule.FIXED), Analysis()], ids=lambda one: str(one.rule))
def test_a_result_tells_the_past_that_it_was_judged_with(analysis: Analysis) -> None:
    """Who judges without the judge's state, from its newest result, comes to what the judge comes to."""
    plan = experiment(analysis=analysis)
    steps = (units(1_300, 0.105), units(2_600, 0.1), units(3_000, 0.12), units(4_000, 0.13), units(5_100, 0.11))
    told = course(plan, *steps)
    for before, after, step in zip(told, told[1:], steps[1:], strict=False):
        recalled = recall(before.result, plan)
        assert replace(recalled, ratio_log=before.past.ratio_log) == before.past
        assert judge(Known(plan=plan), [step], recalled, after.result.time).result == after.result


def test_state_of_before_still_decodes() -> None:
    """A judge that comes back finds what one without mixtures and looks wrote."""
    store = MemoryStore()
    old = {"changed": True, "past": {"ratio_log": 1.5, "smallest": {"paid/b": 0.01}}, "heard": {"verdict": "reject b"}}
    store.put(DESK + b"e", FORM + msgspec.msgpack.encode(old))
    assert Shelf(store).desk("e").past == Past(ratio_log=1.5, smallest={"paid/b": 0.01})


def test_state_survives_its_encoding() -> None:
    *_, last = course(experiment(analysis=replace(PLANNED, tau=0.02)), units(1_250, 0.11), units(2_500, 0.11))
    shelf = Shelf(MemoryStore())
    shelf.keep("e", Desk(past=last.past))
    assert shelf.desk("e").past == last.past
    assert last.past.looks
    assert last.past.largest


def test_the_mixture_of_a_published_row_through_the_judge() -> None:
    """`statistics.json`, msprt: a difference of 0.05 in 5,000 units an arm of standard deviation 1, tau 0.05."""
    n = 5_000
    exact = (n - 1) * 10**12  # the squares about the mean of a variance of exactly 1, in steps of 1e-6
    plain = {name: replace(spread(n, mean), squares=round(mean * n * 1e6) ** 2 // n + exact) for name, mean in (("a", 0.0), ("b", 0.05))}
    spent = replace(PAID, kind=Kind.MEAN)
    result = judged(experiment(spent, analysis=Analysis(rule=Rule.MSPRT, tau=0.05, difference="absolute")), sealed({"paid": plain}))
    assert mixture(result).so_far.p_value == pytest.approx(0.1820516606, abs=5.1e-11)
    assert isinstance(mixture(result).so_far, LargestEvidence)
