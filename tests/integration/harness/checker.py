"""Names every way in which what stands on the topics differs from each input answered exactly once."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum

from msgspec import Struct, field

from millrace.schemas.commit import Commit

Spot = tuple[str, int, int]
Place = tuple[str, int]


class Kind(Enum):
    """What can be wrong."""

    LOST = "lost"
    DUPLICATE = "duplicate"
    REORDERED = "reordered"
    ABORTED_READ = "aborted read"
    TORN = "torn transaction"
    STALE_STATE = "stale state"
    GAP = "gap"
    OVERLAP = "overlap"
    DOUBLE_COUNT = "double count"
    UNKNOWN = "unknown"
    ALTERED = "altered"


class Anomaly(Struct, frozen=True):
    """One thing that is wrong, and where."""

    kind: Kind
    detail: str


class Answer(Struct, frozen=True):
    """One output: id, key, the bytes of its value, the record that brought it out (None: time did), its running count if it has one."""

    id: str
    key: str
    value: bytes
    source: Spot | None = None
    count: int | None = None


class Evidence(Struct, kw_only=True):
    """What was to come and what came. Lists of answers stand in the order of their topic's partitions and offsets."""

    expected: list[Answer]
    actual: list[Answer]
    forbidden: frozenset[str] = frozenset()
    """Ids that only an aborted input could bring out."""
    commits: list[Commit] = []
    positions: dict[Place, int] = {}
    expected_state: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    actual_state: dict[tuple[int, bytes], bytes] = field(default_factory=dict)


def check(evidence: Evidence) -> list[Anomaly]:
    """All anomalies; an empty list means that every input was answered exactly once, in order, with its state."""
    checks = (_lost, _duplicates, _unknown, _altered, _order, _torn, _tiles, _counts, _state)
    return [anomaly for look in checks for anomaly in look(evidence)]


def _lost(evidence: Evidence) -> Iterator[Anomaly]:
    present = {answer.id for answer in evidence.actual}
    for answer in evidence.expected:
        if answer.id not in present:
            yield Anomaly(Kind.LOST, f"{answer.id} of {answer.key}, from {answer.source}")


def _duplicates(evidence: Evidence) -> Iterator[Anomaly]:
    for name, times in Counter(answer.id for answer in evidence.actual).items():
        if times > 1:
            yield Anomaly(Kind.DUPLICATE, f"{name} stands there {times} times")


def _unknown(evidence: Evidence) -> Iterator[Anomaly]:
    known = {answer.id for answer in evidence.expected}
    for answer in evidence.actual:
        if answer.id in evidence.forbidden:
            yield Anomaly(Kind.ABORTED_READ, f"{answer.id} of {answer.key} comes from an aborted input")
        elif answer.id not in known:
            yield Anomaly(Kind.UNKNOWN, f"{answer.id} of {answer.key}")


def _altered(evidence: Evidence) -> Iterator[Anomaly]:
    values = {answer.id: answer.value for answer in evidence.expected}
    for answer in evidence.actual:
        if values.get(answer.id, answer.value) != answer.value:
            yield Anomaly(Kind.ALTERED, f"{answer.id}: {answer.value!r} instead of {values[answer.id]!r}")


def _order(evidence: Evidence) -> Iterator[Anomaly]:
    wanted, found = _by_key(evidence.expected), _by_key(evidence.actual)
    for key, ids in wanted.items():
        common = set(found[key]) & set(ids)
        expected = [name for name in ids if name in common]
        actual = list(dict.fromkeys(name for name in found[key] if name in common))
        if expected != actual:
            first = next(number for number, pair in enumerate(zip(expected, actual, strict=True)) if pair[0] != pair[1])
            yield Anomaly(Kind.REORDERED, f"key {key}: at place {first} stands {actual[first]} instead of {expected[first]}")


def _torn(evidence: Evidence) -> Iterator[Anomaly]:
    """A transaction's answers are all there or none is, and as many as it says."""
    sources = {answer.id: answer.source for answer in evidence.expected}
    wanted, found = _offsets(sources.values()), _offsets(sources.get(answer.id) for answer in evidence.actual)
    for commit in evidence.commits:
        there, all_of_it = _covered(commit, found), _covered(commit, wanted)
        if 0 < there < all_of_it:
            yield Anomaly(Kind.TORN, f"commit {commit.id} of {commit.slot}: {there} of {all_of_it} answers")
    if evidence.commits and (stated := sum(commit.emitted for commit in evidence.commits)) != len(evidence.actual):
        yield Anomaly(Kind.TORN, f"all commits state {stated} events and {len(evidence.actual)} are there")


def _offsets(sources: Iterable[Spot | None]) -> dict[Place, list[int]]:
    """The offsets of each place, each once and in order."""
    offsets: dict[Place, list[int]] = defaultdict(list)
    for topic, partition, offset in sorted({source for source in sources if source is not None}):
        offsets[(topic, partition)].append(offset)
    return offsets


def _covered(commit: Commit, offsets: dict[Place, list[int]]) -> int:
    """How many of these offsets a commit consumed."""
    pieces = ((offsets[(piece.topic, piece.partition)], piece) for piece in commit.inputs)
    return sum(bisect_left(known, piece.end) - bisect_left(known, piece.start) for known, piece in pieces)


def _tiles(evidence: Evidence) -> Iterator[Anomaly]:
    """The ranges of all commits cover each partition from its start to the group's position, once."""
    ranges: dict[Place, list[tuple[int, int]]] = defaultdict(list)
    for commit in evidence.commits:
        for piece in commit.inputs:
            ranges[(piece.topic, piece.partition)].append((piece.start, piece.end))
    for place, position in evidence.positions.items():
        yield from _tiled(place, sorted(ranges[place]), position)


def _tiled(place: Place, ranges: Iterable[tuple[int, int]], position: int) -> Iterator[Anomaly]:
    at = 0
    for start, end in [*ranges, (position, position)]:
        if start != at:
            yield Anomaly(Kind.GAP if start > at else Kind.OVERLAP, f"{place[0]}/{place[1]}: [{start}, {end}) follows what ends at {at}")
        at = max(at, end)


def _counts(evidence: Evidence) -> Iterator[Anomaly]:
    counts: dict[str, list[int]] = defaultdict(list)
    for answer in evidence.actual:
        if answer.count is not None:
            counts[answer.key].append(answer.count)
    for key, numbers in counts.items():
        if numbers != list(range(1, len(numbers) + 1)):
            yield Anomaly(Kind.DOUBLE_COUNT, f"key {key} counts {numbers}")


def _state(evidence: Evidence) -> Iterator[Anomaly]:
    for key in sorted(evidence.expected_state.keys() | evidence.actual_state.keys()):
        wanted, found = evidence.expected_state.get(key), evidence.actual_state.get(key)
        if wanted != found:
            yield Anomaly(Kind.STALE_STATE, f"group {key[0]}, {key[1]!r}: {found!r} instead of {wanted!r}")


def _by_key(answers: Iterable[Answer]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for answer in answers:
        ids[answer.key].append(answer.id)
    return ids
