"""All five estimates of what fixed chances would have earned, from logged decisions; the reward model is each arm's mean.

Cross-fitted for the doubly robust estimates. Of the direct method the interval must know how uncertain the means are, which predictions
by themselves do not say: its influence values are those of the arms' means, value + t / share (r - mean), share being how often the arm was
taken. It takes an arm's reward not to depend on when or for whom the arm was taken, which is the method's own risk; of a policy that chose
by context that is known to be wrong, and what rests on the means alone is refused. The others are right by the logged propensities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell
from millrace.streams.off_policy.estimate import Estimate, Method, doubly_robust, ips, snips, switch
from millrace.streams.off_policy.log import Floats, Logged, of_records, predicted
from millrace.streams.off_policy.overlap import Terms

Ints = npt.NDArray[np.int64]
TAU = 10.0
"""Switch-DR trusts the model alone where a record would weigh more than this."""
CONFOUNDED = (
    "the policy chose by context, so that an arm's mean is that of the requests it was given to, and not of all:"
    " go by ips, snips or doubly_robust, which know each decision's own propensity"
)


class Logging(Protocol):
    """One decision: what was done, the chance that it had, the reward it brought, and the part of the data it is in."""

    @property
    def variant(self) -> str: ...

    @property
    def propensity(self) -> float: ...

    @property
    def reward(self) -> float: ...

    @property
    def fold(self) -> int: ...


def target_of(variants: Sequence[str], wanted: Mapping[str, float] | None) -> dict[str, float]:
    """The chances to evaluate, one for each variant: even ones, or those that are wanted. Raises UsageError for what is no probability."""
    if wanted is None:
        return {name: 1.0 / len(variants) for name in variants}
    unknown = sorted(set(wanted) - set(variants))
    if unknown:
        raise UsageError(f"the target names the variant {unknown[0]!r}, which is none of {', '.join(variants)}")
    if any(not 0.0 <= chance <= 1.0 for chance in wanted.values()) or abs(sum(wanted.values()) - 1.0) > 1e-9:
        raise UsageError(f"the target's chances must be from 0 to 1 and sum to 1; they sum to {sum(wanted.values()):.12g}")
    return {name: wanted.get(name, 0.0) for name in variants}


def estimates(
    decisions: Sequence[Logging], target: Mapping[str, float], terms: Terms, tau: float = TAU, *, by_context: bool = False
) -> dict[str, Estimate | CannotTell]:
    """Each estimate by its name, or why there is none. ``target`` has a chance for each variant, the same in any context.

    ``by_context``: whether the logged policy chose by context.

    Sources: those of ``millrace.streams.off_policy.estimate``; cross-fitting: Chernozhukov et al. 2018.
    """
    if not decisions:
        return {"all": CannotTell("no decision counts yet: there is nothing to learn from")}
    names = list(target)
    actions = np.array([names.index(one.variant) for one in decisions], dtype=np.int64)
    chances = np.array([target[name] for name in names])
    rewards = np.array([one.reward for one in decisions])
    log = of_records(rewards, np.array([one.propensity for one in decisions]), chances[actions])
    found: dict[str, Estimate | CannotTell] = {"ips": ips(log, terms), "snips": snips(log, terms)}
    folds = np.array([one.fold for one in decisions], dtype=np.int64)
    found |= _with_model(log, actions, folds, chances, (terms, tau))
    if by_context:
        found["direct"] = CannotTell(CONFOUNDED)
        if bool((log.weights > tau).any()):
            found["switch"] = CannotTell(f"some records weigh more than tau, {tau:g}, where the model alone counts, and {CONFOUNDED}")
    return found


def _with_model(log: Logged, actions: Ints, folds: Ints, chances: Floats, how: tuple[Terms, float]) -> dict[str, Estimate | CannotTell]:
    terms, tau = how
    model = _means(log.means, actions, folds, chances)
    if isinstance(model, CannotTell):
        return dict.fromkeys(("direct", "doubly_robust", "switch"), model)
    told = predicted(model, np.broadcast_to(chances, model.shape), actions)
    return {
        "direct": _direct(log.means, actions, chances, terms),
        "doubly_robust": doubly_robust(log, told, terms),
        "switch": switch(log, told, tau, terms),
    }


def _direct(rewards: Floats, actions: Ints, chances: Floats, terms: Terms) -> Estimate | CannotTell:
    """The arms' means weighed by the target: doubly robust under the shares with which arms were really taken, whose correction is 0."""
    counts = np.bincount(actions, minlength=len(chances))
    means = np.bincount(actions, weights=rewards, minlength=len(chances)) / np.maximum(counts, 1)
    log = of_records(rewards, (counts / len(actions))[actions], chances[actions])
    shape = (len(actions), len(chances))
    found = doubly_robust(log, predicted(np.broadcast_to(means, shape), np.broadcast_to(chances, shape), actions), terms)
    return found if isinstance(found, CannotTell) else replace(found, method=Method.DIRECT, model_share=1.0)


def _means(rewards: Floats, actions: Ints, folds: Ints, chances: Floats) -> Floats | CannotTell:
    """What each arm should bring (n, k): its mean over the other parts of the data; 0 where there is none and the target never takes it."""
    parts, k = int(folds.max()) + 1, len(chances)
    cells = folds * k + actions
    counts = np.bincount(cells, minlength=parts * k).reshape(parts, k)
    totals = np.bincount(cells, weights=rewards, minlength=parts * k).reshape(parts, k)
    others, sums = counts.sum(axis=0) - counts, totals.sum(axis=0) - totals
    present = np.flatnonzero(counts.sum(axis=1))
    if bool((others[present][:, chances > 0.0] == 0).any()):
        return CannotTell("an arm that the target takes has too few decisions for a reward model")
    means: Floats = np.where(others > 0, sums / np.maximum(others, 1), 0.0)
    return means[folds]
