"""What was logged, as the estimators read it: rewards, and how much more or less likely the policy in question takes the logged action."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from millrace.streams.stats.summary import Summary

Floats = npt.NDArray[np.float64]


class Logged(Struct, frozen=True):
    """Cells of records with one weight each: a cell is one record, or all records of one arm under one propensity.

    ``counts`` (m,) are the cells' records, ``means`` and ``variances`` (m,) their rewards' (denominator count - 1), ``weights`` (m,) the
    target's chance of the logged action over the logging policy's.
    """

    counts: Floats
    means: Floats
    variances: Floats
    weights: Floats

    @property
    def n(self) -> int:
        """How many records."""
        return int(self.counts.sum())


def of_records(rewards: npt.ArrayLike, propensities: npt.ArrayLike, targets: npt.ArrayLike) -> Logged:
    """The log record by record: rewards (n,), the logged propensities (n,) and the target policy's chance of the logged action (n,).

    Raises ValueError on shapes that differ, a propensity outside (0, 1], a target outside [0, 1] or a reward that is not finite.
    """
    y, p, t = (np.asarray(one, dtype=np.float64) for one in (rewards, propensities, targets))
    _check(y, p, t)
    return Logged(np.ones_like(y), y, np.zeros_like(y), t / p)


def of_arms(arms: Sequence[Summary], propensities: Sequence[float], targets: Sequence[float]) -> Logged:
    """The log from exact moments, one summary for each arm and propensity it was drawn with (a bandit: arm and policy version).

    The target's chance of an arm may not depend on the context, or it must be constant within each summary. No record is needed.
    """
    p, t = np.asarray(propensities, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    means = np.array([arm.mean for arm in arms], dtype=np.float64)
    _check(means, p, t)
    counts = np.array([arm.n for arm in arms], dtype=np.float64)
    return Logged(counts, means, np.array([arm.variance for arm in arms], dtype=np.float64), t / p)


class Predicted(Struct, frozen=True):
    """A reward model's say on each record: ``logged`` (n,) for the action taken, ``policy`` (n,) averaged over the target's actions."""

    logged: Floats
    policy: Floats


def predicted(predictions: npt.ArrayLike, targets: npt.ArrayLike, actions: npt.ArrayLike) -> Predicted:
    """What a model expects, from q(x, a) (n, k), the target policy's chances (n, k) and the logged actions (n,).

    The model must be fitted on other records than these (cross-fitting: Chernozhukov et al. 2018), or the interval is too narrow.
    Raises ValueError on shapes that differ, an action outside the k, or chances that do not sum to 1.
    """
    q, t, a = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64), np.asarray(actions, dtype=np.int64)
    if q.ndim != 2 or q.shape != t.shape or a.shape != q.shape[:1]:
        raise ValueError(f"predictions {q.shape} and target chances {t.shape} must be (n, k) alike, and actions {a.shape} be (n,)")
    if a.size and not (a.min() >= 0 and a.max() < q.shape[1]):
        raise ValueError(f"an action is outside the {q.shape[1]} that have predictions")
    if not np.isfinite(q).all() or (t < 0.0).any() or not np.allclose(t.sum(axis=1), 1.0, atol=1e-6):
        raise ValueError("predictions must be finite, and each record's target chances be at least 0 and sum to 1")
    return Predicted(np.take_along_axis(q, a[:, None], axis=1)[:, 0], (q * t).sum(axis=1))


def _check(rewards: Floats, propensities: Floats, targets: Floats) -> None:
    if not (rewards.ndim == 1 and rewards.shape == propensities.shape == targets.shape):
        raise ValueError(f"rewards {rewards.shape}, propensities {propensities.shape} and targets {targets.shape} must be (n,) alike")
    if not np.isfinite(rewards).all():
        raise ValueError("a reward is not finite")
    if not ((propensities > 0.0) & (propensities <= 1.0)).all():
        raise ValueError("each logged propensity must be above 0 and at most 1: what was done had a chance")
    if not ((targets >= 0.0) & (targets <= 1.0)).all():
        raise ValueError("each target probability must be between 0 and 1")
