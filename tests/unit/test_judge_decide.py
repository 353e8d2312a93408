"""What the judge decides, by every rule, and what each key of a plan changes about it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Allocation, Analysis, Correction, Looks, Policy, Rule, State, Unit, Variant
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.result import Decision, Result, Verdict
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known
from millrace.streams.judge.past import Past
from millrace.streams.judge.terms import milestones, run_seconds
from tests.judging import PAID, START, counted, experiment, found, judged, later, sealed

RULES = list(Rule)
LOOKS = Looks(units=10_000, fractions=(0.5, 1.0))
BETTER, WORSE, SAME, SLIGHT = 700, 380, 500, 540
ERRORS = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.1)


def by(rule: Rule, **fields: Any) -> Analysis:
    """An analysis by a rule; planned looks are at 5,000 and 10,000 units."""
    return Analysis(rule=rule, looks=LOOKS if rule is Rule.GROUP_SEQUENTIAL else None, **fields)


def of(hits: int, analysis: Analysis, metric: Metric = PAID, n: int = 5_000, **known: object) -> Result:
    """An experiment in which 500 of 5,000 did it, and ``hits`` of the treatment's."""
    sums = sealed({"paid": {"a": counted(n, 500 * n // 5_000), "b": counted(n, hits * n // 5_000)}})
    return judged(experiment(metric, analysis=analysis), sums, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_better_is_implemented(rule: Rule) -> None:
    decision = of(BETTER, by(rule)).decision
    assert (decision.verdict, decision.variant, decision.rule) == (Verdict.IMPLEMENT, "b", rule)
    assert decision.numbers


@pytest.mark.parametrize("rule", RULES)
def test_what_is_worse_is_rejected(rule: Rule) -> None:
    decision = of(WORSE, by(rule)).decision
    assert (decision.verdict, decision.variant, decision.rule) == (Verdict.REJECT, "b", rule)


@pytest.mark.parametrize("rule", RULES)
def test_the_direction_turns_it_round(rule: Rule) -> None:
    down = replace(PAID, direction=Direction.DECREASE)
    assert of(BETTER, by(rule), down).decision.verdict is Verdict.REJECT
    assert of(WORSE, by(rule), down).decision.verdict is Verdict.IMPLEMENT


@pytest.mark.parametrize("rule", [Rule.ALWAYS_VALID, Rule.BAYESIAN])
def test_what_is_not_certain_goes_on(rule: Rule) -> None:
    assert of(SLIGHT, by(rule)).decision.verdict is Verdict.CONTINUE


@pytest.mark.parametrize("rule", RULES)
def test_an_effect_that_is_not_worth_having(rule: Rule) -> None:
    """Certainly better by 40 %: not implemented where 60 % is wanted, and rejected where 200 % is."""
    some, much = (of(BETTER, by(rule), replace(PAID, minimal_effect=wanted)).decision for wanted in (0.6, 2.0))
    assert some.verdict is not Verdict.IMPLEMENT
    assert (much.verdict, much.numbers["minimal_effect"]) == (Verdict.REJECT, 2.0)


def test_the_chance_to_win_that_is_wanted() -> None:
    modest, strict = (of(SLIGHT, Analysis(rule=Rule.BAYESIAN, chance_to_win=wanted)).decision for wanted in (0.8, 0.999))
    assert (modest.verdict, strict.verdict) == (Verdict.IMPLEMENT, Verdict.CONTINUE)


def test_alpha_and_correction_decide() -> None:
    """A p-value of 0.013 (always valid: 0.15)."""
    fixed = [of(578, Analysis(rule=Rule.FIXED, alpha=alpha)).decision.verdict for alpha in (0.05, 0.001)]
    assert fixed == [Verdict.IMPLEMENT, Verdict.REJECT]
    crowd = [replace(PAID, name=f"m{number}", role=Role.SECONDARY) for number in range(20)]
    arms = {"a": counted(5_000, 500), "b": counted(5_000, 578)}
    verdicts = [
        judged(
            experiment(PAID, *crowd, analysis=Analysis(rule=Rule.FIXED, correction=correction)),
            sealed({"paid": arms} | {metric.name: {"a": counted(5_000, 500), "b": counted(5_000, 501)} for metric in crowd}),
        ).decision.verdict
        for correction in (Correction.NONE, Correction.HOLM)
    ]
    assert verdicts == [Verdict.IMPLEMENT, Verdict.REJECT]


def test_the_tuning_moves_where_the_sequence_is_narrowest() -> None:
    verdicts = [of(620, Analysis(tuning=tuning)).decision.verdict for tuning in (10_000.0, 1.0)]
    assert verdicts == [Verdict.IMPLEMENT, Verdict.CONTINUE]


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_decided_too_early(rule: Rule) -> None:
    soon = of(BETTER, by(rule, minimal_seconds=3_600.0), after_seconds=60.0).decision
    assert (soon.verdict, soon.rule, soon.numbers["run_seconds"]) == (Verdict.CONTINUE, "minimal_seconds", 60.0)
    few = of(BETTER, by(rule, minimal_units=6_000)).decision
    assert (few.verdict, few.rule, few.numbers["units"]) == (Verdict.CONTINUE, "minimal_units", 5_000.0)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_open_at_the_end_is_rejected(rule: Rule) -> None:
    late = of(SAME, by(rule, maximal_seconds=3_600.0), after_seconds=3_601.0).decision
    assert late.verdict is Verdict.REJECT
    few = of(BETTER, by(rule, minimal_units=6_000, maximal_seconds=3_600.0), after_seconds=3_601.0).decision
    assert (few.verdict, few.rule) == (Verdict.REJECT, "maximal_seconds")
    assert of(BETTER, by(rule, maximal_seconds=3_600.0), after_seconds=3_601.0).decision.verdict is Verdict.IMPLEMENT


def test_a_fixed_horizon_is_looked_at_once() -> None:
    """What its one look said stays, whatever comes; the other rules look again."""
    known = Known(plan=experiment(analysis=Analysis(rule=Rule.FIXED)))
    arms = [sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, hits)}}) for hits in (SLIGHT, BETTER)]
    first = judge(known, [arms[0]], Past(), later(10))
    second = judge(known, [arms[1]], first.past, later(20))
    assert first.result.decision.verdict is Verdict.REJECT
    assert "one look" in first.result.decision.reason
    assert second.result.decision == first.result.decision
    early = judge(Known(plan=experiment(analysis=Analysis(rule=Rule.FIXED, minimal_units=9_000))), [arms[0]], Past(), later(10))
    assert early.past.fixed is None
    other = judge(Known(plan=experiment()), [arms[1]], first.past, later(20))
    assert other.result.decision.verdict is Verdict.IMPLEMENT


def test_a_look_that_could_not_be_told_is_made_again() -> None:
    """No outcome had come at the first look: it was none."""
    known = Known(plan=experiment(analysis=Analysis(rule=Rule.FIXED)))
    first = judge(known, [sealed({"paid": {"a": counted(5_000, 0), "b": counted(5_000, 0)}})], Past(), later(10))
    assert (first.result.decision.verdict, first.past.fixed) == (Verdict.CONTINUE, None)
    second = judge(known, [sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, BETTER)}})], first.past, later(20))
    assert second.result.decision.verdict is Verdict.IMPLEMENT


