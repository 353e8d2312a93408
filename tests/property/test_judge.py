"""A judged result is a pure function of the sealed sums: neither the order of partitions, nor seals that come again, nor splits matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Analysis, Rule
from millrace.schemas.metric import Direction, Metric, Role
from millrace.schemas.moments import PartitionMoments
from millrace.schemas.record import Record
from millrace.schemas.topics import MOMENTS
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known
from millrace.streams.judge.merge import Sealed, merged
from millrace.streams.judge.past import Past
from millrace.streams.judge.shelf import Shelf
from millrace.streams.judge.step import Judge
from millrace.streams.step import Batch
from tests.driver import START_MS, MemoryStore
from tests.judging import PAID, experiment, later, published, sealed, seen
from tests.models import control

SPENT = Metric(name="spent", outcome="paid", role=Role.PRIMARY, covariate_days=7)
ERRORS = Metric(name="errors", outcome="error", kind=Kind.PROPORTION, role=Role.GUARDRAIL, direction=Direction.DECREASE, limit=0.1)
MANY = 10**30


@st.composite
def sums(draw: Any) -> Moments:
    """Any sums, sensible or not: no combination of integers may make the judge fail."""
    big = st.integers(-MANY, MANY)
    return Moments(draw(st.integers(0, 10_000)), *(draw(big) for _ in range(8)))


@st.composite
def partitions(draw: Any) -> list[Sealed]:
    """Up to four partitions, each with any sums of some metrics."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        metrics = {
            name: {arm: draw(sums()) for arm in ("a", "b")}
            for name in draw(st.sets(st.sampled_from(["paid", "spent", "errors"]), min_size=1))
        }
        arms = {
            arm: seen(draw(st.integers(0, 5_000)), late=draw(st.integers(0, 50)), outcomes=draw(st.integers(0, 90))) for arm in ("a", "b")
        }
        found.append(sealed(metrics, arms, partition=number))
    return found


@settings(max_examples=60, deadline=None)
@given(partitions(), st.randoms(use_true_random=False), st.sampled_from(list(Rule)), st.sampled_from(["relative", "absolute"]))
def test_any_order_of_partitions_gives_the_same_bytes(found: list[Sealed], chance: Any, rule: Rule, difference: str) -> None:
    known = Known(plan=experiment(PAID, SPENT, ERRORS, analysis=Analysis(rule=rule, difference=difference)))
    shuffled = list(found)
    chance.shuffle(shuffled)
    once, again = (judge(known, order, Past(), later(100)) for order in (found, shuffled))
    assert msgspec.json.encode(once.result) == msgspec.json.encode(again.result)
    assert once.past == again.past
    assert all(map(math.isfinite, numbers(msgspec.to_builtins(once.result))))


def numbers(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for one in tree:
            yield from numbers(one)
    elif isinstance(tree, float):
        yield tree


@settings(max_examples=60, deadline=None)
@given(partitions(), st.randoms(use_true_random=False))
def test_however_seals_interleave_and_repeat_the_same_is_sealed(found: list[Sealed], chance: Any) -> None:
    """Each partition's records keep their order, as its own log does; between partitions anything may come first."""
    store, step = MemoryStore(), Judge()
    step.observe(control(experiment(PAID, SPENT, ERRORS)))
    queues = [published(one) * chance.choice([1, 2]) for one in found]
    offset = 0
    while any(queues):
        queue = chance.choice([queue for queue in queues if queue])
        step.observe(control(experiment()))
        list(step.process(Batch(0, [record(queue.pop(0), offset)], later(0)), store))
        offset += chance.choice([1, 5_000])
    assert merged(Shelf(store).partitions("e")) == merged(found)


def record(event: PartitionMoments, offset: int) -> Record:
    return Record(MOMENTS.name, 0, offset, START_MS + offset, b"e", None, None, event)


@settings(max_examples=60, deadline=None)
@given(sums(), sums(), sums())
def test_sums_add_up_exactly_however_they_are_split(one: Moments, two: Moments, three: Moments) -> None:
    arms = {"a": seen(1), "b": seen(1)}
    whole = merged([sealed({"paid": {"a": one + two + three}}, arms)])
    parts = merged([sealed({"paid": {"a": part}}, arms, partition=number) for number, part in enumerate((one, two, three))])
    assert parts.metrics == whole.metrics
