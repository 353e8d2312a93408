"""Is assignment stable, balanced, independent of order, and does it move no more units than it must?"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.schemas.experiment import Plan
from millrace.streams.assign import Assigner, Experiment
from millrace.streams.buckets import bucket
from millrace.streams.routes import Serving
from millrace.streams.spans import bounds
from tests.models import NOW, assignments_of, control, decide, facts_of, least, manifest, plan, request, route

UNITS = [f"unit-{i}" for i in range(4_000)]
REQUESTS = [request({"id": "r", "unit_id": unit}).event for unit in UNITS]
RAW = [unit.encode() for unit in UNITS]
weights = st.lists(st.floats(0.05, 10), min_size=2, max_size=5)


def variants(given: Plan) -> list[str | None]:
    return [one.variant if one else None for one in Experiment(given).assign(REQUESTS, RAW, NOW)]


@given(st.binary(max_size=64))
def test_a_bucket_lies_in_the_half_open_unit_interval(key: bytes) -> None:
    assert 0 <= bucket(key) < 1


@settings(max_examples=25, deadline=None)
@given(weights, st.text(min_size=1, max_size=8))
def test_every_variant_gets_its_share(given_weights: list[float], salt: str) -> None:
    found = variants(plan(weights=tuple(given_weights), salt=salt))
    total = sum(given_weights)
    for i, weight in enumerate(given_weights):
        share = weight / total
        error = 5 * (share * (1 - share) / len(UNITS)) ** 0.5
        assert abs(found.count(f"v{i}") / len(UNITS) - share) <= error


@settings(max_examples=25, deadline=None)
@given(weights, st.data())
def test_new_weights_move_only_units_between_old_and_new_bounds(old: list[float], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.floats(0.05, 10), min_size=len(old), max_size=len(old)))
    before, after = variants(plan(weights=tuple(old))), variants(plan(weights=tuple(new)))
    spans = [sorted(pair) for pair in zip(bounds(old), bounds(new), strict=True)]
    for unit, was, now in zip(RAW, before, after, strict=True):
        place = bucket(b"exp-salt:variant:" + unit)
        assert was == now or any(low <= place < high for low, high in spans)


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
@settings(max_examples=25, deadline=None)
def test_two_variants_move_exactly_the_changed_share(old: float, new: float) -> None:
    before, after = variants(plan(weights=(old, 1 - old))), variants(plan(weights=(new, 1 - new)))
    moved = [
        place for place, was, now in zip(map(bucket, (b"exp-salt:variant:" + raw for raw in RAW)), before, after, strict=True) if was != now
    ]
    assert all(min(bounds((old, 1 - old))[0], bounds((new, 1 - new))[0]) <= place < max(old, new) + 1e-9 for place in moved)
    expected = abs(old - new)
    assert abs(len(moved) / len(UNITS) - expected) <= 5 * (expected * (1 - expected) / len(UNITS)) ** 0.5 + 1e-9


@given(st.permutations(["a", "b", "c"]))
def test_the_order_in_which_plans_arrive_plays_no_part(order: list[str]) -> None:
    assigner = Assigner()
    for name in order:
        assert assigner.observe(plan(name))
    made = [experiment.assign(REQUESTS[:20], RAW[:20], NOW) for experiment in assigner.running]
    assert [[one and (one.experiment, one.variant) for one in row] for row in made] == [
        [one and (one.experiment, one.variant) for one in Experiment(plan(name)).assign(REQUESTS[:20], RAW[:20], NOW)] for name in "abc"
    ]


def test_a_request_is_assigned_alike_whatever_stands_beside_it() -> None:
    step = decide(None, None, manifest(), route(), plan(weights=(1, 2, 3)))
    records = [request(least(i), offset=i) for i in range(50)]
    together = {one.id: one for one in assignments_of(facts_of(step, *records))}
    alone = [one for record in reversed(records) for one in assignments_of(facts_of(step, record))]
    assert {one.id: one for one in alone} == together
    assert len(together) == 50


def test_sample_and_variant_do_not_correlate() -> None:
    found = [one for one in variants(plan(sample=0.5)) if one is not None]
    assert abs(len(found) / len(UNITS) - 0.5) < 0.04
    assert abs(found.count("v0") / len(found) - 0.5) < 0.06


@given(st.lists(st.floats(1, 99), min_size=2, max_size=6, unique=True))
@settings(max_examples=20, deadline=None)
def test_a_growing_canary_only_takes_units(shares: list[float]) -> None:
    served = [[Serving(route(serves=((1, 100 - share), (2, share)))).choose(raw)[1] for raw in RAW[:500]] for share in sorted(shares)]
    for before, after in pairwise(served):
        assert all(now == 2 for was, now in zip(before, after, strict=True) if was == 2)


def test_an_unchanged_plan_in_a_new_version_moves_nobody() -> None:
    step = decide(None, None, manifest(), route(), plan())
    record = request(least(3))
    first = facts_of(step, record)[0].event  # type: ignore[union-attr]
    assert step.observe(control(plan(version=2)))
    second = facts_of(step, record)[0].event  # type: ignore[union-attr]
    assert (first.variant, first.bucket, first.id) == (second.variant, second.bucket, second.id)
    assert (first.plan_version, second.plan_version) == (1, 2)