def test_harm_rejects_whatever_is_won() -> None:
    sums = sealed(
        {"paid": {"a": counted(5_000, 500), "b": counted(5_000, BETTER)}, "errors": {"a": counted(5_000, 500), "b": counted(5_000, 900)}}
    )
    decision = judged(experiment(PAID, ERRORS), sums).decision
    assert (decision.verdict, decision.rule, decision.variant) == (Verdict.REJECT, "guardrail", "b")
    assert decision.numbers["bound"] > decision.numbers["limit"] == 0.1


def test_the_best_variant_that_harms_nothing_is_implemented() -> None:
    plan = experiment(PAID, ERRORS, variants=tuple(Variant(name=name) for name in "abcd"))
    paid = {"a": counted(5_000, 500), "b": counted(5_000, 900), "c": counted(5_000, 700), "d": counted(5_000, 750)}
    errors = {"a": counted(5_000, 500), "b": counted(5_000, 900), "c": counted(5_000, 500), "d": counted(5_000, 510)}
    decision = judged(plan, sealed({"paid": paid, "errors": errors})).decision
    assert (decision.verdict, decision.variant) == (Verdict.IMPLEMENT, "d")
    worse = dict.fromkeys("bcd", counted(5_000, 380)) | {"a": counted(5_000, 500)}
    assert judged(plan, sealed({"paid": worse, "errors": dict.fromkeys("abcd", errors["a"])})).decision.verdict is Verdict.REJECT


