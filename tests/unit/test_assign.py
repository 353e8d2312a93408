"""Does a plan give out its variants as it says?"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.schemas.errors import Never
from millrace.schemas.experiment import Condition, Test, Variant
from millrace.streams.assign import Experiment, derive
from millrace.streams.plan_check import can_assign, check
from millrace.streams.target import predicate
from tests.models import NOW, least, plan, request


def assign(given: Any, *values: dict[str, Any]) -> list[Any]:
    requests = [request(value).event for value in values]
    return Experiment(given).assign(requests, [one.unit_id.encode() for one in requests], NOW)


def where(field: str, test: Test, value: Any) -> Condition:
    return Condition(field=field, test=test, value=value)


def test_an_assignment_says_what_was_given_and_with_which_chance() -> None:
    (one,) = assign(plan(weights=(1.0, 3.0)), least(7))
    assert (one.request_id, one.unit_id, one.experiment, one.plan_version, one.time) == ("r-7", "u-7", "exp", 1, NOW)
    assert one.propensity == {"v0": 0.25, "v1": 0.75}[one.variant]
    assert (one.variant == "v0") == (one.bucket < 0.25)
    assert (one.exposed, one.override, one.model) == (True, False, None)


def test_a_weight_of_nothing_is_never_given() -> None:
    given = assign(plan(weights=(0.0, 1.0, 0.0)), *(least(i) for i in range(200)))
    assert {(one.variant, one.propensity) for one in given} == {("v1", 1.0)}


def test_overrides_stand_above_sample_and_targeting() -> None:
    given = plan(overrides={"u-1": "v1"}, sample=0.0, targeting=(where("country", Test.EQUALS, "CH"),))
    assert [one and (one.variant, one.override, one.propensity) for one in assign(given, least(0), least(1))] == [None, ("v1", True, 1.0)]


def test_an_override_carries_the_model_of_its_variant() -> None:
    given = plan(variants=(Variant(name="a"), Variant(name="b", model="n")), overrides={"u-0": "b"})
    assert assign(given, least(0))[0].model == "n"


def test_sample_bounds_who_takes_part() -> None:
    assert assign(plan(sample=0.0), *(least(i) for i in range(50))) == [None] * 50
    assert None not in assign(plan(sample=1.0), *(least(i) for i in range(50)))


CONTEXT = {"country": "CH", "age": 30, "paid": True, "tags": ["a"], "user": {"tier": "gold"}}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (where("country", Test.EQUALS, "CH"), True),
        (where("country", Test.EQUALS, "DE"), False),
        (where("age", Test.EQUALS, 30.0), True),
        (where("paid", Test.EQUALS, 1), False),
        (where("paid", Test.EQUALS, True), True),
        (where("tags", Test.EQUALS, ["a"]), True),
        (where("absent", Test.EQUALS, None), True),
        (where("country", Test.NOT_EQUALS, "DE"), True),
        (where("absent", Test.NOT_EQUALS, "DE"), True),
        (where("country", Test.IN, ["DE", "CH"]), True),
        (where("tags", Test.IN, [["b"], ["a"]]), True),
        (where("absent", Test.IN, ["DE"]), False),
        (where("country", Test.NOT_IN, ["DE"]), True),
        (where("country", Test.NOT_IN, ["CH"]), False),
        (where("age", Test.RANGE, [30, 31]), True),
        (where("age", Test.RANGE, [29, 30]), False),
        (where("age", Test.RANGE, [None, 31]), True),
        (where("age", Test.RANGE, [31, None]), False),
        (where("paid", Test.RANGE, [0, 2]), False),
        (where("country", Test.RANGE, [0, 2]), False),
        (where("user.tier", Test.EQUALS, "gold"), True),
        (where("country.tier", Test.EQUALS, "gold"), False),
    ],
)
def test_targeting_by_context(condition: Condition, holds: bool) -> None:
    assert predicate(condition)(CONTEXT) is holds
    assert (assign(plan(targeting=(condition,)), least(context=CONTEXT))[0] is not None) is holds


def test_all_conditions_must_hold() -> None:
    both = (where("country", Test.EQUALS, "CH"), where("age", Test.RANGE, [40, None]))
    assert assign(plan(targeting=both), least(context=CONTEXT)) == [None]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"weights": (0.0, 0.0)}, "one of them above 0"),
        ({"weights": (float("inf"), 1.0)}, "`variants[0].weight`: inf"),
        ({"variants": (Variant(name="a"), Variant(name="a"))}, "two variants have one name"),
        ({"overrides": {"u": "nobody"}}, "'nobody', which is none of v0, v1"),
        ({"targeting": (where("x", Test.IN, "CH"),)}, "needs a list of values"),
        ({"targeting": (where("x", Test.RANGE, [1]),)}, "two numbers"),
        ({"targeting": (where("x", Test.RANGE, [True, 2]),)}, "two numbers"),
    ],
)
def test_a_plan_that_means_nothing_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Never, match="experiment 'exp' version 1") as error:
        check(plan(**fields))
    assert says in str(error.value)


def test_nothing_follows_from_a_plan_that_cannot_assign() -> None:
    good = plan()
    (one,) = assign(good, least(7))
    assert derive(good, one)
    for bad in (plan(weights=(0.0, 0.0)), replace(good, variants=good.variants[:1] * 2), replace(good, sample=0.5, holdout=1.0)):
        assert not derive(bad, one)
        assert not can_assign(bad)
