"""What an installed policy is: a pure function from its arms' summaries to a probability vector; and the check of what it returns.

A package offers one under the entry point group ``millrace.policies``. It is called with the same arms in the same order whenever the
same offsets are judged, and must return the same vector: it may keep nothing, draw nothing and look at no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from millrace.schemas.errors import UsageError
from millrace.streams.bandits.floor import floored
from millrace.streams.stats.summary import Summary

GROUP = "millrace.policies"
TOLERANCE = 1e-9


class CustomPolicy(Protocol):
    """Each arm's share of the requests, in the order of ``arms``: by variant in the plan's order, its rewards' count, mean and variance."""

    def __call__(self, arms: Mapping[str, Summary]) -> object: ...


def allocate(policy: CustomPolicy, arms: Mapping[str, Summary], floor: float) -> list[float]:
    """The weights to publish: what the policy returns, checked and floored. Raises UsageError for a vector that is none."""
    return floored(checked(policy(arms), len(arms)), floor)


def checked(vector: object, arms: int) -> list[float]:
    """A policy's answer as a probability vector that sums to 1. Raises UsageError that says what is wrong with it.

    >>> checked((0.25, 0.75), 2)
    [0.25, 0.75]
    """
    if not isinstance(vector, Iterable) or isinstance(vector, str | bytes | Mapping):
        raise UsageError(f"a policy must return a sequence of {arms} probabilities, one for each arm, and returned {type(vector).__name__}")
    try:
        shares = [float(share) for share in vector]
    except (TypeError, ValueError) as error:
        raise UsageError(f"a policy must return {arms} numbers, one for each arm: {error}") from None
    if len(shares) != arms:
        raise UsageError(f"a policy must return {arms} probabilities, one for each arm, and returned {len(shares)}")
    for share in shares:
        if not (math.isfinite(share) and share >= 0):
            raise UsageError(f"a policy must return finite probabilities of at least 0, and returned {share}")
    total = math.fsum(shares)
    if abs(total - 1) > TOLERANCE:
        raise UsageError(f"a policy's probabilities must sum to 1, and sum to {total:.12g}: divide them by their sum")
    return [share / total for share in shares]
