"""From exact Gram sums to the posterior that a contextual policy publishes: ridge regression of the reward, arm by arm.

With A = ridge I + sum x x^T, the coefficients are A^-1 sum x r and their covariance v^2 A^-1 (Agrawal & Goyal 2013, Thompson Sampling for
Contextual Bandits with Linear Payoffs, Algorithm 1; one regression per arm, as in Li, Chu, Langford & Schapire 2010, Algorithm 1).
The features are scaled to [-1, 1], so that one ridge means the same for each of them, and the constant is regularised as they are: a
policy's ridge is weak beside its ``minimal`` requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from millrace.schemas.errors import UsageError
from millrace.schemas.policy_state import STEPS, ArmState, ContextualState, Feature, Gram, Method
from millrace.streams.bandits.allocate import MINIMAL
from millrace.streams.bandits.floor import least_units

Floats = npt.NDArray[np.float64]

LEAST_RIDGE = 2.0**-36
"""The least ridge as a share of the largest diagonal entry: below it, rounding decides whether features that agree can be solved."""


class ContextualSettings(Struct, frozen=True, kw_only=True):
    """How a contextual policy learns and explores.

    ``exploration`` is, by method, LinTS's v in the reward's own units (about the standard deviation of a reward given its features);
    the factor of SquareCB's gamma = exploration sqrt(requests), per unit of reward; or epsilon.
    """

    method: Method
    features: tuple[Feature, ...]
    exploration: float
    resolution: float = 1e-6
    ridge: float = 1.0
    floor: float = 0.01
    minimal: int = MINIMAL


def learnt(arms: Sequence[Gram], settings: ContextualSettings) -> ContextualState:
    """The policy to publish, from each arm's sums. Raises UsageError naming the setting that is out of its range."""
    check(settings, len(arms))
    total = sum(arm.n for arm in arms)
    square_cb = settings.method is Method.SQUARE_CB
    return ContextualState(
        method=settings.method,
        features=settings.features,
        arms=tuple(_arm(arm, settings) for arm in arms),
        exploration=settings.exploration * math.sqrt(total) if square_cb else settings.exploration,
        floor=settings.floor,
    )


def check(settings: ContextualSettings, arms: int) -> None:
    """Raise UsageError naming what is out of its range."""
    least_units(settings.floor, arms)
    if not (math.isfinite(settings.ridge) and settings.ridge > 0):
        raise UsageError(f"ridge must be finite and above 0, not {settings.ridge}")
    if not (math.isfinite(settings.exploration) and settings.exploration > 0):
        raise UsageError(f"exploration must be finite and above 0, not {settings.exploration}")
    if settings.method is Method.EPSILON_GREEDY and settings.exploration > 1:
        raise UsageError(f"exploration of epsilon-greedy is a share of the requests, not {settings.exploration}")
    for feature in settings.features:
        if not feature.has_range:
            raise UsageError(f"feature {feature.name!r}: its range must be finite, low below high")


def posterior(gram: Gram, ridge: float, resolution: float = 1.0) -> tuple[Floats, Floats]:
    """The coefficients (p,) and L^-1 (p, p), A = L L^T, of 1 and the features, scaled to [-1, 1]."""
    p = len(gram.rewards)
    a = np.zeros((p, p))
    a[np.triu_indices(p)] = [product / STEPS**2 for product in gram.products]
    a += np.triu(a, 1).T
    a[np.diag_indices(p)] += max(ridge, LEAST_RIDGE * float(a.diagonal().max()))
    step = Fraction(str(resolution)) / STEPS
    moment = np.array([float(reward * step) for reward in gram.rewards])
    root: Floats = np.tril(np.linalg.solve(np.linalg.cholesky(a), np.eye(p)))
    return root.T @ (root @ moment), root


def _arm(gram: Gram, settings: ContextualSettings) -> ArmState:
    if len(gram.rewards) != len(settings.features) + 1:
        raise UsageError(
            f"the sums are over {len(gram.rewards) - 1} features and the policy names {len(settings.features)}: state the same"
        )
    coefficients, root = posterior(gram, settings.ridge, settings.resolution)
    lower = root[np.tril_indices(len(root))].tolist() if settings.method is Method.LIN_TS else []
    return ArmState(n=gram.n, ready=gram.n >= settings.minimal, coefficients=tuple(coefficients.tolist()), root=tuple(lower))
