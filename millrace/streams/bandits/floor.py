"""The additive floor: no arm is given less than a stated share, and the vector that is published sums to exactly 1.

w = floor + (1 - k floor) p keeps the order and the ratio of differences of p, where a floor by max(p, floor) and renormalising falls
below what it states. It bounds the weights of off-policy estimates by 1 / floor (the exploration of EXP4: Auer, Cesa-Bianchi, Freund &
Schapire 2002, section 7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from millrace.schemas.errors import UsageError

Floats = npt.NDArray[np.float64]

UNITS = 2**40
"""Weights are whole multiples of 1 / UNITS: doubles hold these and all their sums exactly, in whatever order they are added."""


def floored(weights: Sequence[float], floor: float) -> list[float]:
    """A probability vector with each entry at least ``floor`` (and above 0), summing to exactly 1. Raises UsageError for another floor.

    >>> floored([0.75, 0.25, 0.0], 0.125)
    [0.59375, 0.28125, 0.125]
    """
    shares: list[float] = floored_rows(np.array([weights], dtype=np.float64), least_units(floor, len(weights)))[0].tolist()
    return shares


def least_units(floor: float, arms: int) -> int:
    """How many of the UNITS each of so many arms is given before the rest is shared out; at least one. Raises UsageError."""
    if not (math.isfinite(floor) and 0 <= floor <= (1 + 1e-9) / arms):
        raise UsageError(f"a floor of {floor} cannot be given to {arms} arms: state one from 0 to {1 / arms:.4g}")
    return min(max(1, math.ceil(floor * UNITS)), UNITS // arms)


def floored_rows(shares: Floats, least: int) -> Floats:
    """Each row of shares, (n, k), with ``least`` of the UNITS given to every arm first; what rounding leaves goes to the row's largest."""
    n, k = shares.shape
    units = np.floor(shares * float(UNITS - k * least))
    units += least
    units[np.arange(n), shares.argmax(axis=1)] += UNITS - units.sum(axis=1)
    units /= UNITS
    return units
