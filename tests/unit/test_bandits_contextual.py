"""Does a contextual policy learn the regression that it says, and give each request the same bits in any company?"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.schemas.errors import Never, UsageError
from millrace.schemas.policy_state import STEPS, ArmState, ContextualState, Feature, Gram, Method
from millrace.streams.bandits.best_arm import best_arm_probabilities
from millrace.streams.bandits.contextual import CHUNK, Contextual, greedy, lin_ts, products, square_cb
from millrace.streams.bandits.ranges import Ranges
from millrace.streams.bandits.ridge import ContextualSettings, learnt, posterior

FEATURES = tuple(Feature(name=name, low=-3.0, high=3.0) for name in "abcde")
ARMS = 3


def grams(n: int = 300, seed: int = 3) -> list[Gram]:
    """Sums of n rewards at random places for each of three arms."""
    rng = np.random.default_rng(seed)
    made = []
    for arm in range(ARMS):
        values = rng.normal(size=(n, len(FEATURES)))
        steps = Ranges(FEATURES).whole_steps(values)
        rewards = np.rint(1e6 * (values[:, arm] + rng.normal(size=n))).astype(int).tolist()
        made.append(sum((Gram.of(x, r) for x, r in zip(steps, rewards, strict=True)), Gram.zero(len(FEATURES))))
    return made


def settings(method: Method = Method.LIN_TS, **other: Any) -> ContextualSettings:
    given: dict[str, Any] = {"features": FEATURES, "exploration": 0.5} | other
    return ContextualSettings(method=method, **given)


def test_the_posterior_is_ridge_regression() -> None:
    rng = np.random.default_rng(4)
    values, rewards = np.round(rng.normal(size=(50, 2)), 6), np.round(rng.normal(size=50), 2)
    values = np.clip(values / 4, -1, 1).round(6)
    steps = Ranges((Feature(name="a", low=-1, high=1), Feature(name="b", low=-1, high=1))).whole_steps(values)
    gram = sum((Gram.of(x, round(r * 100)) for x, r in zip(steps, rewards.tolist(), strict=True)), Gram.zero(2))
    x = np.column_stack([np.ones(50), values])
    a = 2.0 * np.eye(3) + x.T @ x
    coefficients, root = posterior(gram, 2.0, 0.01)
    assert coefficients == pytest.approx(np.linalg.solve(a, x.T @ rewards), abs=1e-12)
    assert root.T @ root == pytest.approx(np.linalg.inv(a), abs=1e-12)


def test_features_that_tell_the_same_can_be_learnt_from() -> None:
    gram = Gram.of([3_000_000, 3_000_000], 1)
    for _ in range(60):
        gram = gram + gram
    coefficients, root = posterior(gram, 1e-6)
    assert np.isfinite(coefficients).all()
    assert np.isfinite(root).all()


def test_lin_ts_is_the_best_arm_of_the_payoffs() -> None:
    state = learnt(grams(), settings(floor=0.0))
    x = [0.5, -1.25, 2.0, 0.0, 1.0]
    one = np.array([1.0, *(np.rint(np.array(x) / 3 * 1e6) / 1e6)])
    means, stds = [], []
    for gram in grams():
        coefficients, root = posterior(gram, 1.0, 1e-6)
        means.append(float(one @ coefficients))
        stds.append(0.5 * math.sqrt(one @ (root.T @ root) @ one))
    assert Contextual(state).one(x) == pytest.approx(best_arm_probabilities(means, stds), abs=1e-6)


@pytest.mark.parametrize("method", list(Method))
def test_one_request_has_the_same_bits_in_any_batch(method: Method) -> None:
    policy = Contextual(learnt(grams(), settings(method)))
    values = np.random.default_rng(5).normal(size=(2 * CHUNK + 37, len(FEATURES)))
    whole = policy.probabilities(values)
    assert whole.tolist() == [policy.one(row) for row in values.tolist()]
    for n in (2, 3, 5, 8, 17, 64, CHUNK, CHUNK + 1):
        for start in (0, 1, 6):
            assert np.array_equal(policy.probabilities(values[start : start + n]), whole[start : start + n])
    assert np.array_equal(policy.probabilities(np.asfortranarray(values)), whole)
    assert policy.probabilities(values[:0]).shape == (0, ARMS)


def test_a_row_of_a_product_has_the_same_bits_in_any_batch() -> None:
    """Before rounding to the published multiples, which would hide almost every difference."""
    rng = np.random.default_rng(13)
    x, matrix = rng.normal(size=(300, 9)), rng.normal(size=(9, 30))
    whole = products(x, matrix)
    assert whole == pytest.approx(x @ matrix, abs=1e-12)
    for n in (1, 2, 3, 4, 7, 8, 31):
        assert np.array_equal(np.concatenate([products(x[i : i + n], matrix) for i in range(0, 300, n)]), whole)


@pytest.mark.parametrize("method", list(Method))
def test_a_state_that_was_published_gives_the_same_bits(method: Method) -> None:
    state = learnt(grams(), settings(method))
    values = np.random.default_rng(6).normal(size=(40, len(FEATURES)))
    for codec in (msgspec.json, msgspec.msgpack):
        again = codec.decode(codec.encode(state), type=ContextualState)
        assert np.array_equal(Contextual(again).probabilities(values), Contextual(state).probabilities(values))


def test_square_cb_weighs_by_the_inverse_gap() -> None:
    given = square_cb(np.array([[1.0, 0.5, 0.9], [0.0, 0.0, 0.0]]), 10.0)
    assert given[0] == pytest.approx([1 - 1 / 8 - 1 / 4, 1 / 8, 1 / 4], abs=1e-15)
    assert given[1] == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert learnt(grams(300), settings(Method.SQUARE_CB, exploration=2.0)).exploration == 2.0 * math.sqrt(900)


def test_greedy_shares_what_is_equal() -> None:
    assert greedy(np.array([[1.0, 2.0, 2.0]]), 0.3)[0] == pytest.approx([0.1, 0.45, 0.45], abs=1e-15)


def test_lin_ts_of_many_is_lin_ts_of_each() -> None:
    rng = np.random.default_rng(11)
    means, roots = rng.normal(size=(CHUNK + 5, 3)), rng.normal(size=(CHUNK + 5, 3, 4))
    assert np.array_equal(lin_ts(means, roots)[-5:], lin_ts(means[-5:], roots[-5:]))


def test_an_arm_that_is_not_ready_has_an_equal_share() -> None:
    arms = grams()
    arms[1] = grams(5)[1]
    given = Contextual(learnt(arms, settings(floor=0.0))).probabilities(np.random.default_rng(1).normal(size=(20, 5)))
    assert given[:, 1] == pytest.approx([1 / 3] * 20, abs=1e-11)
    others = Contextual(learnt([arms[0], arms[2]], settings(floor=0.0))).probabilities(np.random.default_rng(1).normal(size=(20, 5)))
    assert given[:, [0, 2]] == pytest.approx(others * 2 / 3, abs=1e-11)
    assert given[:, 0].std() > 0.1
    nobody = Contextual(learnt([Gram.zero(5)] * 3, settings()))
    assert nobody.one([0.0] * 5) == pytest.approx([1 / 3] * 3, abs=1e-11)


def test_a_feature_is_clipped_to_its_range_and_scaled() -> None:
    ranges = Ranges((Feature(name="age", low=0, high=120), Feature(name="score", low=-1, high=1)))
    assert ranges.whole_steps([[30.0, 0.1234567], [1e300, -7.0], [math.inf, -math.inf], [120.0, 1.0], [math.nan, 0.0]]) == [
        [-500_000, 123_457],
        [1_000_000, -1_000_000],
        [1_000_000, -1_000_000],
        [1_000_000, 1_000_000],
        [-1_000_000, 0],
    ]
    assert ranges.of({"score": 0.5, "age": 60, "other": 1.0}) == [0, 500_000]
    for lacking in ({}, {"age": 60.0}, {"age": math.nan, "score": 0.5}, {"age": 60.0, "score": math.inf}):
        assert ranges.of(lacking) is None


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(allow_nan=False), st.floats(-100, 100))
def test_any_range_scales_into_its_steps_in_order(low: float, high: float, value: float, more: float) -> None:
    feature = Feature(name="x", low=low, high=high)
    if not feature.has_range:
        assert low >= high
        return
    ranges = Ranges((feature,))
    (at,), (above,) = ranges.whole_steps([[value], [value + abs(more)]])
    assert -STEPS <= at <= above <= STEPS
    assert ranges.whole_steps([[low], [high]]) == [[-STEPS], [STEPS]]


def test_the_unit_of_a_feature_does_not_matter() -> None:
    """A basket in cents or in thousands is learnt alike: the ridge's prior is on the scaled feature."""
    baskets = np.random.default_rng(9).integers(0, 500_00, size=400)
    states = []
    for unit in (1.0, 100.0, 100_000.0):
        features = (Feature(name="basket", low=0.0, high=500_00 / unit),)
        steps = Ranges(features).whole_steps(baskets[:, None] / unit)
        gram = sum((Gram.of(x, round(1e6 * (i % 7))) for i, x in enumerate(steps)), Gram.zero(1))
        state = learnt([gram, gram], ContextualSettings(method=Method.LIN_TS, features=features, exploration=0.5))
        states.append(state.arms)
    assert states[0] == states[1] == states[2]


