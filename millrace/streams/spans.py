"""Which buckets give which variant, and how new weights move no bucket that they need not move.

By weight, in the declared order, the variants share [0, 1). A bucket is one of 2^53 places, so spans are computed in whole places: no
gaps, no overlap, and nothing that rounds. Moving the bounds between neighbours was rejected: of three variants, taking a tenth from the
first for the last would move a tenth through the middle one, which then loses and gains units without any change of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil

from msgspec import Struct

from millrace.schemas.experiment import Plan, Span

PLACES = 2**53
NEGLIGIBLE = 4
"""A share that differs by so few places from what is wanted is left as it is: weights as doubles are no more exact than that."""


class Run(Struct, frozen=True, order=True):
    """Places [low, high) of one variant."""

    low: int
    high: int
    variant: str

    @property
    def size(self) -> int:
        """How many places."""
        return self.high - self.low


def bounds(weights: Sequence[float]) -> list[float]:
    """The upper bound of each share of [0, 1) but the last. Summed from left to right, as ClickHouse's arrayCumSum does it.

    >>> bounds([1, 1, 2])
    [0.25, 0.5]
    """
    uppers = list(accumulate(weights))
    return [upper / uppers[-1] for upper in uppers[:-1]]


def by_weight(weights: Mapping[str, float]) -> tuple[Span, ...]:
    """The spans of a plan that has none of its own. A variant without a weight has none.

    >>> [(span.variant, span.low, span.high) for span in by_weight({"a": 1.0, "b": 0.0, "c": 3.0})]
    [('a', 0.0, 0.25), ('c', 0.25, 1.0)]
    """
    uppers = [*(ceil(bound * PLACES) for bound in bounds(list(weights.values()))), PLACES]
    runs = [Run(low, high, name) for name, low, high in zip(weights, [0, *uppers], uppers, strict=False)]
    return _spans(runs)


def of_plan(plan: Plan) -> tuple[Span, ...]:
    """A plan's own spans, or those that follow from its weights."""
    return plan.spans or by_weight({variant.name: variant.weight for variant in plan.variants})


def moved(spans: Iterable[Span], weights: Mapping[str, float]) -> tuple[Span, ...]:
    """Spans that give each variant its new share, of which exactly the changed share has another variant than before.

    Who shrinks gives up its last places; who grows, in the order of ``weights``, takes them from the lowest on. ``weights`` names every
    variant of ``spans``; others in it are new.

    >>> halves = by_weight({"a": 1.0, "b": 1.0})
    >>> [(span.variant, span.low, span.high) for span in moved(halves, {"a": 1.0, "b": 2.0, "c": 1.0})]
    [('a', 0.0, 0.25), ('c', 0.25, 0.5), ('b', 0.5, 1.0)]
    """
    runs = [Run(int(span.low * PLACES), int(span.high * PLACES), span.variant) for span in spans]
    changes = _changes(runs, weights)
    kept, given_up = _shrunk(runs, {name: -change for name, change in changes.items() if change < 0})
    taken = _taken(sorted(given_up), {name: change for name, change in changes.items() if change > 0})
    return _spans([*kept, *taken])


def shares(spans: Iterable[Span]) -> dict[str, float]:
    """Each variant's share, by what the spans give it."""
    sizes: dict[str, float] = {}
    for span in spans:
        sizes[span.variant] = sizes.get(span.variant, 0.0) + (span.high - span.low)
    return sizes


def _changes(runs: Iterable[Run], weights: Mapping[str, float]) -> dict[str, int]:
    """How many places each variant gains; they sum to 0."""
    had = dict.fromkeys(weights, 0)
    for run in runs:
        had[run.variant] += run.size
    total = sum(map(Fraction, weights.values()))
    wanted = {name: round(Fraction(weight) / total * PLACES) for name, weight in weights.items()}
    changes = {name: wanted[name] - had[name] if wanted[name] == 0 or abs(wanted[name] - had[name]) > NEGLIGIBLE else 0 for name in weights}
    rounded = max(changes, key=lambda name: (wanted[name] > 0, abs(changes[name]), wanted[name]))
    changes[rounded] -= sum(changes.values())
    return changes


def _shrunk(runs: list[Run], surplus: dict[str, int]) -> tuple[list[Run], list[Run]]:
    """What stays with its variant, and what is given up: each variant's last places."""
    kept, given_up = [], []
    for run in sorted(runs, reverse=True):
        less = min(run.size, surplus.get(run.variant, 0))
        if less:
            surplus[run.variant] -= less
        kept.append(Run(run.low, run.high - less, run.variant))
        given_up.append(Run(run.high - less, run.high, ""))
    return kept, given_up


def _taken(free: list[Run], wanted: dict[str, int]) -> list[Run]:
    """The free places, in order, to the variants that grow, in order."""
    taken = []
    for run in free:
        low = run.low
        for name in wanted:
            more = min(run.high - low, wanted[name])
            taken.append(Run(low, low + more, name))
            low, wanted[name] = low + more, wanted[name] - more
    return taken


def _spans(runs: Iterable[Run]) -> tuple[Span, ...]:
    """As spans, in order; neighbours of one variant become one."""
    joined: list[Run] = []
    for run in sorted(run for run in runs if run.size):
        if joined and joined[-1].variant == run.variant:
            joined[-1] = Run(joined[-1].low, run.high, run.variant)
        else:
            joined.append(run)
    return tuple(Span(low=run.low / PLACES, high=run.high / PLACES, variant=run.variant) for run in joined)