def test_a_win_that_costs_another_primary_metric_is_none() -> None:
    plan = experiment(PAID, replace(PAID, name="kept"))
    won, lost = ({"a": counted(5_000, 500), "b": counted(5_000, hits)} for hits in (BETTER, WORSE))
    decision = judged(plan, sealed({"paid": won, "kept": lost})).decision
    assert (decision.verdict, decision.variant) == (Verdict.REJECT, "b")
    assert "kept" in decision.reason


def test_secondary_metrics_do_not_decide() -> None:
    decision = of(BETTER, Analysis(), replace(PAID, role=Role.SECONDARY)).decision
    assert decision.verdict is Verdict.CONTINUE
    assert "no primary metric" in decision.reason


def test_ill_health_allows_no_conclusion() -> None:
    sums = sealed({"paid": {"a": counted(5_000, 500), "b": counted(6_000, 900)}})
    decision = judged(experiment(), sums).decision
    assert (decision.verdict, decision.rule) == (Verdict.INVALID, "health")
    assert "sample_ratio" in decision.reason


@pytest.mark.parametrize(("after", "verdict"), [(100.0, Verdict.CONTINUE), (60.0 + 8 * 86_400 + 3_600, Verdict.REJECT)])
def test_an_experiment_that_is_over_is_open_until_its_last_outcome_counted(after: float, verdict: Verdict) -> None:
    sums = sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, SLIGHT)}})
    result = judged(experiment(state=State.STOPPED), sums, after_seconds=after, ended=later(60))
    assert result.decision.verdict is verdict


def test_time_alone_changes_the_answer_at_known_moments() -> None:
    plan = experiment(analysis=Analysis(minimal_seconds=10.0, maximal_seconds=20.0, lateness_seconds=5.0))
    assert list(milestones(Known(plan=plan))) == [millis(10) + 1, millis(20) + 1]
    assert list(milestones(Known(plan=plan, ended=later(7)))) == [millis(7 + 8 * 86_400 + 5) + 1]
    assert run_seconds(Known(plan=plan, ended=later(7)), later(100)) == 7.0
    assert run_seconds(Known(plan=replace(plan, state=State.DRAFT, started=None)), later(100)) == 0.0


def millis(seconds: float) -> int:
    return round((START + timedelta(seconds=seconds)).timestamp() * 1_000)


def test_what_was_looked_at_belongs_to_its_rule() -> None:
    kept = Decision(verdict=Verdict.REJECT, rule=Rule.FIXED, reason="looked", variant="b")
    sums = sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, BETTER)}})
    assert judged(experiment(analysis=Analysis(rule=Rule.FIXED)), sums, past=Past(fixed=kept)).decision == kept
    assert judged(experiment(analysis=Analysis(rule=Rule.BAYESIAN)), sums, past=Past(fixed=kept)).decision != kept


@pytest.mark.parametrize("hits", [BETTER, WORSE])
def test_means_decide_nothing_where_a_policy_chooses_by_context(hits: int) -> None:
    """Each variant's mean is of the requests that its context gave it, whichever variant is better."""
    sums = sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, hits)}})
    learnt = Allocation(policy=Policy.LIN_TS, metric="paid", features={"hour": (0.0, 24.0)})
    result = judged(experiment(allocation=learnt, unit=Unit.REQUEST), sums)
    assert (result.decision.verdict, result.decision.variant) == (Verdict.CONTINUE, "")
    assert "millrace experiments ope" in result.decision.reason
    assert [finding.cause for finding in found(result, "adaptive")] == [result.decision.reason]
    plain = judged(experiment(allocation=Allocation(policy=Policy.THOMPSON, metric="paid"), unit=Unit.REQUEST), sums)
    assert plain.decision.verdict is not Verdict.CONTINUE
