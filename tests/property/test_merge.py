"""Merging joined topics: one order, whatever the chunks in which they come and whatever is asked in between."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from millrace.schemas.record import Record
from millrace.streams.merge import Merge

TOPICS = ("a", "b", "c")
GAPS = st.lists(st.integers(0, 3), max_size=12)


def topic_of(name: str, gaps: Sequence[int]) -> list[Record]:
    """A topic whose append times never go back; equal ones are common."""
    times, now = [], 0
    for gap in gaps:
        now += gap
        times.append(now)
    return [Record(name, 0, offset, time, None, None) for offset, time in enumerate(times)]


def order(records: Sequence[Record]) -> list[tuple[int, int, int]]:
    return [(record.appended_ms, TOPICS.index(record.topic), record.offset) for record in records]


@given(st.tuples(GAPS, GAPS, GAPS), st.data())
def test_the_result_is_sorted_whatever_the_chunks(gaps: tuple[list[int], list[int], list[int]], data: st.DataObject) -> None:
    left = {name: topic_of(name, given) for name, given in zip(TOPICS, gaps, strict=True)}
    everything = [record for records in left.values() for record in records]
    merge, out = Merge(TOPICS), []
    while any(left.values()):
        name = data.draw(st.sampled_from([name for name, records in left.items() if records]))
        number = data.draw(st.integers(1, len(left[name])))
        merge.push(left[name][:number])
        left[name] = left[name][number:]
        ended = {name for name, records in left.items() if not records} if data.draw(st.booleans()) else set()
        out += merge.ready(ended)
    out += merge.ready(TOPICS)
    assert order(out) == sorted(order(everything))
    assert len(merge) == 0


@given(st.tuples(GAPS, GAPS, GAPS), st.integers(0, 40), st.data())
def test_nothing_comes_out_below_a_watermark_that_was_told(
    gaps: tuple[list[int], list[int], list[int]], quiet_ms: int, data: st.DataObject
) -> None:
    """What is appended to a quiet input later has a later time than the one at which it was asked for."""
    left = {name: topic_of(name, given) for name, given in zip(TOPICS, gaps, strict=True)}
    merge, told = Merge(TOPICS), 0
    while any(left.values()):
        name = data.draw(st.sampled_from([name for name, records in left.items() if records]))
        merge.push(left[name][:1])
        left[name] = left[name][1:]
        quiet = {name for name, records in left.items() if not records or records[0].appended_ms >= quiet_ms}
        safe = {name for name in quiet if all(r.appended_ms >= quiet_ms for r in left[name])} if quiet_ms <= min_held(merge) else set()
        for record in merge.ready(safe):
            assert record.appended_ms >= told
        told = max(told, merge.watermark_ms(safe, quiet_ms))
    for record in merge.ready(TOPICS):
        assert record.appended_ms >= told


def min_held(merge: Merge) -> int:
    """A bound under every held record; 0 where nothing is held keeps the test on safe ground."""
    return min((held[0].appended_ms for held in merge._held.values() if held), default=0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_an_empty_input_holds_the_others_back_until_it_is_quiet(first: list[int], second: list[int]) -> None:
    merge = Merge(("a", "b"))
    merge.push(topic_of("a", first))
    assert merge.ready() == []
    assert merge.waiting_for() == {"b"}
    merge.push(topic_of("b", second))
    last = {name: sum(gaps) for name, gaps in (("a", first), ("b", second))}
    out = merge.ready()
    assert all(record.appended_ms <= min(last.values()) for record in out)
    assert len(out) + len(merge) == len(first) + len(second)