def test_sums_over_other_features_are_not_merged() -> None:
    with pytest.raises(UsageError, match="1 and 2 features"):
        Gram.zero(1) + Gram.zero(2)
    with pytest.raises(UsageError, match="sums are over 2 features and the policy names 5"):
        learnt([Gram.zero(2)], settings(floor=0.0))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"ridge": 0.0}, "ridge"),
        ({"exploration": -1.0}, "exploration"),
        ({"floor": 0.5}, "floor"),
        ({"method": Method.EPSILON_GREEDY, "exploration": 1.5}, "epsilon-greedy"),
        ({"features": (*FEATURES[:4], Feature(name="e", low=-1e308, high=1e308))}, "feature 'e'"),
    ],
)
def test_a_setting_out_of_its_range_is_named(other: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        learnt([Gram.zero(5)] * 3, settings(**other))


@pytest.mark.parametrize(
    "broken",
    [
        {"arms": ()},
        {"exploration": math.nan},
        {"floor": 0.4},
        {"features": FEATURES[:2]},
        {"features": (*FEATURES[:4], Feature(name="e", low=1.0, high=1.0))},
        {"method": Method.SQUARE_CB},
        {"arms": (ArmState(n=1, ready=True, coefficients=(math.inf,) * 6, root=(1.0,) * 21),)},
    ],
)
def test_a_state_that_does_not_fit_together_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(Never):
        Contextual(replace(learnt(grams(50), settings()), **broken))
