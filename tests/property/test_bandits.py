"""Weights of bandits: a probability vector whatever the arms, blind to their order, fond of the better one; and sums that retract."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.policy_state import Feature, Gram, Method
from millrace.streams.bandits.allocate import Settings, epsilon_greedy, thompson, ucb
from millrace.streams.bandits.best_arm import best_arm_probabilities, best_beta
from millrace.streams.bandits.contextual import Contextual
from millrace.streams.bandits.ridge import ContextualSettings, learnt

Weigh = Callable[[list[Moments], Settings], list[float]]
METHODS = pytest.mark.parametrize("method", [thompson, partial(ucb, width=1.5), partial(epsilon_greedy, epsilon=0.2)])
MEANS = st.floats(-1e6, 1e6)
STDS = st.one_of(st.just(0.0), st.floats(1e-9, 1e6))
NORMALS = st.lists(st.tuples(MEANS, STDS), min_size=1, max_size=6)
BETAS = st.lists(st.tuples(st.floats(0.05, 1e7), st.floats(0.05, 1e7)), min_size=1, max_size=4)
VALUES = st.lists(st.integers(-1000, 1000), max_size=40)
ARMS = st.lists(VALUES.map(lambda values: sum(map(Moments.of, values), Moments())), min_size=1, max_size=5)
COUNTS = st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1)), min_size=1, max_size=4)
ROWS = st.tuples(st.lists(st.integers(-(10**12), 10**12), min_size=3, max_size=3), st.integers(-(10**15), 10**15))
FEW = settings(max_examples=50, deadline=None)


@FEW
@given(NORMALS)
def test_best_normal_is_a_probability_vector(arms: list[tuple[float, float]]) -> None:
    shares = best_arm_probabilities([mean for mean, _ in arms], [std for _, std in arms])
    assert all(0 <= share <= 1 for share in shares)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)


@FEW
@given(BETAS)
def test_best_beta_is_a_probability_vector(arms: list[tuple[float, float]]) -> None:
    shares = best_beta([a for a, _ in arms], [b for _, b in arms])
    assert all(0 <= share <= 1 for share in shares)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)


@FEW
@given(NORMALS, st.randoms(use_true_random=False))
def test_the_order_of_the_arms_plays_no_part(arms: list[tuple[float, float]], random: Random) -> None:
    order = list(range(len(arms)))
    random.shuffle(order)
    straight = best_arm_probabilities([mean for mean, _ in arms], [std for _, std in arms])
    shuffled = best_arm_probabilities([arms[i][0] for i in order], [arms[i][1] for i in order])
    assert shuffled == pytest.approx([straight[i] for i in order], abs=1e-9)


@FEW
@given(NORMALS, st.floats(0, 1e6))
def test_a_higher_mean_never_has_less(arms: list[tuple[float, float]], more: float) -> None:
    means, stds = [mean for mean, _ in arms], [std for _, std in arms]
    assert best_arm_probabilities([means[0] + more, *means[1:]], stds)[0] >= best_arm_probabilities(means, stds)[0] - 1e-9


@METHODS
@FEW
@given(ARMS, st.floats(0, 1), st.integers(0, 30))
def test_weights_keep_their_floor_and_sum_to_exactly_one(method: Weigh, arms: list[Moments], share: float, minimal: int) -> None:
    floor = share / len(arms)
    weights = method(arms, Settings(kind=Kind.MEAN, resolution=0.01, minimal=minimal, floor=floor))
    assert math.fsum(weights) == sum(weights) == sum(reversed(weights)) == 1.0
    assert all(weight > 0 and weight >= floor - 2**-40 for weight in weights)


@METHODS
@FEW
@given(COUNTS, st.randoms(use_true_random=False))
def test_weights_of_proportions_go_with_their_arms(method: Weigh, counts: list[tuple[int, float]], random: Random) -> None:
    arms = [Moments(n, round(n * share), round(n * share)) for n, share in counts]
    order = list(range(len(arms)))
    random.shuffle(order)
    chosen = Settings(kind=Kind.PROPORTION, resolution=1, minimal=5)
    straight, shuffled = method(arms, chosen), method([arms[i] for i in order], chosen)
    assert shuffled == pytest.approx([straight[i] for i in order], abs=1e-9)


@FEW
@given(st.lists(st.lists(ROWS, max_size=6), min_size=3, max_size=3))
def test_gram_sums_merge_in_any_order_and_retract_exactly(parts: list[list[tuple[list[int], int]]]) -> None:
    zero = Gram.zero(3)
    a, b, c = (sum((Gram.of(steps, reward) for steps, reward in part), zero) for part in parts)
    assert (a + b) + c == a + (b + c) == c + (b + a)
    assert a + b - b == a
    assert a - a == zero


@FEW
@given(st.lists(ROWS, max_size=30), st.sampled_from(Method), st.lists(st.floats(allow_nan=True), min_size=3, max_size=3), st.floats(0, 1))
def test_a_contextual_policy_gives_a_probability_vector_for_any_context(
    rows: list[tuple[list[int], int]], method: Method, context: list[float], share: float
) -> None:
    arms = [sum((Gram.of(steps, reward) for steps, reward in rows[i::3]), Gram.zero(3)) for i in range(3)]
    features = tuple(Feature(name=name, low=-10, high=50) for name in "abc")
    chosen = ContextualSettings(method=method, features=features, exploration=0.5, floor=share / 3, minimal=3)
    weights = Contextual(learnt(arms, chosen)).one(context)
    assert math.fsum(weights) == sum(weights) == 1.0
    assert all(weight > 0 and weight >= share / 3 - 2**-40 for weight in weights)
