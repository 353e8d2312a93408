"""How a contextual policy reads a number of the context: the one way from it to x, for the sums and for the probabilities.

Each feature is clipped to its range and scaled to [-1, 1], so that the ridge prior means the same for all of them, and read in whole steps,
so that sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from millrace.schemas.policy_state import STEPS, Feature

Floats = npt.NDArray[np.float64]


class Ranges:
    """Features with their ranges, in the order of a policy's coefficients. Each range must be one (``Feature.has_range``)."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._names = [feature.name for feature in features]
        self._low = np.array([feature.low for feature in features], dtype=np.float64)
        self._high = np.array([feature.high for feature in features], dtype=np.float64)
        self._width = self._high - self._low

    def steps(self, values: npt.ArrayLike) -> Floats:
        """Values (n, d), clipped and scaled to [-1, 1], in whole steps of 1e-6, which doubles hold exactly. No number is the lowest.

        >>> Ranges([Feature(name="hour", low=0.0, high=24.0)]).steps([[6.0], [24.5]]).tolist()
        [[-500000.0], [1000000.0]]
        """
        clipped = np.fmin(np.fmax(np.asarray(values, dtype=np.float64), self._low), self._high)
        scaled = (clipped - self._low) / self._width
        scaled *= 2
        scaled -= 1
        scaled *= STEPS
        return np.rint(scaled, out=scaled)

    def whole_steps(self, values: npt.ArrayLike) -> list[list[int]]:
        """The same as the integers that ``Gram.of`` takes: values (n, d) to n lists of d."""
        whole: list[list[int]] = self.steps(values).astype(np.int64).tolist()
        return whole

    def of(self, logged: Mapping[str, float]) -> list[int] | None:
        """The steps of an assignment's features; None where one is missing or not finite: such a request is not learnt from."""
        values = [logged.get(name, math.nan) for name in self._names]
        return self.whole_steps([values])[0] if all(map(math.isfinite, values)) else None
