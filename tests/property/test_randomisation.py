"""Are buckets balanced, layers and experiments independent, and units kept apart where they must be? Salts are fixed: no test draws."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency

from millrace.schemas.experiment import Condition, Layer, RampStep, Test, Unit
from millrace.schemas.request import Request
from millrace.streams.assign import Experiment, derive
from millrace.streams.buckets import bucket
from millrace.streams.revise import revise
from tests.models import NOW, plan

LEVEL = 1e-4
"""A good hash fails one of these tests once in 10,000 salts; the salts are fixed, so that it fails always or never."""
UNITS = [f"unit-{i}" for i in range(20_000)]
REQUESTS = [Request(id=f"r-{i}", unit_id=unit) for i, unit in enumerate(UNITS)]
RAW = [unit.encode() for unit in UNITS]
MANY = [f"customer-{i}".encode() for i in range(100_000)]


def variants(*, now: datetime = NOW, **fields: Any) -> list[str | None]:
    """Each unit's variant, None where it does not take part."""
    return [one.variant if one else None for one in Experiment(plan(**fields)).assign(REQUESTS, RAW, now)]


def members(**fields: Any) -> set[str]:
    return {unit for unit, variant in zip(UNITS, variants(**fields), strict=True) if variant is not None}


@pytest.mark.parametrize("prefix", ["checkout:variant:", "checkout:sample:", "layer:page:", "holdout:", "2026:variant:", "a:variant:"])
def test_buckets_of_100_000_units_are_uniform(prefix: str) -> None:
    """Pearson's chi-square over 100 cells."""
    places = np.array([bucket(prefix.encode() + unit) for unit in MANY])
    counts = np.histogram(places, 100, (0, 1))[0]
    assert chi2.sf(((counts - 1_000) ** 2 / 1_000).sum(), 99) > LEVEL


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("checkout:variant:", "checkout:sample:"),
        ("checkout:variant:", "pricing:variant:"),
        ("checkout:variant:", "layer:page:"),
        ("layer:page:", "layer:price:"),
        ("layer:page:", "holdout:"),
        ("checkout-1:variant:", "checkout-2:variant:"),
    ],
)
def test_two_keys_of_100_000_units_are_independent(one: str, other: str) -> None:
    """Pearson's chi-square of a table of 10 by 10."""
    pairs = np.array([(bucket(one.encode() + unit), bucket(other.encode() + unit)) for unit in MANY])
    table = np.histogram2d(pairs[:, 0], pairs[:, 1], 10, ((0, 1), (0, 1)))[0]
    assert chi2_contingency(table).pvalue > LEVEL


def test_experiments_of_one_layer_with_ranges_apart_share_no_unit_and_leave_none_out() -> None:
    layers = [Layer(name="page", low=low, high=high) for low, high in ((0.0, 0.25), (0.25, 0.7), (0.7, 1.0))]
    found = [members(name=f"e{i}", layer=layer) for i, layer in enumerate(layers)]
    assert sum(map(len, found)) == len(set.union(*found)) == len(UNITS)
    assert [round(len(each) / len(UNITS), 2) for each in found] == [0.25, 0.45, 0.3]


def test_an_experiment_of_another_layer_meets_both_sides_alike() -> None:
    inside = members(name="a", layer=Layer(name="page", low=0.0, high=0.5))
    other = members(name="b", layer=Layer(name="price", low=0.0, high=0.5))
    both = len(inside & other) / len(UNITS)
    assert abs(both - 0.25) < 5 * (0.25 * 0.75 / len(UNITS)) ** 0.5


def test_the_holdout_is_the_same_units_everywhere_and_nested() -> None:
    out = [set(UNITS) - members(name=name, holdout=share) for name, share in (("a", 0.05), ("b", 0.05), ("c", 0.2))]
    assert out[0] == out[1]
    assert out[0] < out[2]
    assert abs(len(out[0]) / len(UNITS) - 0.05) < 0.008


steps = st.lists(st.tuples(st.integers(-50, 50), st.floats(0, 1)), min_size=1, max_size=4, unique_by=lambda step: step[0])


