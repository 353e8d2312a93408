"""What the judge says of planted sums: estimates, correction, CUPED, harm, and what cannot be told."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.experiment import Analysis, Correction, NormalPrior, Unit, Variant
from millrace.schemas.metric import Direction, Metric, Role, Source
from millrace.schemas.result import Estimate, Harm, Result
from millrace.streams.judge.past import Past
from tests.judging import PAID, counted, experiment, found, judged, sealed, spread

ABSOLUTE = Analysis(difference="absolute")
ERRORS = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.1)


def estimate(result: Result, metric: int = 0, comparison: int = 0) -> Estimate:
    told = result.metrics[metric].comparisons[comparison].estimate
    assert isinstance(told, Estimate), told
    return told


def harm(result: Result, metric: int = 1) -> Harm:
    told = result.metrics[metric].comparisons[0].harm
    assert isinstance(told, Harm), told
    return told


def test_an_estimate_is_the_statistics_own() -> None:
    told = estimate(judged(experiment(analysis=ABSOLUTE), sealed({"paid": {"a": counted(10_000, 1_000), "b": counted(10_000, 1_200)}})))
    assert told.effect == pytest.approx(0.02)
    assert told.std_error == pytest.approx((0.1 * 0.9 / 10_000 + 0.12 * 0.88 / 10_000) ** 0.5)
    assert told.fixed.interval[0] < told.effect < told.fixed.interval[1]
    width = told.fixed.interval[1] - told.fixed.interval[0]
    assert told.always_valid.interval[1] - told.always_valid.interval[0] > 1.4 * width
    assert told.bayesian.chance_to_win > 0.99
    assert not told.adjusted


def test_partitions_add_up_in_any_order() -> None:
    parts = [
        sealed({"paid": {"a": counted(n, n // 10), "b": counted(n, n // 8)}}, partition=number)
        for number, n in enumerate((100, 2_000, 777))
    ]
    whole = sealed({"paid": {"a": counted(2_877, 287), "b": counted(2_877, 359)}})
    once, again, one = (judged(experiment(), *order) for order in (parts, parts[::-1], [whole]))
    assert once == again
    assert once.metrics == one.metrics
    assert once.offsets == {str(number): {"assignments": 10 + number, "outcomes-by-unit": 20} for number in range(3)}


def test_sums_of_another_definition_do_not_add() -> None:
    old = sealed({"paid": {"a": counted(5_000, 5_000), "b": counted(5_000, 0)}}, partition=0, digest="old", version=1)
    new = sealed({"paid": {"a": counted(1_000, 100), "b": counted(1_000, 110)}}, partition=1, digest="new", version=2)
    result = judged(experiment(), old, new)
    assert result.metrics[0].arms["a"].units == 1_000
    (finding,) = found(result, "definition")
    assert (finding.metric, finding.numbers) == ("paid", {"partitions": 1.0})
    assert "source partition 0" in finding.cause


def test_a_metric_without_sums_cannot_be_told() -> None:
    result = judged(experiment(PAID, replace(PAID, name="other")), sealed({"paid": {"a": counted(500, 50), "b": counted(500, 60)}}))
    comparison = result.metrics[1].comparisons[0]
    assert isinstance(comparison.estimate, CannotTell)
    assert "0 units" in comparison.estimate.reason


def test_a_quantile_is_left_to_reports() -> None:
    slow = Metric(name="p90", outcome="latency", kind=Kind.QUANTILE, quantile=0.9)
    result = judged(experiment(PAID, slow), sealed({"paid": {"a": counted(500, 50), "b": counted(500, 60)}}))
    assert result.metrics[1].arms["a"].units == 500
    told = result.metrics[1].comparisons[0].estimate
    assert isinstance(told, CannotTell)
    assert "report" in told.reason


def test_a_ratio_divides_the_sums() -> None:
    ratio = Metric(
        name="per-item",
        outcome="returned",
        kind=Kind.RATIO,
        role=Role.PRIMARY,
        resolution=1.0,
        denominator=Source(outcome="items", resolution=1.0),
    )
    n = 1_000
    arms = {name: Moments(n, total, total * 2, 2 * n, 4 * n + 500, 2 * total) for name, total in (("a", 400), ("b", 600))}
    result = judged(experiment(ratio, analysis=ABSOLUTE), sealed({"per-item": arms}))
    assert result.metrics[0].arms["b"].mean == pytest.approx(0.3)
    assert estimate(result).effect == pytest.approx(0.1)


@pytest.mark.parametrize("correction", list(Correction))
def test_the_family_is_corrected_and_guardrails_are_theirs(correction: Correction) -> None:
    """Two metrics and two treatments make four tests; the guardrail's two are a family of their own."""
    plan = experiment(
        PAID,
        replace(PAID, name="second", role=Role.SECONDARY),
        ERRORS,
        variants=(Variant(name="a"), Variant(name="b"), Variant(name="c")),
        analysis=Analysis(correction=correction, difference="absolute"),
    )
    hits = {"a": counted(5_000, 500), "b": counted(5_000, 570), "c": counted(5_000, 510)}
    result = judged(plan, sealed({"paid": hits, "second": hits, "errors": hits}))
    told = estimate(result)
    factor = {Correction.NONE: 1, Correction.BONFERRONI: 4, Correction.HOLM: 4, Correction.BENJAMINI_HOCHBERG: 2}[correction]
    assert told.fixed.adjusted_p_value == pytest.approx(factor * told.fixed.p_value)
    assert told.always_valid.adjusted_p_value == pytest.approx(min(1.0, factor * told.always_valid.p_value))
    level = told.fixed.level
    assert level is UNSET if correction is Correction.NONE else level == pytest.approx(0.05 / factor)
    guard = estimate(result, 2)
    assert guard.fixed.adjusted_p_value == pytest.approx(guard.fixed.p_value * (1 if correction is Correction.NONE else 2))


