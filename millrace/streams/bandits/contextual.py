"""A request's probabilities under a published contextual policy: exact, so that what is logged is the propensity itself.

One path for one request and for many: every row is computed by the same calls on the same shapes, whatever stands beside it (a batch of
small matrix products, elementwise arithmetic, sums along the row's own memory), so that its bits are the same in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from millrace.schemas.errors import Never
from millrace.schemas.policy_state import STEPS, ArmState, ContextualState, Method
from millrace.streams.bandits.best_arm import QUICK, best_normal
from millrace.streams.bandits.floor import floored_rows, least_units
from millrace.streams.bandits.ranges import Ranges

Floats = npt.NDArray[np.float64]

CHUNK = 128
"""Rows integrated together: more of them leave the processor's cache and take twice as long each."""
LARGEST = 1e60
"""The largest coefficient, root or exploration: far from where the square of a product of two overflows."""


class Contextual:
    """A published state, made ready once per version to give each request its probability vector.

    Raises Never for a state that cannot be used: what it says does not fit together.
    """

    def __init__(self, state: ContextualState) -> None:
        check(state)
        self._ranges = Ranges(state.features)
        self._state = state
        self._arms = len(state.arms)
        self._least = least_units(state.floor, self._arms)
        self._ready = [i for i, arm in enumerate(state.arms) if arm.ready]
        self._matrix = _stacked([state.arms[i] for i in self._ready], state)

    def one(self, values: Sequence[float]) -> list[float]:
        """One request's probabilities, from its features' values in their order."""
        shares: list[float] = self.probabilities([values])[0].tolist()
        return shares

    def probabilities(self, values: npt.ArrayLike) -> Floats:
        """Features' values (n, d) to probabilities (n, k): multiples of 2^-40, each at least the floor, each row summing to exactly 1."""
        return self._of_steps(self._ranges.steps(values))

    def at_steps(self, steps: Sequence[float]) -> list[float]:
        """The probabilities at one place that is told in steps already, such as the average of many requests."""
        shares: list[float] = self._of_steps(np.array([steps], dtype=np.float64))[0].tolist()
        return shares

    def _of_steps(self, steps: Floats) -> Floats:
        n = len(steps)
        if len(self._ready) == self._arms:
            return floored_rows(self._weigh(steps), self._least)
        shares = np.full((n, self._arms), 1 / self._arms)
        if self._ready:
            shares[:, self._ready] = self._weigh(steps) * (len(self._ready) / self._arms)
        return floored_rows(shares, self._least)

    def _weigh(self, steps: Floats) -> Floats:
        """The method's own probabilities of the arms that are ready."""
        n, d = steps.shape
        x = np.ones((n, d + 1))
        np.divide(steps, STEPS, out=x[:, 1:])
        told = products(x, self._matrix)
        arms = len(self._ready)
        match self._state.method:
            case Method.LIN_TS:
                return lin_ts(told[:, :arms], told[:, arms:].reshape(n, arms, d + 1))
            case Method.SQUARE_CB:
                return square_cb(told, self._state.exploration)
            case Method.EPSILON_GREEDY:
                return greedy(told, self._state.exploration)


def products(x: Floats, matrix: Floats) -> Floats:
    """Rows x (n, p) times a matrix (p, m), as n products of one row: a single product is cut into other blocks for other n."""
    told: Floats = np.matmul(x[:, None, :], matrix)[:, 0, :]
    return told


def lin_ts(means: Floats, roots: Floats) -> Floats:
    """Each arm's probability that its payoff, normal with mean x' theta and standard deviation v |L^-1 x|, is the largest.

    Means (n, k) and v L^-1 x (n, k, p) to (n, k). Linear Thompson sampling (Agrawal & Goyal 2013) with its draw integrated out.
    """
    stds = np.sqrt((roots * roots).sum(axis=2))
    if len(means) <= CHUNK:
        return best_normal(means, stds, QUICK)
    parts = [slice(start, start + CHUNK) for start in range(0, len(means), CHUNK)]
    return np.concatenate([best_normal(means[part], stds[part], QUICK) for part in parts])


def square_cb(means: Floats, gamma: float) -> Floats:
    """Inverse gap weighting: 1 / (k + gamma gap) for every arm but the best, which has the rest. (n, k) to (n, k).

    Foster & Rakhlin 2020, Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles, Algorithm 1 with mu = k.
    """
    n, k = means.shape
    best = means.argmax(axis=1)
    shares: Floats = 1 / (k + gamma * (means.max(axis=1, keepdims=True) - means))
    rows = np.arange(n)
    shares[rows, best] = 0
    shares[rows, best] = 1 - shares.sum(axis=1)
    return shares


def greedy(means: Floats, epsilon: float) -> Floats:
    """``epsilon`` evenly to all, the rest to the best, which equal ones share (Sutton & Barto 2018, 2.2). (n, k) to (n, k)."""
    top = means == means.max(axis=1, keepdims=True)
    shares: Floats = epsilon / means.shape[1] + (1 - epsilon) * top / top.sum(axis=1, keepdims=True)
    return shares


def check(state: ContextualState) -> None:
    """Raise Never naming what in a published state does not fit together."""
    p = len(state.features) + 1
    triangle = p * (p + 1) // 2 if state.method is Method.LIN_TS else 0
    if not all(feature.has_range for feature in state.features):
        raise Never("a contextual policy's features need finite ranges, low below high")
    if not state.arms:
        raise Never("a contextual policy without an arm: publish one with the plan's variants")
    for arm in state.arms:
        if len(arm.coefficients) != p or len(arm.root) != triangle:
            raise Never(f"a contextual policy over {p - 1} features needs {p} coefficients and a root of {triangle} for each arm")
        if not all(abs(value) <= LARGEST for value in (*arm.coefficients, *arm.root)):
            raise Never(f"a contextual policy's coefficients and root must be numbers up to {LARGEST}")
    if not 0 <= state.exploration <= LARGEST:
        raise Never(f"a contextual policy's exploration must be from 0 to {LARGEST}, not {state.exploration}")
    if not 0 <= state.floor <= (1 + 1e-9) / len(state.arms):
        raise Never(f"a floor of {state.floor} cannot be given to {len(state.arms)} arms")


def _stacked(arms: Sequence[ArmState], state: ContextualState) -> Floats:
    """All that x is multiplied by, (p, k), or (p, k + k p) for LinTS: each arm's coefficients, then each arm's v L^-1, transposed."""
    p = len(state.features) + 1
    blocks = [np.array([arm.coefficients for arm in arms], dtype=np.float64).reshape(len(arms), p)]
    if state.method is Method.LIN_TS:
        blocks += [_lower(arm) * state.exploration for arm in arms]
    return np.ascontiguousarray(np.concatenate(blocks).T)


def _lower(arm: ArmState) -> Floats:
    """The packed lower triangle as a matrix (p, p)."""
    p = len(arm.coefficients)
    root = np.zeros((p, p))
    root[np.tril_indices(p)] = arm.root
    return root
