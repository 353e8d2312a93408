"""What is published of a contextual policy: enough to compute any request's probabilities exactly; and the sums that it is learnt from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from operator import add, sub
from typing import Annotated

from msgspec import Meta, Struct

from millrace.schemas.errors import UsageError

STEPS = 1_000_000
"""A feature, scaled to [-1, 1], is read in whole steps of 1e-6."""


class Method(StrEnum):
    """How a contextual policy turns its arms' expected rewards into probabilities."""

    LIN_TS = "lin_ts"
    SQUARE_CB = "square_cb"
    EPSILON_GREEDY = "epsilon_greedy"


class Feature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named number of the context: clipped to [low, high], then scaled to [-1, 1]."""

    name: Annotated[str, Meta(min_length=1)]
    low: float
    high: float

    @property
    def has_range(self) -> bool:
        """Whether its range is one: finite in its ends and its width, which is above 0."""
        return self.low < self.high and math.isfinite(self.high - self.low)


def features_of(ranges: Mapping[str, tuple[float, float]]) -> tuple[Feature, ...]:
    """A plan's features in the order of a policy's coefficients: by name, because no format promises to keep a mapping's order.

    >>> [feature.name for feature in features_of({"hour": (0.0, 24.0), "basket": (0.0, 500.0)})]
    ['basket', 'hour']
    """
    return tuple(Feature(name=name, low=low, high=high) for name, (low, high) in sorted(ranges.items()))


class Gram(Struct, frozen=True, array_like=True, gc=False):
    """Sums over the requests of one arm for a linear regression, as integers. Merge with ``+``, retract with ``-``; both exact.

    x is 1 and then the features, scaled to [-1, 1], in steps of 1e-6; r the reward in steps of its resolution. ``products`` is the upper
    triangle of the sum of x x^T by rows, ``rewards`` the sum of x r. The sums outgrow 64 bits.

    >>> Gram.of([2_000_000], 3) - Gram.of([2_000_000], 3) == Gram.zero(1)
    True
    """

    n: int
    products: tuple[int, ...]
    rewards: tuple[int, ...]

    @staticmethod
    def zero(features: int) -> Gram:
        """Of no request."""
        p = features + 1
        return Gram(0, (0,) * (p * (p + 1) // 2), (0,) * p)

    @staticmethod
    def of(steps: Sequence[int], reward: int) -> Gram:
        """Of one request: its features in steps of 1e-6, its reward in steps of the resolution."""
        x = (STEPS, *steps)
        return Gram(1, tuple([a * b for i, a in enumerate(x) for b in x[i:]]), tuple([a * reward for a in x]))

    def __add__(self, other: Gram) -> Gram:
        self._check(other)
        return Gram(self.n + other.n, tuple(map(add, self.products, other.products)), tuple(map(add, self.rewards, other.rewards)))

    def __sub__(self, other: Gram) -> Gram:
        self._check(other)
        return Gram(self.n - other.n, tuple(map(sub, self.products, other.products)), tuple(map(sub, self.rewards, other.rewards)))

    def _check(self, other: Gram) -> None:
        if len(self.rewards) != len(other.rewards):
            raise UsageError(
                f"sums over {len(self.rewards) - 1} and {len(other.rewards) - 1} features cannot be merged: "
                "a policy keeps its features for as long as it learns"
            )


class ArmState(Struct, frozen=True, kw_only=True):
    """One arm's ridge posterior. Its coefficients are of 1 and then the features, scaled to [-1, 1].

    ``root`` is the lower triangle of L^-1 by rows, where A = L L^T is the regularised Gram matrix: x' A^-1 x = |L^-1 x|^2. Only LinTS
    publishes it. ``ready``: the arm has its minimal number of requests; until then it is given an equal share.
    """

    n: int
    ready: bool
    coefficients: tuple[float, ...]
    root: tuple[float, ...] = ()


class ContextualState(Struct, frozen=True, kw_only=True):
    """One version of a contextual policy, arms in the order of the plan's variants.

    ``exploration`` is LinTS's v, SquareCB's gamma of this version, or epsilon.
    """

    method: Method
    features: tuple[Feature, ...]
    arms: tuple[ArmState, ...]
    exploration: float
    floor: float