@settings(max_examples=30, deadline=None)
@given(steps, st.floats(0.05, 1), st.integers(-60, 60), st.integers(0, 60))
def test_a_ramp_only_adds_and_nobody_changes(given_steps: list[tuple[int, float]], sample: float, first: int, later: int) -> None:
    hours = sorted(hour for hour, _ in given_steps)
    shares = sorted(share for _, share in given_steps)
    ramp = tuple(RampStep(at=NOW + timedelta(hours=hour), share=share) for hour, share in zip(hours, shares, strict=True))
    before, after = (variants(now=NOW + timedelta(hours=hour), ramp=ramp, sample=sample)[:2_000] for hour in (first, first + later))
    assert all(was is None or was == now for was, now in zip(before, after, strict=True))
    share = max((step.share for step in ramp if step.at <= NOW + timedelta(hours=first)), default=0.0) * sample
    assert [one is not None for one in before] == [bucket(b"exp-salt:sample:" + unit) < share for unit in RAW[:2_000]]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.05, 10), min_size=2, max_size=5), st.data())
def test_new_weights_of_a_running_experiment_move_the_changed_share_alone(old: list[float], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.floats(0, 10), min_size=len(old), max_size=6).filter(lambda drawn: sum(drawn) > 0.1))
    first = plan(weights=tuple(old))
    second = revise(first, plan(weights=tuple(new)))
    before, after = (Experiment(one).assign(REQUESTS, RAW, NOW) for one in (first, second))
    was, now = ([one.variant for one in made if one is not None] for made in (before, after))
    grown = sum(max(0.0, b / sum(new) - (old[i] / sum(old) if i < len(old) else 0.0)) for i, b in enumerate(new))
    moved = sum(a != b for a, b in zip(was, now, strict=True)) / len(UNITS)
    assert abs(moved - grown) <= 5 * (grown * (1 - min(1.0, grown)) / len(UNITS)) ** 0.5 + 1e-3
    assert all(derive(second, one) for one in after[:50] if one is not None)


def test_an_override_stands_above_every_gate_but_the_models() -> None:
    closed: dict[str, Any] = {
        "layer": Layer(name="page", low=0.0, high=1e-9),
        "holdout": 0.999999,
        "sample": 0.0,
        "ramp": (RampStep(at=NOW + timedelta(days=1), share=1.0),),
        "target_units": ("nobody",),
        "targeting": (Condition(field="x", test=Test.EQUALS, value=1),),
    }
    assert members(**closed) == set()
    for field, value in closed.items():
        assert members(**{field: value}, overrides={"unit-3": "v1"}) >= {"unit-3"}
    assert members(**closed, overrides={"unit-3": "v1"}) == {"unit-3"}
    assert members(**closed, overrides={"unit-3": "v1"}, models=("m",)) == set()


def test_target_units_alone_take_part() -> None:
    assert members(target_units=("unit-3", "unit-5", "unheard-of")) == {"unit-3", "unit-5"}


def test_requests_are_dealt_each_by_itself() -> None:
    same = [Request(id=f"r-{i}", unit_id="u") for i in range(1_000)]
    experiment = Experiment(plan(unit=Unit.REQUEST, sample=0.5))
    made = experiment.assign(same, [b"u"] * len(same), NOW)
    assert [one is not None for one in made] == [bucket(f"exp-salt:sample:r-{i}".encode()) < 0.5 for i in range(1_000)]
    given_out = [one for one in made if one is not None]
    assert all(one.bucket == bucket(f"exp-salt:variant:{one.request_id}".encode()) for one in given_out)
    assert abs(sum(one.variant == "v0" for one in given_out) / len(given_out) - 0.5) < 0.1
    in_layer = Experiment(plan(unit=Unit.REQUEST, layer=Layer(name="page", low=0.0, high=0.5), holdout=0.1))
    assert len({one is None for one in in_layer.assign(same, [b"u"] * len(same), NOW)}) == 1, "layer and holdout are the unit's"