@pytest.mark.parametrize("hits", range(560, 760, 20))
def test_the_always_valid_interval_goes_with_its_corrected_p_value(hits: int) -> None:
    plan = experiment(PAID, replace(PAID, name="second"), analysis=Analysis(correction=Correction.BONFERRONI, difference="absolute"))
    arms = {"a": counted(5_000, 500), "b": counted(5_000, hits)}
    told = estimate(judged(plan, sealed({"paid": arms, "second": arms}))).always_valid
    assert told.adjusted_p_value is not None
    assert (told.adjusted_p_value <= 0.05) == (told.interval[0] > 0.0)


def test_a_covariate_narrows_the_interval() -> None:
    plain = Metric(name="spent", outcome="paid", role=Role.PRIMARY)
    n = 2_000
    arms = {
        name: Moments(n, mean * n, n * (mean * mean + 100), 0, 0, 0, 50 * n, n * (2_500 + 90), n * (50 * mean + 90))
        for name, mean in (("a", 50), ("b", 51))
    }
    known, unknown = (
        estimate(judged(experiment(replace(plain, covariate_days=days), analysis=ABSOLUTE), sealed({"spent": arms}))) for days in (14, 0)
    )
    assert known.adjusted
    assert not unknown.adjusted
    assert known.std_error < 0.4 * unknown.std_error
    assert not estimate(
        judged(experiment(replace(plain, covariate_days=14), analysis=ABSOLUTE, unit=Unit.REQUEST), sealed({"spent": arms}))
    ).adjusted


def test_a_prior_shrinks_the_lift() -> None:
    arms = sealed({"paid": {"a": counted(2_000, 200), "b": counted(2_000, 260)}})
    flat = estimate(judged(experiment(), arms)).bayesian
    firm = estimate(judged(experiment(analysis=Analysis(prior=NormalPrior(mean=0.0, variance=0.001))), arms)).bayesian
    assert 0.0 < firm.lift < 0.5 * flat.lift


