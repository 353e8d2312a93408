"""Does a policy's newest version deal for its plan, and is what it chose told by its own numbers?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.schemas.assignment import Assignment
from millrace.schemas.experiment import Allocation, Plan, Policy, Unit, Variant
from millrace.schemas.metric import Metric, Role
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.policy_state import ArmState, ContextualState, Feature, Method
from millrace.schemas.request import Request
from millrace.streams.assign import Assigner, derive
from millrace.streams.bandits.contextual import Contextual
from tests.models import NOW, control, decide, manifest, plan, route

REQUESTS = [Request(id=f"r-{i}", unit_id="u", context={"user": {"age": i % 60}, "hour": 0.5}) for i in range(2_000)]
METRICS = (Metric(name="paid", outcome="order", role=Role.PRIMARY),)
BANDIT = plan(unit=Unit.REQUEST, metrics=METRICS, allocation=Allocation(policy=Policy.THOMPSON, metric="paid"), weights=(1.0, 3.0))
CONTEXT = replace(BANDIT, allocation=Allocation(policy=Policy.SQUARE_CB, metric="paid", features={"user.age": (0, 60), "hour": (-1, 1)}))
STATE = ContextualState(
    method=Method.SQUARE_CB,
    features=(Feature(name="hour", low=-1.0, high=1.0), Feature(name="user.age", low=0.0, high=60.0)),
    arms=(ArmState(n=500, ready=True, coefficients=(3.0, 0.0, 3.0)), ArmState(n=500, ready=True, coefficients=(3.0, 0.0, 0.0))),
    exploration=20.0,
    floor=0.05,
)


def policy(version: int = 1, plan_version: int = 1, contextual: ContextualState | None = None, **weights: Any) -> PolicyVersion:
    raw = msgspec.Raw(msgspec.json.encode(contextual)) if contextual else msgspec.Raw(b"")
    weights = weights or {"v1": 0.1, "v0": 0.9}
    return PolicyVersion(
        experiment="exp", version=version, plan_version=plan_version, time=NOW, offsets={}, weights=weights, contextual=raw
    )


def assigned(assigner: Assigner, requests: list[Request] = REQUESTS) -> list[Assignment]:
    (experiment,) = assigner.running
    return [one for one in experiment.assign(requests, [b"u"] * len(requests), NOW) if one is not None]


def after(*events: Plan | PolicyVersion) -> Assigner:
    assigner = Assigner()
    for event in events:
        assert assigner.observe(event), event
    return assigner


def share(made: list[Assignment], variant: str = "v0") -> float:
    return sum(one.variant == variant for one in made) / len(made)


def test_before_any_policy_the_plans_weights_deal() -> None:
    made = assigned(after(BANDIT))
    assert {(one.policy_version, one.variant, one.propensity) for one in made} == {(0, "v0", 0.25), (0, "v1", 0.75)}
    assert all(one.propensities == one.features == {} and derive(BANDIT, one) for one in made)


@pytest.mark.parametrize("order", [(BANDIT, policy(3)), (policy(3), BANDIT)])
def test_a_policy_deals_by_its_weights_whichever_came_first(order: tuple[Plan | PolicyVersion, ...]) -> None:
    made = assigned(after(*order))
    assert {(one.policy_version, one.variant, one.propensity) for one in made} == {(3, "v0", 0.9), (3, "v1", 0.1)}
    assert all(one.propensities == {"v0": 0.9, "v1": 0.1} and derive(BANDIT, one) for one in made)
    assert abs(share(made) - 0.9) < 0.03


def test_only_a_newer_policy_is_taken() -> None:
    assigner = after(BANDIT, policy(3))
    assert not assigner.observe(policy(3, v0=0.5, v1=0.5))
    assert not assigner.observe(policy(2, v0=0.5, v1=0.5))
    assert assigned(assigner)[0].propensities == {"v0": 0.9, "v1": 0.1}
    assert assigner.observe(policy(4, v0=0.5, v1=0.5))
    assert assigned(assigner)[0].policy_version == 4


@pytest.mark.parametrize(
    "weights", [{"v0": 1.0}, {"v0": 0.5, "x": 0.5}, {"v0": -0.5, "v1": 1.0}, {"v0": 0.0, "v1": 0.0}, {"v0": float("nan"), "v1": 1.0}]
)
def test_weights_that_are_none_are_not_taken(weights: dict[str, Any]) -> None:
    assigner = after(BANDIT, policy(1))
    assert not assigner.observe(policy(2, **weights))
    assert assigned(assigner)[0].policy_version == 1


def test_a_policy_of_an_older_plan_is_used_as_long_as_its_variants_are_the_same() -> None:
    reworded = replace(BANDIT, version=2, hypothesis="another")
    assert assigned(after(BANDIT, policy(1), reworded))[0].policy_version == 1
    grown = replace(BANDIT, version=2, variants=(*BANDIT.variants, Variant(name="v2")))
    assigner = after(BANDIT, policy(1), grown)
    assert {one.policy_version for one in assigned(assigner)} == {0}
    assert assigner.observe(policy(2, plan_version=2, v0=0.2, v1=0.2, v2=0.6))
    assert {one.policy_version for one in assigned(assigner)} == {2}


def test_a_variant_that_the_plan_ended_is_given_to_nobody_whatever_an_older_policy_says() -> None:
    variants = tuple(Variant(name=name, weight=weight) for name, weight in (("v0", 1.0), ("v1", 0.0), ("v2", 1.0)))
    ended = replace(BANDIT, variants=variants)
    made = assigned(after(ended, policy(1, v0=0.25, v1=0.5, v2=0.25)))
    assert {(one.variant, one.propensity) for one in made} == {("v0", 0.5), ("v2", 0.5)}
    assert all(derive(ended, one) for one in made)


def test_a_plan_that_does_not_learn_takes_no_policy() -> None:
    fixed = plan()
    assert not after(fixed).observe(policy(1))
    assert {one.policy_version for one in assigned(after(policy(1), fixed))} == {0}


def test_each_request_has_the_chances_of_its_context() -> None:
    made = assigned(after(CONTEXT, policy(2, contextual=STATE)))
    chances = Contextual(STATE).probabilities([[0.5, i % 60] for i in range(len(REQUESTS))]).tolist()
    assert [[one.propensities["v0"], one.propensities["v1"]] for one in made] == chances
    assert all(one.propensity == one.propensities[one.variant] and one.policy_version == 2 for one in made)
    assert [one.features for one in made] == [{"user.age": float(i % 60), "hour": 0.5} for i in range(len(REQUESTS))]
    assert all(derive(CONTEXT, one) for one in made)
    assert (
        share([one for one in made if one.features["user.age"] > 40])
        > 0.8
        > 0.2
        > share([one for one in made if one.features["user.age"] < 20])
    )


@pytest.mark.parametrize("context", [{}, {"hour": 1}, {"user": {"age": "9"}, "hour": 1}, {"user": {"age": 9}, "hour": True}])
def test_a_request_without_a_feature_has_the_average_chances(context: dict[str, Any]) -> None:
    lacking = [Request(id=f"r-{i}", unit_id="u", context=context) for i in range(50)]
    made = assigned(after(CONTEXT, policy(2, contextual=STATE)), lacking)
    assert all(one.propensities == {"v0": 0.9, "v1": 0.1} and one.features == {} and one.policy_version == 2 for one in made)
    assert all(derive(CONTEXT, one) for one in made)


def test_features_are_logged_before_the_first_policy_because_it_is_learnt_from_them() -> None:
    made = assigned(after(CONTEXT))
    assert all(one.features["hour"] == 0.5 and one.policy_version == 0 and one.propensities == {} for one in made)
    assert all(one.features["hour"] == 0.5 and one.policy_version == 1 for one in assigned(after(CONTEXT, policy(1))))


@pytest.mark.parametrize(
    "state",
    [
        replace(STATE, features=STATE.features[::-1]),
        replace(STATE, features=(STATE.features[0], replace(STATE.features[1], high=61.0))),
        replace(STATE, arms=STATE.arms[:1]),
        replace(STATE, exploration=-1.0),
    ],
)
def test_coefficients_of_something_else_are_not_taken(state: ContextualState) -> None:
    assert not after(CONTEXT).observe(policy(1, contextual=state))


def test_a_tampered_assignment_does_not_follow() -> None:
    one = assigned(after(BANDIT, policy(1)))[0]
    other = "v0" if one.variant == "v1" else "v1"
    changes: tuple[dict[str, Any], ...] = (
        {"variant": other},
        {"bucket": one.bucket / 2},
        {"request_id": "x"},
        {"propensities": {}},
        {"propensities": {"v0": -1.0, "v1": 2.0}},
    )
    for fields in changes:
        assert not derive(BANDIT, replace(one, **fields))


def test_the_step_takes_policies_from_their_topic() -> None:
    step = decide(None, None, manifest(), route(), BANDIT, policy(1))
    assert not step.observe(control(policy(1)))
    assert step.observe(control(policy(2)))
