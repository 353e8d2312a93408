"""The checker of the integration harness finds every anomaly that is planted, and nothing where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from millrace.schemas.commit import Commit, Range
from millrace.schemas.event import from_ms
from tests.integration.harness.checker import Answer, Evidence, Kind, check


def answer(number: int, key: str, count: int) -> Answer:
    return Answer(f"o{number}", key, b"%d" % number, ("predictions", 0, number), count)


def commit(start: int, end: int, emitted: int) -> Commit:
    taken = Range(topic="predictions", partition=0, start=start, end=end)
    return Commit(id=f"{start}-{end}", time=from_ms(0), worker="w", slot="w-0", inputs=(taken,), emitted=emitted)


def sound() -> Evidence:
    """Six inputs of two keys, answered by three transactions; key a counts 1 2 3, key b counts 1 2 3."""
    answers = [answer(number, "ab"[number % 2], number // 2 + 1) for number in range(6)]
    return Evidence(
        expected=answers,
        actual=list(answers),
        forbidden=frozenset({"aborted"}),
        commits=[commit(0, 2, 2), commit(2, 4, 2), commit(4, 6, 2)],
        positions={("predictions", 0): 6},
        expected_state={(0, b"ca"): b"3", (0, b"cb"): b"3"},
        actual_state={(0, b"ca"): b"3", (0, b"cb"): b"3"},
    )


def lost(evidence: Evidence) -> None:
    """Both answers of a transaction that says that it held none."""
    del evidence.actual[4:6]
    evidence.commits[2] = replace(evidence.commits[2], emitted=0)


def duplicate(evidence: Evidence) -> None:
    evidence.actual.append(evidence.actual[5])


def reordered(evidence: Evidence) -> None:
    first, third = evidence.actual[0], evidence.actual[2]
    evidence.actual[0], evidence.actual[2] = replace(third, count=1), replace(first, count=2)


def aborted_read(evidence: Evidence) -> None:
    evidence.actual.append(Answer("aborted", "z", b""))


def torn(evidence: Evidence) -> None:
    """One of the two answers of a transaction is not there."""
    del evidence.actual[3]


def stale_state(evidence: Evidence) -> None:
    evidence.actual_state[(0, b"ca")] = b"2"


def gap(evidence: Evidence) -> None:
    evidence.commits[2] = commit(5, 6, 2)


def double_count(evidence: Evidence) -> None:
    """The state was restored one short: a count comes twice."""
    evidence.actual[4] = replace(evidence.actual[4], count=2)


def overlap(evidence: Evidence) -> None:
    evidence.commits[2] = commit(3, 6, 2)


def short_of_position(evidence: Evidence) -> None:
    """The group stands further than what its transactions covered."""
    evidence.positions[("predictions", 0)] = 7


def altered(evidence: Evidence) -> None:
    evidence.actual[1] = replace(evidence.actual[1], value=b"other")


@dataclass(frozen=True)
class Planted:
    plant: Callable[[Evidence], None]
    kind: Kind


PLANTED = [
    Planted(lost, Kind.LOST),
    Planted(duplicate, Kind.DUPLICATE),
    Planted(reordered, Kind.REORDERED),
    Planted(aborted_read, Kind.ABORTED_READ),
    Planted(torn, Kind.TORN),
    Planted(stale_state, Kind.STALE_STATE),
    Planted(gap, Kind.GAP),
    Planted(double_count, Kind.DOUBLE_COUNT),
    Planted(overlap, Kind.OVERLAP),
    Planted(short_of_position, Kind.GAP),
    Planted(altered, Kind.ALTERED),
]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert check(sound()) == []


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.plant.__name__)
def test_a_planted_anomaly_is_found(planted: Planted) -> None:
    evidence = sound()
    planted.plant(evidence)
    assert planted.kind in {anomaly.kind for anomaly in check(evidence)}


ALONE = [planted for planted in PLANTED if planted.plant not in (torn, duplicate, aborted_read)]


@pytest.mark.parametrize("planted", ALONE, ids=lambda planted: planted.plant.__name__)
def test_it_is_named_as_nothing_else(planted: Planted) -> None:
    """A torn transaction also loses, and what stands there too often is also more than the commits state."""
    evidence = sound()
    planted.plant(evidence)
    assert {anomaly.kind for anomaly in check(evidence)} == {planted.kind}
