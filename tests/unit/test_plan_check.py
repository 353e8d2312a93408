"""Which plans are refused, and whether each refusal names the field and says what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.schemas.errors import Never, UsageError
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import (
    Allocation,
    Analysis,
    Condition,
    Layer,
    Looks,
    Policy,
    RampStep,
    Rule,
    Span,
    State,
    Test,
    Unit,
    Variant,
)
from millrace.schemas.metric import Aggregation, Direction, Metric, Role, Source
from millrace.streams.plan_check import check, check_layer
from millrace.streams.plan_warnings import changed_analysis, warnings
from tests.models import NOW, plan

PAID = Metric(name="paid", outcome="order", role=Role.PRIMARY)
SLOW = Metric(name="slow", outcome="s", kind=Kind.QUANTILE)
THOMPSON = Allocation(policy=Policy.THOMPSON, metric="paid")
LIN_TS = replace(THOMPSON, policy=Policy.LIN_TS, features={"a": (0.0, 24.0)})
LATER = NOW + timedelta(hours=1)


def measured(**fields: Any) -> dict[str, Any]:
    """A plan's one metric."""
    return {"metrics": (replace(PAID, **fields),)}


def learning(allocation: Allocation = THOMPSON, metric: Metric = PAID, **fields: Any) -> dict[str, Any]:
    return {"allocation": allocation, "metrics": (metric,), "unit": Unit.REQUEST, **fields}


GOOD = (
    measured(),
    measured(kind=Kind.RATIO, denominator=Source(outcome="visit", aggregation=Aggregation.COUNT)),
    measured(covariate_days=14, aggregation=Aggregation.MAX),
    measured(kind=Kind.PROPORTION, covariate_days=14),
    {
        "metrics": (
            PAID,
            replace(SLOW, quantile=0.9),
            Metric(name="g", outcome="g", role=Role.GUARDRAIL, limit=0.1),
        )
    },
    learning(),
    learning(LIN_TS),
    learning(replace(LIN_TS, exploration=2.0)),
    learning(replace(THOMPSON, policy=Policy.EPSILON_GREEDY, epsilon=0.2)),
    {"analysis": Analysis(rule=Rule.BAYESIAN, chance_to_win=0.9)},
    learning(metric=replace(PAID, direction=Direction.DECREASE)),
    learning(replace(THOMPSON, policy=Policy.CUSTOM, entry_point="mine")),
    {"ramp": (RampStep(at=NOW, share=0.1), RampStep(at=LATER, share=0.1))},
    {"segments": {"country": ("DE",)}, "layer": Layer(name="page", low=0.1, high=0.2), "holdout": 0.05},
    {"targeting": (Condition(field="v", test=Test.VERSION, value=["1.2", None]),)},
)


@pytest.mark.parametrize("fields", GOOD)
def test_a_good_plan_is_accepted(fields: dict[str, Any]) -> None:
    check(plan(**fields))


REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"weights": (0.0, 0.0)}, "variants", "one of them above 0"),
    ({"variants": (Variant(name="a"), Variant(name="a"))}, "variants", "name each variant once"),
    ({"weights": (float("inf"), 1.0)}, "variants[0].weight", "write a finite one"),
    ({"analysis": Analysis(tuning=float("inf"))}, "analysis.tuning", "write a finite one"),
    ({"analysis": Analysis(lateness_seconds=1e303)}, "analysis.lateness_seconds", "ten years at most"),
    (measured(window_seconds=1e303), "metrics[0].window_seconds", "a microsecond to ten years"),
    (measured(window_seconds=1e-7), "metrics[0].window_seconds", "a microsecond to ten years"),
    ({"overrides": {"u": "nobody"}}, "overrides", "none of v0, v1"),
    ({"targeting": (Condition(field="x", test=Test.IN, value="CH"),)}, "targeting[0]", "needs a list of values"),
    ({"targeting": (Condition(field="x", test=Test.VERSION, value=["1.x", None]),)}, "targeting[0]", "two versions such as"),
    ({"targeting": (Condition(field="x", test=Test.VERSION, value=[1.2, None]),)}, "targeting[0]", "two versions such as"),
    ({"targeting": (Condition(field="x", test=Test.NOT_IN, value=[]),)}, "targeting[0]", "name one, or leave it out"),
    ({"targeting": (Condition(field="x", test=Test.RANGE, value=[2, 2.0]),)}, "targeting[0]", "low, 2, must be below high, 2.0"),
    ({"targeting": (Condition(field="x", test=Test.VERSION, value=["1.10", "1.9"]),)}, "targeting[0]", "must be below high, 1.9"),
    ({"layer": Layer(name="page", low=0.5, high=0.5)}, "layer", "`low` must be below `high`"),
    ({"holdout": 1.0}, "holdout", "state a share below 1"),
    ({"target_units": ("u", "u")}, "target_units", "name each unit once"),
    ({"ramp": (RampStep(at=LATER, share=0.1), RampStep(at=NOW, share=0.2))}, "ramp[1].at", "order the steps by time"),
    ({"ramp": (RampStep(at=NOW, share=0.1), RampStep(at=NOW, share=0.2))}, "ramp[1].at", "order the steps by time"),
    ({"ramp": (RampStep(at=NOW, share=0.2), RampStep(at=LATER, share=0.1))}, "ramp[1].share", "a ramp may only grow"),
    ({"segments": {f"f{i}": ("a",) for i in range(6)}}, "segments", "name 5 at most"),
    ({"segments": {"f": tuple(map(str, range(21)))}}, "segments['f']", "name 1 to 20"),
    ({"segments": {"f": ()}}, "segments['f']", "name 1 to 20"),
    (
        {"segments": {f"f{i}": tuple(map(str, range(20))) for i in range(5)}, "variants": tuple(Variant(name=f"v{i}") for i in range(19))},
        "segments",
        "are 2109 arms; 2000 fit",
    ),
    ({"segments": {"f": ("other",)}}, "segments['f']", "neither 'other' nor 'none'"),
    ({"segments": {"f=g": ("a",)}}, "segments['f=g']", "nor contain | or ="),
    ({"spans": (Span(low=0.0, high=0.5, variant="v0"),)}, "spans", "leave them to"),
    ({"spans": (Span(low=0.0, high=1.0, variant="x"),)}, "spans", "leave them to"),
    ({"metrics": (PAID, PAID)}, "metrics", "name each metric once"),
    (measured(role=Role.SECONDARY), "metrics", 'role = "primary"'),
    (measured(kind=Kind.RATIO), "metrics[0].denominator", "name what it divides by"),
    (measured(denominator=Source(outcome="x")), "metrics[0].denominator", "take kind ratio"),
    (measured(kind=Kind.PROPORTION, aggregation=Aggregation.MAX), "metrics[0].aggregation", "take kind mean"),
    (measured(kind=Kind.PROPORTION, cap=1.0), "metrics[0].cap", "take kind mean"),
    (measured(kind=Kind.QUANTILE), "metrics[0].role", "make it secondary"),
    (measured(kind=Kind.RATIO, denominator=Source(outcome="x"), covariate_days=7), "metrics[0].covariate_days", "leave it out"),
    *(
        (measured(aggregation=aggregation, covariate_days=7), "metrics[0].covariate_days", "leave it out")
        for aggregation in (Aggregation.FIRST, Aggregation.LAST, Aggregation.UNIQUE)
    ),
    ({**measured(covariate_days=7), "unit": Unit.REQUEST}, "metrics[0].covariate_days", "randomise units"),
    ({"metrics": (PAID, Metric(name="q", outcome="s", kind=Kind.QUANTILE, covariate_days=1))}, "metrics[1].covariate_days", "leave it out"),
    (measured(resolution=1.0, cap=0.5), "metrics[0].cap", "raise it"),
    (
        measured(kind=Kind.RATIO, denominator=Source(outcome="x", aggregation=Aggregation.COUNT, cap=0.5)),
        "metrics[0].denominator.cap",
        "raise it",
    ),
    (measured(quantile=0.9), "metrics[0].quantile", "take kind quantile"),
    ({"metrics": (PAID, replace(SLOW, cap=3.0))}, "metrics[1].cap", "leave it out"),
    ({"metrics": (PAID, replace(SLOW, aggregation=Aggregation.MAX))}, "metrics[1].aggregation", "leave it out"),
    (measured(aggregation=Aggregation.COUNT, resolution=0.01), "metrics[0].resolution", "take another aggregation"),
    (measured(limit=0.1), "metrics[0].limit", "make it a guardrail"),
    (learning(unit=Unit.UNIT), "unit", 'unit = "request"'),
    (learning(weights=(1.0,)), "variants", "fewer than two variants"),
    (learning(replace(THOMPSON, metric="x")), "allocation.metric", "there are: paid"),
    (learning(metric=replace(PAID, kind=Kind.RATIO, denominator=Source(outcome="x"))), "allocation.metric", "a mean or a proportion"),
    (learning(replace(THOMPSON, floor=0.34), weights=(1.0, 1.0, 1.0)), "allocation.floor", "state less than 0.3333"),
    (learning(replace(LIN_TS, features={})), "allocation.features", "1 to 16 numbers"),
    (learning(replace(LIN_TS, features={f"f{i}": (0.0, 1.0) for i in range(17)})), "allocation.features", "17 are named"),
    (learning(replace(LIN_TS, features={"": (0.0, 1.0)})), "allocation.features", "name a field of the context"),
    (learning(replace(LIN_TS, features={"a": (24.0, 0.0)})), "allocation.features['a']", "write [low, high]"),
    (learning(replace(LIN_TS, features={"a": (1.0, 1.0)})), "allocation.features['a']", "write [low, high]"),
    (learning(replace(LIN_TS, features={"a": (-1e308, 1e308)})), "allocation.features['a']", "write [low, high]"),
    (learning(replace(LIN_TS, features={"a": (0.0, float("inf"))})), "allocation.features['a'][1]", "write a finite one"),
    (learning(replace(THOMPSON, features={"a": (0.0, 1.0)})), "allocation.features", "take a contextual policy"),
    (learning(replace(THOMPSON, policy=Policy.CUSTOM)), "allocation.entry_point", "millrace.policies"),
    (learning(replace(THOMPSON, entry_point="x")), "allocation.entry_point", "take the policy custom"),
    (learning(replace(THOMPSON, epsilon=0.2)), "allocation.epsilon", "take an epsilon-greedy policy"),
    (learning(replace(THOMPSON, exploration=2.0)), "allocation.exploration", "take lin_ts, square_cb, ucb"),
    ({"analysis": Analysis(chance_to_win=0.9)}, "analysis.chance_to_win", 'write rule = "bayesian"'),
    ({"analysis": Analysis(minimal_seconds=10, maximal_seconds=10)}, "analysis.maximal_seconds", "nothing could be decided"),
    ({"analysis": Analysis(stop_on_harm=True), **measured()}, "analysis.stop_on_harm", "add one, or leave it out"),
)


