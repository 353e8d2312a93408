"""The dead-letter cap: counted in one step or one by one, it comes to the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.schemas.record import Record
from millrace.streams.cap import Cap, CapLimits
from millrace.workers.groups import Verdicts, judge

LIMITS = st.builds(CapLimits, st.integers(1, 5), st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.integers(1, 12))


def counted(cap: Cap, dead: list[bool], limits: CapLimits) -> Cap:
    for one in dead:
        cap = cap.after(dead=one, limits=limits)
    return cap


@given(LIMITS, st.lists(st.booleans(), max_size=30), st.integers(0, 60))
def test_many_good_ones_at_once_are_as_many_one_by_one(limits: CapLimits, before: list[bool], good: int) -> None:
    cap = counted(Cap(), before, limits)
    assert cap.after_good(good, limits) == counted(cap, [False] * good, limits)


@given(LIMITS, st.lists(st.booleans(), max_size=60))
def test_counts_stay_within_their_window(limits: CapLimits, dead: list[bool]) -> None:
    cap = counted(Cap(), dead, limits)
    assert 0 <= cap.dead <= cap.seen <= limits.window_records
    assert cap.run == next((number for number, one in enumerate(reversed(dead)) if not one), len(dead))


@given(LIMITS, st.lists(st.booleans(), max_size=40), st.integers(-1, 40), st.integers(0, 40))
def test_judged_in_two_runs_or_in_one(limits: CapLimits, dead: list[bool], allowed: int, cut: int) -> None:
    records = [Record("t", 0, offset, 0, None, None) for offset in range(len(dead))]
    refused = {record.spot for record, bad in zip(records, dead, strict=True) if bad}
    begin = Verdicts(-1, Cap(), False)
    whole = judge(records, refused, begin, allowed, limits)
    first = judge(records[:cut], refused, begin, allowed, limits)
    assert (first if first.reached else judge(records[cut:], refused, first, allowed, limits)) == whole
    assert whole.reached == (max(whole.end, 0) < len(records))


@given(LIMITS, st.integers(0, 30))
def test_nothing_but_poison_is_let_through_no_further_than_the_cap(limits: CapLimits, poison: int) -> None:
    records = [Record("t", 0, offset, 0, None, None) for offset in range(poison)]
    verdict = judge(records, {record.spot for record in records}, Verdicts(-1, Cap(), False), -1, limits)
    assert max(verdict.end, 0) == min(poison, limits.run, first_over(limits))


def first_over(limits: CapLimits) -> int:
    """How many dead letters the ratio alone lets through."""
    cap = Cap()
    for number in range(10_000):
        if cap.dead >= limits.ratio * limits.window_records:
            return number
        cap = cap.after(dead=True, limits=limits)
    return 10_000