def test_less_is_better_where_the_plan_says_so() -> None:
    arms = sealed({"paid": {"a": counted(2_000, 200), "b": counted(2_000, 260)}})
    up, down = (estimate(judged(experiment(replace(PAID, direction=way)), arms)).bayesian for way in Direction)
    assert up.chance_to_win == pytest.approx(1.0 - down.chance_to_win)
    assert up.risk == pytest.approx(down.risk[::-1])


def test_the_smallest_p_value_looks_back() -> None:
    arms = sealed({"paid": {"a": counted(500, 50), "b": counted(500, 51)}})
    told = estimate(judged(experiment(), arms, past=Past(smallest={"paid/b": 0.003})))
    assert told.always_valid.smallest_p_value == 0.003 < told.always_valid.p_value
    assert (
        estimate(judged(experiment(), arms, past=Past(smallest={"paid/other": 0.003}))).always_valid.smallest_p_value
        == told.always_valid.p_value
    )


def test_harm_beyond_the_limit_is_a_breach() -> None:
    plan = experiment(PAID, ERRORS)
    even = {"a": counted(5_000, 500), "b": counted(5_000, 500)}
    fine, harmful = (
        harm(judged(plan, sealed({"paid": even, "errors": {"a": counted(5_000, 500), "b": counted(5_000, hits)}}))) for hits in (560, 800)
    )
    assert not fine.breached
    assert fine.p_value > 0.05
    assert harmful.breached
    assert isinstance(harmful.bound, float)
    assert harmful.bound > harmful.limit == 0.1
    assert harmful.p_value < 0.05


def test_harm_is_against_the_direction() -> None:
    revenue = Metric(name="revenue", outcome="paid", role=Role.GUARDRAIL, limit=0.05)
    plan = experiment(PAID, revenue)
    even = {"a": counted(5_000, 500), "b": counted(5_000, 500)}
    less, more = (
        harm(judged(plan, sealed({"paid": even, "revenue": {"a": spread(5_000, 10.0), "b": spread(5_000, mean)}}))) for mean in (9.0, 11.0)
    )
    assert less.breached
    assert isinstance(less.bound, float)
    assert less.bound > 0.05
    assert not more.breached


def test_harm_is_found_where_the_control_never_failed() -> None:
    """A relative limit over a control of 0 has no lift, and needs none."""
    plan = experiment(PAID, ERRORS)
    even = {"a": counted(1_000, 100), "b": counted(1_000, 100)}
    rare, many = (
        harm(judged(plan, sealed({"paid": even, "errors": {"a": counted(1_000, 0), "b": counted(1_000, hits)}}))) for hits in (2, 60)
    )
    assert not rare.breached
    assert many.breached
    assert isinstance(many.bound, CannotTell)


def test_harm_is_not_told_of_a_handful_of_units() -> None:
    plan = experiment(PAID, ERRORS)
    result = judged(plan, sealed({name: {"a": counted(20, 0), "b": counted(20, 20)} for name in ("paid", "errors")}))
    told = result.metrics[1].comparisons[0].harm
    assert isinstance(told, CannotTell)
    assert "20 units" in told.reason


def test_guardrails_share_their_level() -> None:
    """What one guardrail alone would call a breach, one of forty does not."""
    hits = {"a": counted(5_000, 500), "b": counted(5_000, 690)}
    many = [replace(ERRORS, name=f"g{number}") for number in range(40)]
    alone = judged(experiment(PAID, ERRORS), sealed({"paid": hits, "errors": hits}))
    crowd = judged(experiment(PAID, *many), sealed({"paid": hits} | {metric.name: hits for metric in many}))
    free = judged(
        experiment(PAID, *many, analysis=Analysis(correction=Correction.NONE)),
        sealed({"paid": hits} | {metric.name: hits for metric in many}),
    )
    assert [harm(one).breached for one in (alone, crowd, free)] == [True, False, True]
