"""Is what is said of a unit what the workers do with it, and is the reason the right one?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from millrace.schemas.experiment import Condition, Layer, Plan, RampStep, State, Test, Unit
from millrace.schemas.request import Request
from millrace.streams.assign import Experiment
from millrace.streams.buckets import bucket
from millrace.streams.eligible import GateName
from millrace.streams.explain import Explanation, explain
from tests.models import NOW, plan

ALL: dict[str, Any] = {
    "layer": Layer(name="page", low=0.2, high=0.9),
    "holdout": 0.2,
    "sample": 0.9,
    "ramp": (RampStep(at=NOW - timedelta(days=1), share=0.5),),
    "targeting": (Condition(field="country", test=Test.EQUALS, value="CH"),),
    "target_units": tuple(f"u-{i}" for i in range(40)),
    "overrides": {"u-1": "v1"},
}


def told(given: Plan, unit: str = "u-2", **fields: Any) -> Explanation:
    return explain(given, Request(id="r", unit_id=unit, **{"context": {"country": "CH"}, **fields}), NOW)


@pytest.mark.parametrize("country", ["CH", "DE"])
def test_the_explanation_agrees_with_the_assignment(country: str) -> None:
    given = plan(**ALL)
    taking = 0
    for i in range(60):
        request = Request(id=f"r-{i}", unit_id=f"u-{i}", context={"country": country})
        explanation = explain(given, request, NOW)
        (made,) = Experiment(given).assign([request], [request.unit_id.encode()], NOW)
        assert explanation.takes_part is (made is not None)
        assert (explanation.variant, explanation.propensity) == ((made.variant, made.propensity) if made else (None, None))
        assert explanation.takes_part is (explanation.overridden or all(gate.passed for gate in explanation.gates))
        taking += explanation.takes_part
    assert taking > 5 if country == "CH" else taking == 1


def test_every_gate_tells_its_bucket_and_range() -> None:
    gates = {gate.gate: gate for gate in told(plan(**ALL)).gates}
    assert list(gates) == [
        GateName.STATE, GateName.TARGET_UNITS, GateName.TARGETING, GateName.HOLDOUT, GateName.LAYER, GateName.SAMPLE
    ]  # fmt: skip
    ranges = {name: (gate.bucket, gate.low, gate.high) for name, gate in gates.items() if gate.bucket is not None}
    assert ranges == {
        GateName.HOLDOUT: (bucket(b"holdout:u-2"), 0.2, 1.0),
        GateName.LAYER: (bucket(b"layer:page:u-2"), 0.2, 0.9),
        GateName.SAMPLE: (bucket(b"exp-salt:sample:u-2"), 0.0, 0.45),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (plan(), "its variant bucket is 0."),
        (plan(state=State.PAUSED), "state: it does not hold that the experiment is running"),
        (plan(models=("m",)), "models: it does not hold that the request's model is one of m"),
        (plan(target_units=("x",)), "target_units: it does not hold that the unit is one of the 1 that are named"),
        (plan(targeting=(Condition(field="country", test=Test.EQUALS, value="DE"),)), "targeting: it does not hold that country equals DE"),
        (plan(sample=0.0), "is outside [0, 0)"),
        (plan(sample=0.0, overrides={"u-2": "v0"}), "the plan names its variant by hand"),
        (plan(models=("m",), overrides={"u-2": "v0"}), "models: it does not hold"),
        (plan(state=State.DRAFT, overrides={"u-2": "v0"}), "state: it does not hold that the experiment is running"),
    ],
)
def test_the_reason_is_the_first_that_holds(given: Plan, said: str) -> None:
    assert said in told(given).because


def test_a_request_is_explained_by_its_own_id() -> None:
    explanation = told(plan(unit=Unit.REQUEST))
    assert explanation.variant_bucket == bucket(b"exp-salt:variant:r")
    assert told(plan()).variant_bucket == bucket(b"exp-salt:variant:u-2")
