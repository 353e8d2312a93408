"""Do new weights move exactly the share that changed, and does every bucket keep one owner?"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.schemas.experiment import Span
from millrace.streams.spans import by_weight, moved, shares

weights = st.lists(st.floats(1e-9, 10) | st.sampled_from([0.0, 1.0, 1 / 3]), min_size=1, max_size=6).filter(lambda given: sum(given) > 1e-3)
Spans = tuple[Span, ...]


def named(values: list[float]) -> dict[str, float]:
    return {f"v{i}": value for i, value in enumerate(values)}


def changed(before: Spans, after: Spans) -> float:
    """The share of [0, 1) that has another variant after."""
    cuts = sorted({0.0, 1.0, *(span.low for span in (*before, *after))})
    return float(sum(Fraction(high) - Fraction(low) for low, high in pairwise(cuts) if owner(before, low) != owner(after, low)))


def owner(spans: Spans, place: float) -> str:
    return next(span.variant for span in spans if span.low <= place < span.high)


def is_whole(spans: Spans) -> bool:
    """From 0 to 1, without gap or overlap, no two neighbours of one variant."""
    ends = [(0.0, 0.0, ""), *((span.low, span.high, span.variant) for span in spans)]
    follow = all(after[0] == before[1] and after[1] > after[0] and after[2] != before[2] for before, after in pairwise(ends))
    return follow and spans[-1].high == 1.0


def wanted(values: list[float]) -> dict[str, float]:
    total = sum(map(Fraction, values))
    return {name: float(Fraction(value) / total) for name, value in named(values).items()}


@settings(max_examples=300, deadline=None)
@given(weights, st.lists(weights, min_size=1, max_size=5))
def test_any_number_of_new_weights(first: list[float], later: list[list[float]]) -> None:
    spans, known = by_weight(named(first)), len(first)
    for values in later:
        known = max(known, len(values))
        new = values + [0.0] * (known - len(values))
        before, spans = spans, moved(spans, named(new))
        share = wanted(new)
        assert is_whole(spans)
        held, had = shares(spans), shares(before)
        assert all(abs(held.get(name, 0.0) - share[name]) <= 1e-12 for name in share)
        assert all(name not in held for name in share if share[name] == 0)
        grown = sum(max(0.0, held.get(name, 0.0) - had.get(name, 0.0)) for name in share)
        assert abs(changed(before, spans) - grown) <= 1e-12


@settings(max_examples=100, deadline=None)
@given(weights, st.sampled_from([1.0, 2.0, 3.0, 0.1]))
def test_the_same_shares_move_nobody(values: list[float], factor: float) -> None:
    spans = by_weight(named(values))
    assert is_whole(spans)
    assert moved(spans, named([value * factor for value in values])) == spans


def test_nobody_moves_through_a_variant_whose_share_stays() -> None:
    before = by_weight({"a": 1, "b": 1, "c": 1})
    after = moved(before, {"a": 0.5, "b": 1, "c": 1.5})
    middle = next(span for span in before if span.variant == "b")
    assert middle in after
    assert abs(changed(before, after) - 1 / 6) < 1e-12


def test_back_and_forth_ends_where_it_began() -> None:
    spans = by_weight({"a": 1, "b": 1})
    there = moved(spans, {"a": 9, "b": 1})
    assert [(span.variant, round(span.low, 6), round(span.high, 6)) for span in there] == [("a", 0, 0.5), ("b", 0.5, 0.6), ("a", 0.6, 1)]
    assert moved(there, {"a": 1, "b": 1}) == spans
