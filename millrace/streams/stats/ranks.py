"""Whether one arm's values tend to be larger than the other's, from how many units have each value: the Mann-Whitney test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy.special import ndtr

from millrace.schemas.evidence import CannotTell

Counts = Sequence[int] | npt.NDArray[np.int64]


class RankTest(Struct, frozen=True, kw_only=True):
    """``u`` is how often a treatment's unit has more than a control's, over all pairs, a tie being a half; ``share`` is it as a share."""

    u: float
    share: float
    z: float
    p_value: float


def mann_whitney(control: Counts, treatment: Counts) -> RankTest | CannotTell:
    """The two-sided test from two histograms (k,) over the same values in rising order, by the normal approximation.

    Corrected for ties and for continuity. Exact values or bins alike: what is in one bin counts as tied. Raises ValueError on histograms of
    different length or negative counts. Sources: Mann and Whitney, Ann. Math. Statist. 1947; Lehmann, *Nonparametrics*, 1975, section 1.4
    (ties).

    >>> told = mann_whitney([2, 1, 0], [0, 1, 2])
    >>> told.u, round(told.share, 4)
    (8.5, 0.9444)
    """
    left, right = np.asarray(control, dtype=np.float64), np.asarray(treatment, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or bool(np.any(left < 0)) or bool(np.any(right < 0)):
        raise ValueError("give both arms' counts over the same values, none below 0")
    n, m = float(left.sum()), float(right.sum())
    if min(n, m) < 1:
        return CannotTell("an arm has no units; ranks need some in each")
    u = float(np.dot(right, np.cumsum(left) - left / 2.0))
    std = _std(n, m, left + right)
    if std == 0.0:
        return CannotTell("all units of both arms have the same value")
    away = u - n * m / 2.0
    z = math.copysign(max(abs(away) - 0.5, 0.0), away) / std
    return RankTest(u=u, share=u / (n * m), z=z, p_value=2.0 * float(ndtr(-abs(z))))


def _std(n: float, m: float, tied: npt.NDArray[np.float64]) -> float:
    """Of U without a difference, given ties (Lehmann 1975, section 1.4)."""
    units = n + m
    ties = float(np.sum(tied * (tied - 1.0) * (tied + 1.0))) / (units * (units - 1.0))
    return math.sqrt(max(n * m / 12.0 * (units + 1.0 - ties), 0.0))
