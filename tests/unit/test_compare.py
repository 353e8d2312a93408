"""What stands on a partition against what transactions come to: each kind of difference is told as what it is, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import pytest

from millrace.schemas.event import from_ms
from millrace.schemas.outcome import Outcome
from millrace.schemas.record import Format, Record
from millrace.schemas.topics import OUTCOMES
from millrace.schemas.wire import codec
from millrace.streams import compare
from millrace.streams.compare import Difference, Lane, Reader, Stated, headers_of, key_of

CODEC = codec(OUTCOMES)
PLACE = ("outcomes", 0)


def outcome(name: str, value: float = 1.0, at_ms: int = 0) -> Outcome:
    return Outcome(id=name, unit_id="u", metric="m", value=value, time=from_ms(at_ms))


def stated(event: Outcome, cause: str = "commits/0@7") -> Stated:
    return Stated(cause, b"u", CODEC.encode(event), headers_of(CODEC.headers(str(event.id))), key_of(event))


def log(events: Iterable[Outcome], form: Format = Format.JSON) -> list[Record]:
    return [Record("outcomes", 0, at, 0, b"u", CODEC.encode(one, form), CODEC.headers(str(one.id), form)) for at, one in enumerate(events)]


class Bench:
    """A lane over a log, and what it told."""

    def __init__(self, records: list[Record], judged_end: int = 1_000_000, elsewhere: tuple[str, ...] = ()) -> None:
        self.told: list[Difference] = []
        self.lane = Lane(
            PLACE, iter(records), judged_end, Reader(), lambda event: event.id in elsewhere if event else False, self.told.append
        )

    def expect(self, slot: str, *events: Outcome) -> Bench:
        self.lane.expect(slot, [stated(event) for event in events])
        return self

    def finish(self) -> list[tuple[int | None, str]]:
        self.lane.finish()
        return [(one.offset, one.what) for one in self.told]


def test_the_same_bytes_in_order_are_equal() -> None:
    events = [outcome(f"o{n}") for n in range(6)]
    bench = Bench(log(events)).expect("s-0", *events[:2]).expect("s-0", *events[2:])
    assert bench.finish() == []
    assert bench.lane.equal == 6


def test_slots_may_stand_between_each_other_in_an_order_that_is_not_on_record() -> None:
    a, b = [outcome(f"a{n}") for n in range(3)], [outcome(f"b{n}") for n in range(3)]
    bench = Bench(log([b[0], a[0], b[1], b[2], a[1], a[2]])).expect("s-0", *a).expect("s-1", *b)
    assert bench.finish() == []
    assert bench.lane.equal == 6


def test_copies_of_one_request_in_two_slots_are_told_apart_by_their_time() -> None:
    first, copy = outcome("o", at_ms=5), outcome("o", at_ms=6)
    assert Bench(log([copy, first])).expect("s-0", first).expect("s-1", copy).finish() == []


def test_one_slots_events_out_of_order_differ() -> None:
    one, two = outcome("o1"), outcome("o2")
    assert Bench(log([two, one])).expect("s-0", one, two).finish() == [
        (None, "the event o1 is not there"),
        (1, "no transaction comes to this record"),
    ]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"value": CODEC.encode(outcome("o1", 2.5))}, "value is 2.5, the replay says 1.0"),
        ({"value": CODEC.encode(outcome("o1")) + b" "}, "the same fields, written differently"),
        ({"key": b"w"}, "the key is b'w', the replay says b'u'"),
        ({"headers": [*CODEC.headers("o1"), ("traceparent", b"00")]}, "headers: traceparent"),
        ({"headers": CODEC.headers("o1")[::-1]}, "headers: their order"),
    ],
)
def test_a_changed_byte_is_told_by_field(change: dict[str, object], what: str) -> None:
    events = [outcome(f"o{n}") for n in range(3)]
    records = log(events)
    for name, value in change.items():
        setattr(records[1], name, value)
    bench = Bench(records).expect("s-0", *events)
    assert bench.finish() == [(1, what)]
    assert bench.lane.equal == 2
    assert (bench.told[0].place, bench.told[0].commit) == ("outcomes/0@1", "commits/0@7")


def test_another_format_is_another_record() -> None:
    assert Bench(log([outcome("o")], Format.MSGPACK)).expect("s-0", outcome("o")).finish() == [
        (0, "headers: content-type; the same fields, written differently")
    ]


def test_what_is_missing_and_what_is_too_much_is_told_and_the_rest_is_equal() -> None:
    events = [outcome(f"o{n}") for n in range(5)]
    bench = Bench(log([events[0], outcome("alien"), events[2], events[3]])).expect("s-0", *events[:3]).expect("s-0", *events[3:])
    assert sorted(bench.finish(), key=str) == [
        (1, "no transaction comes to this record"),
        (None, "the event o1 is not there"),
        (None, "the event o4 is not there"),
    ]
    assert bench.lane.equal == 3


def test_what_cannot_be_decoded_is_too_much() -> None:
    records = log([outcome("o0"), outcome("o1")])
    records[0].value = b"{"
    assert Bench(records).expect("s-0", outcome("o1")).finish() == [(0, "no transaction comes to this record")]


def test_what_comes_from_elsewhere_or_later_is_not_judged() -> None:
    events = [outcome(f"o{n}") for n in range(4)]
    bench = Bench(log(events), judged_end=3, elsewhere=("o0",)).expect("s-0", events[1], events[2])
    assert bench.finish() == []
    assert bench.lane.elsewhere == 1


def test_before_the_start_of_a_log_that_was_cut_nothing_is_missing() -> None:
    events = [outcome(f"o{n}") for n in range(5)]
    bench = Bench(log([events[2], events[4]]))
    bench.lane.cut = True
    assert bench.expect("s-0", *events).finish() == [(None, "the event o3 is not there")]
    assert (bench.lane.dropped, bench.lane.equal) == (2, 2)


def test_a_log_that_has_nothing_to_do_with_it_is_not_taken_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LOOKAHEAD", 10)
    taken = count()
    records = (record for record in log(outcome(f"alien{n}") for n in range(100)) if next(taken) >= 0)
    told: list[Difference] = []
    lane = Lane(PLACE, records, 1_000, Reader(), lambda event: False, told.append)
    lane.expect("s-0", [stated(outcome(f"o{n}")) for n in range(50)])
    assert next(taken) <= 11
    assert len(told) == 40
    lane.finish()
    assert len(told) == 150