@pytest.mark.parametrize(("fields", "field", "remedy"), REFUSED, ids=lambda part: part if isinstance(part, str) else "")
def test_what_is_refused_is_named_with_what_to_do(fields: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(Never, match=r"^experiment 'exp' version 1: ") as error:
        check(plan(**fields))
    assert f"`{field}`: " in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("layer", "state", "free"),
    [
        (Layer(name="page", low=0.5, high=0.8), State.RUNNING, True),
        (Layer(name="page", low=0.4, high=0.8), State.RUNNING, False),
        (Layer(name="page", low=0.4, high=0.8), State.PAUSED, False),
        (Layer(name="page", low=0.4, high=0.8), State.DRAFT, True),
        (Layer(name="page", low=0.4, high=0.8), State.STOPPED, True),
        (Layer(name="price", low=0.4, high=0.8), State.RUNNING, True),
        (None, State.RUNNING, True),
    ],
)
def test_a_range_that_another_experiment_holds_is_refused(layer: Layer | None, state: State, free: bool) -> None:
    mine, other = plan("mine", layer=Layer(name="page", low=0.0, high=0.5)), plan("other", state=state, layer=layer)
    if free:
        check_layer(mine, [mine, other])
    else:
        with pytest.raises(UsageError, match=r"`layer`.*\[0, 0.5\).*overlaps \[0.4, 0.8\) of other.*take a free range, or stop other"):
            check_layer(mine, [mine, other])


def planned(**looks: Any) -> Analysis:
    return Analysis(rule=Rule.GROUP_SEQUENTIAL, looks=Looks(**looks))


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        (Analysis(rule=Rule.GROUP_SEQUENTIAL), r"`analysis.looks`: the rule group_sequential looks when planned: write"),
        (Analysis(looks=Looks(units=100)), r"`analysis.looks`: the rule always_valid plans no looks: leave them out"),
        (planned(units=100, fractions=()), r"`analysis.looks.fractions`: name 1 to 50 shares"),
        (planned(units=100, fractions=(0.5, 0.9)), r"`analysis.looks.fractions`: .* the last is 1"),
        (planned(units=100, fractions=(0.5, 0.5, 1.0)), r"`analysis.looks.fractions`: each must be at least 0.001 above"),
        (planned(units=100, fractions=(0.0005, 1.0)), r"`analysis.looks.fractions`: each must be at least 0.001 above"),
    ],
)
def test_looks_that_cannot_be_are_refused(analysis: Analysis, said: str) -> None:
    check(plan(analysis=planned(units=20_000)))
    with pytest.raises(Never, match=said):
        check(plan(analysis=analysis))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "`metrics`: there are none"),
        ({**measured(covariate_days=14), "created": NOW}, "complete for units exposed from 2023-11-29 on"),
        ({**measured(), "weights": (1.0, 0.0)}, "v1 has the weight 0"),
        ({**measured(), "weights": (1.0,)}, "nothing to compare"),
        ({**measured(), "sample": 0.0}, "`sample`: 0 lets nobody take part"),
        ({**measured(), "unit": Unit.REQUEST}, "may meet several"),
        (learning(replace(THOMPSON, floor=0.0)), "`allocation.floor`"),
        (learning(replace(LIN_TS, minimal_units=1)), "`allocation.minimal_units`: 1 requests of a variant do not tell 2 coefficients"),
        ({**measured(), "analysis": Analysis(rule=Rule.FIXED)}, "`analysis.minimal_seconds`"),
        ({**measured(), "analysis": planned(units=300)}, "`analysis.looks`: the first look, at 75 units, waits"),
    ],
)
def test_what_may_not_be_meant_is_told(fields: dict[str, Any], said: str) -> None:
    given = plan(**fields)
    check(given)
    assert any(said in sentence for sentence in warnings(given))


def test_a_plain_plan_with_a_metric_is_told_of_nothing() -> None:
    assert warnings(plan(**measured())) == []


def test_an_analysis_that_changes_after_the_start_is_told() -> None:
    old, new = plan(analysis=Analysis()), plan(analysis=Analysis(alpha=0.1))
    assert [sentence.split(":")[0] for sentence in changed_analysis(old, new)] == ["`analysis.alpha`"]
