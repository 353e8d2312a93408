"""Every finding of the judge, planted: what was wrong is found, with its cause, and what was not is left alone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Allocation, Policy, State, Unit, Variant
from millrace.schemas.metric import Metric, Role
from millrace.schemas.moments import Arm
from millrace.schemas.result import Result, Severity, Verdict
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known, Plans, shares
from millrace.streams.judge.past import Past
from tests.judging import PAID, counted, experiment, found, judged, later, sealed, seen, spread


def with_arms(a: Arm, b: Arm, **known: object) -> Result:
    sums = {"paid": {"a": counted(a.units, a.units // 10), "b": counted(b.units, b.units // 10)}}
    return judged(known.pop("plan", experiment()), sealed(sums, {"a": a, "b": b}), **known)  # type: ignore[arg-type]


def test_a_healthy_experiment_has_no_finding() -> None:
    assert with_arms(seen(10_000), seen(10_050)).health == ()


def test_a_sample_ratio_mismatch_makes_it_invalid() -> None:
    result = with_arms(seen(10_000), seen(11_000))
    (finding,) = found(result, "sample_ratio")
    assert finding.severity is Severity.INVALID
    assert "at assignment already" in finding.cause
    assert finding.numbers["smallest_p_value"] < 0.001
    assert result.decision.verdict is Verdict.INVALID
    assert result.health[0] == finding


def test_units_follow_weights_or_spans() -> None:
    plan = experiment(variants=(Variant(name="a", weight=1.0), Variant(name="b", weight=3.0)))
    assert found(with_arms(seen(5_000), seen(15_000), plan=plan), "sample_ratio") == []
    assert found(with_arms(seen(10_000), seen(10_000), plan=plan), "sample_ratio") != []
    assert shares(plan) == {"a": 0.25, "b": 0.75}


def test_what_was_found_once_stays_found() -> None:
    """The running maximum of the evidence counts: later units dilute a mismatch, they do not mend it."""
    early = judge(Known(plan=experiment()), [sealed({"paid": {"a": counted(10_000, 0), "b": counted(11_000, 0)}})], Past(), later(1))
    assert early.past.ratio_log > 6.9
    late = with_arms(seen(100_000), seen(100_500), past=early.past)
    (finding,) = found(late, "sample_ratio")
    assert finding.numbers["largest_log_bayes_factor"] == early.past.ratio_log > finding.numbers["log_bayes_factor"]


def test_pearson_counts_once_it_is_over() -> None:
    """A deviation of 4.2 standard errors: not enough for a test that may look at every second, enough for one look at the end."""
    a, b = seen(20_000), seen(20_840)
    assert found(with_arms(a, b), "sample_ratio") == []
    over = with_arms(a, b, plan=experiment(state=State.STOPPED), ended=later(10))
    (finding,) = found(over, "sample_ratio")
    assert finding.numbers["pearson_p_value"] < 0.001 < finding.numbers["smallest_p_value"]


def test_a_mismatch_from_lost_exposures() -> None:
    result = with_arms(seen(10_000), seen(8_800, assigned=10_000))
    (finding,) = found(result, "sample_ratio")
    assert "88.0% of the units assigned to b were exposed, 100.0% of a's" in finding.cause
    (loss,) = found(result, "exposure_loss")
    assert (loss.severity, loss.variant) == (Severity.WARNING, "b")


def test_a_mismatch_from_assignments_that_do_not_derive() -> None:
    result = with_arms(seen(10_000), seen(11_500, underived=1_500))
    (finding,) = found(result, "sample_ratio")
    assert "1500 of 21500 assignment records do not follow" in finding.cause
    (underived,) = found(result, "underived")
    assert underived.numbers == {"underived": 1_500.0, "assignments": 11_500.0}


def test_a_few_assignments_that_do_not_derive_explain_no_large_mismatch() -> None:
    result = with_arms(seen(10_000, underived=3), seen(8_800, assigned=10_000))
    (finding,) = found(result, "sample_ratio")
    assert "88.0% of the units assigned to b were exposed" in finding.cause
    assert [one.variant for one in found(result, "underived")] == ["a"]


def test_a_mismatch_from_units_in_two_arms() -> None:
    result = with_arms(seen(10_000), seen(10_000, multiple=1_000))
    (finding,) = found(result, "sample_ratio")
    assert "met another variant and are left out" in finding.cause
    assert [one.severity for one in found(result, "multiple_exposures")] == [Severity.WARNING]
    assert found(result, "multiple_unevenly") != []


def test_a_mismatch_in_one_segment_is_named() -> None:
    a = seen(10_000, segments={"country=DE": 5_000, "country=FR": 5_000})
    b = seen(8_500, segments={"country=DE": 5_000, "country=FR": 3_500})
    (finding,) = found(with_arms(a, b), "sample_ratio")
    assert "in the segment country=FR" in finding.cause
    assert finding.numbers["segment_share"] > 0.99


def test_a_mismatch_all_over_names_no_segment() -> None:
    keys = [f"country={number}" for number in range(10)]
    a, b = (seen(n, segments=dict.fromkeys(keys, n // 10)) for n in (10_000, 8_500))
    (finding,) = found(with_arms(a, b), "sample_ratio")
    assert "segment" not in finding.cause


def test_outcomes_that_one_arm_has_late() -> None:
    odd = with_arms(seen(10_000, outcomes=20_000), seen(10_000, outcomes=18_000, late=2_000))
    assert [one.variant for one in found(odd, "late_unevenly")] == ["b"]


def test_learnt_weights_are_not_tested_and_said_so() -> None:
    plan = experiment(allocation=Allocation(policy=Policy.THOMPSON, metric="paid"), unit=Unit.REQUEST)
    result = with_arms(seen(1_000), seen(19_000), plan=plan)
    (finding,) = found(result, "sample_ratio")
    assert (finding.severity, result.decision.verdict) != (Severity.INVALID, Verdict.INVALID)
    assert "learnt" in finding.cause
    assert found(result, "adaptive") != []


def test_changed_weights_are_not_tested_and_said_so() -> None:
    (finding,) = found(with_arms(seen(1_000), seen(9_000), reweighted=True), "sample_ratio")
    assert finding.severity is Severity.WARNING
    plans, drafted = Plans(), experiment(state=State.DRAFT)
    other = (Variant(name="a", weight=3.0), Variant(name="b"))
    for version, plan in enumerate((drafted, replace(drafted, variants=other), replace(drafted, variants=other, state=State.RUNNING)), 1):
        assert plans.observe(replace(plan, version=version))
    known = plans.get("e")
    assert known is not None
    assert not known.reweighted
    assert plans.observe(replace(known.plan, version=4, variants=drafted.variants))
    known = plans.get("e")
    assert known is not None
    assert known.reweighted
    assert not plans.observe(known.plan)


def test_units_of_an_arm_without_weight() -> None:
    plan = experiment(variants=(Variant(name="a"), Variant(name="b"), Variant(name="c", weight=0.0)))
    sums = sealed({"paid": {"a": counted(5_000, 5), "b": counted(5_000, 5), "c": counted(7, 0)}})
    (finding,) = found(judged(plan, sums), "unintended_arm")
    assert (finding.variant, finding.numbers) == ("c", {"units": 7.0})


def test_arms_that_differed_before() -> None:
    spent = Metric(name="spent", outcome="paid", role=Role.PRIMARY, covariate_days=14)
    biased, fair = (
        judged(experiment(spent), sealed({"spent": {"a": spread(5_000, 10.0, covariate=8.0), "b": spread(5_000, 10.1, covariate=before)}}))
        for before in (8.3, 8.01)
    )
    (finding,) = found(biased, "pre_exposure_bias")
    assert (finding.variant, finding.metric) == ("b", "spent")
    assert finding.numbers["difference"] == pytest.approx(0.3)
    assert found(fair, "pre_exposure_bias") == []


@pytest.mark.parametrize(("share", "severity"), [(0.005, None), (0.05, Severity.WARNING), (0.2, Severity.INVALID)])
def test_units_that_met_two_variants(share: float, severity: Severity | None) -> None:
    arm = seen(10_000, multiple=round(10_000 * share))
    assert [one.severity for one in found(with_arms(arm, arm), "multiple_exposures")] == ([severity] if severity else [])


def test_too_few_units() -> None:
    findings = found(with_arms(seen(120), seen(80)), "too_few_units")
    assert [(one.variant, one.severity) for one in findings] == [("b", Severity.NOTE)]


def test_a_metric_that_does_not_vary() -> None:
    result = judged(experiment(), sealed({"paid": {"a": counted(5_000, 0), "b": counted(5_000, 0)}}))
    (finding,) = found(result, "no_variance")
    assert (finding.metric, finding.variant) == ("paid", "b")
    assert "'paid'" in finding.cause


@pytest.mark.parametrize(("late", "expected"), [(200, 0), (2_000, 1)])
def test_outcomes_that_came_too_late(late: int, expected: int) -> None:
    arm = seen(10_000, outcomes=10_000, late=late)
    result = with_arms(arm, arm)
    assert (len(found(result, "late")), result.late) == (expected, 2 * late)


def test_doubled_outcomes() -> None:
    arm = seen(10_000, outcomes=10_000, duplicates=3_000)
    assert [one.severity for one in found(with_arms(arm, arm), "duplicates")] == [Severity.NOTE]


def simpson(*, turned: bool) -> Result:
    """Two countries in each of which b is better; turned, b has most of its units where everyone pays little."""
    few, many = (1_000, 9_000) if turned else (5_000, 5_000)
    sums = {
        "a|country=DE": counted(many, many * 5 // 10),
        "a|country=FR": counted(few, few // 10),
        "b|country=DE": counted(few, few * 6 // 10),
        "b|country=FR": counted(many, many * 16 // 100),
    }
    whole = {arm: sums[f"{arm}|country=DE"] + sums[f"{arm}|country=FR"] for arm in ("a", "b")}
    plan = experiment(replace(PAID, kind=Kind.PROPORTION), segments={"country": ("DE", "FR")})
    return judged(plan, sealed({"paid": whole | sums}))


def test_simpsons_reversal() -> None:
    (finding,) = found(simpson(turned=True), "simpson")
    assert (finding.metric, finding.variant) == ("paid", "b")
    assert finding.numbers["overall"] < 0 < finding.numbers["country=DE"]
    assert found(simpson(turned=False), "simpson") == []
