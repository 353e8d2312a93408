"""Whether a treatment harms a guardrail by more than its limit: one-sided, and valid however often it is looked at."""

from __future__ import annotations

import math

from msgspec import Struct

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Correction
from millrace.schemas.metric import Direction
from millrace.schemas.result import Harm
from millrace.streams.judge.estimate import Pair, Terms
from millrace.streams.stats.arm import arm
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.sequence import OneSided, Side, one_sided


class Tolerance(Struct, frozen=True, kw_only=True):
    """What a guardrail bears: harm up to ``limit``, told at ``level``, from so many units in each arm on."""

    limit: float
    level: float
    minimal_units: int = 0


def family_level(alpha: float, comparisons: int, correction: Correction) -> float:
    """The level of each of a plan's guardrail tests: alpha over how many there are, unless the plan corrects nothing.

    Bonferroni for every correction: how many tests a plan has is known before the first look, so each test's level is the same at all
    looks, which its validity at any time rests on. Holm's and Benjamini-Hochberg's levels move with the other tests' p-values.
    """
    return alpha if correction is Correction.NONE else alpha / max(1, comparisons)


def harm(pair: Pair, terms: Terms, bears: Tolerance) -> Harm | CannotTell:
    """The one-sided test of harm beyond the limit, against the metric's direction.

    Where the control's mean is too uncertain to divide by, as that of rare errors is, a relative limit is tested without division: harm
    is T - (1 + limit) C > 0 (Fieller, JRSS B 1954). So an arm that fails a hundred times is stopped though the control never failed.
    """
    units = min(pair.control.n, pair.treatment.n)
    if units < bears.minimal_units:
        return CannotTell(f"an arm has {units} units; the plan decides nothing below {bears.minimal_units} in each")
    effect = pair.effect(terms.difference)
    if not isinstance(effect, CannotTell):
        return _told(_test(effect, pair.direction, bears.limit, terms, bears.level), pair.direction, bears)
    if terms.difference is Difference.ABSOLUTE:
        return effect
    return _without_division(pair, terms, bears, effect)


def _test(effect: Effect, direction: Direction, limit: float, terms: Terms, level: float) -> OneSided | CannotTell:
    """Where more is better, harm is an effect below -limit, bounded from above; where less is, one above the limit, bounded from below."""
    if direction is Direction.INCREASE:
        return one_sided(effect, Side.UPPER, -limit, level, terms.tuning)
    return one_sided(effect, Side.LOWER, limit, level, terms.tuning)


def _told(test: OneSided | CannotTell, direction: Direction, bears: Tolerance) -> Harm | CannotTell:
    if isinstance(test, CannotTell):
        return test
    bound = -test.bound if direction is Direction.INCREASE else test.bound
    return Harm(limit=bears.limit, bound=bound, p_value=test.p_value, breached=test.p_value < bears.level)


def _without_division(pair: Pair, terms: Terms, bears: Tolerance, why: CannotTell) -> Harm | CannotTell:
    contrast = _linear(pair, bears.limit)
    if contrast is None:
        return why
    test = _test(contrast, pair.direction, 0.0, terms, bears.level)
    if isinstance(test, CannotTell):
        return test
    return Harm(limit=bears.limit, bound=why, p_value=test.p_value, breached=test.p_value < bears.level)


def _linear(pair: Pair, limit: float) -> Effect | None:
    """The treatment's mean less the worst that the limit tolerates of the control's; None where no lift over it has a meaning."""
    if pair.kind is Kind.QUANTILE:
        return None
    left, right = arm("control", pair.control, pair.kind), arm("treatment", pair.treatment, pair.kind)
    if isinstance(left, CannotTell) or isinstance(right, CannotTell) or left.mean < 0.0:
        return None
    factor = 1.0 - limit if pair.direction is Direction.INCREASE else 1.0 + limit
    squared_error = right.squared_error + factor * factor * left.squared_error
    if not squared_error > 0.0:
        return None
    return Effect(
        effect=right.mean - factor * left.mean,
        std_error=math.sqrt(squared_error),
        n=left.n + right.n,
        degrees=float(left.n + right.n - 2),
        control_mean=left.mean,
        treatment_mean=right.mean,
        difference=Difference.ABSOLUTE,
    )
