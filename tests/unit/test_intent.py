"""Does each record become one row, whatever happens to its owner between two steps?"""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from millrace.streams.intent import Commit, Insert, Intent, Lane, Look, Open, Phase
from tests.ledger import EPOCH, LIMITS, Group, MemoryTable, Owner, record


def group(count: int, *, end: int | None = None) -> Group:
    return Group([record(n) for n in range(count)], count if end is None else end)


def settle(owner: Owner, table: MemoryTable, group: Group, seconds: float = 60.0) -> None:
    """Let an owner work until all is in the table and committed."""
    until = table.now + seconds
    while not (owner.lane.idle and owner.lane.start >= group.end):
        owner.poll()
        if owner.ask() is None:
            table.advance(0.5)
        owner.do()
        assert table.now < until, f"still {owner.lane.phase}"


def all_once(group: Group) -> Counter[int]:
    return Counter(record.offset for record in group.log)


def until(owner: Owner, kind: type) -> None:
    """Work until the lane asks for this."""
    for _ in range(100):
        owner.poll()
        if isinstance(owner.ask(cut_now=True), kind):
            return
        owner.do()
    raise AssertionError(f"never asked for {kind.__name__}")


@pytest.fixture
def table() -> MemoryTable:
    return MemoryTable(LIMITS.insert_seconds)


def test_records_become_rows_and_the_end_is_committed(table: MemoryTable) -> None:
    log = group(12)
    settle(Owner(log, table), table, log)
    assert table.rows == all_once(log)
    assert (log.offset, log.intent) == (12, None)


def test_an_intent_is_committed_before_the_insert_and_names_its_range_and_lease(table: MemoryTable) -> None:
    log = group(3)
    owner = Owner(log, table)
    until(owner, Insert)
    assert log.offset == 0
    assert log.intent == Intent(0, 3, int(EPOCH + LIMITS.lease_seconds))
    assert not table.rows


def test_the_next_intent_commits_the_end_of_the_block_before(table: MemoryTable) -> None:
    log = group(8)
    owner = Owner(log, table)
    until(owner, Insert)
    owner.do()
    assert isinstance(asked := owner.ask(), Commit | None)
    until(owner, Insert)
    assert (log.offset, log.intent and log.intent.end) == (5, 8)
    assert asked is None or asked.offset == 5


def test_a_low_rate_is_cut_after_the_block_time(table: MemoryTable) -> None:
    log = group(1)
    owner = Owner(log, table)
    owner.ask()
    owner.do()
    owner.poll()
    assert owner.ask() is None
    table.advance(LIMITS.block_seconds)
    assert isinstance(owner.ask(), Commit)


def test_markers_behind_the_last_record_are_committed_too(table: MemoryTable) -> None:
    log = group(3, end=4)
    settle(Owner(log, table), table, log)
    assert log.offset == 4


def test_gaps_in_the_log_are_no_absent_rows(table: MemoryTable) -> None:
    log = Group([record(n) for n in (0, 1, 5, 9)], 12)
    settle(Owner(log, table), table, log)
    assert table.rows == Counter((0, 1, 5, 9))


@pytest.mark.parametrize("inserted", [True, False])
def test_a_successor_inside_the_lease_repeats_the_same_insert(table: MemoryTable, inserted: bool) -> None:
    log = group(4)
    first = Owner(log, table)
    until(first, Insert)
    assert isinstance(first.pending, Insert)
    if inserted:
        table.insert(first.pending.intent, [record.offset for record in first.pending.records])
    second = Owner(log, table)
    until(second, Insert)
    assert isinstance(second.pending, Insert)
    assert second.pending.intent == first.pending.intent
    settle(second, table, log)
    assert table.rows == all_once(log)


@pytest.mark.parametrize("inserted", [True, False])
def test_a_successor_after_the_lease_looks_before_it_inserts(table: MemoryTable, inserted: bool) -> None:
    log = group(4)
    first = Owner(log, table)
    until(first, Insert)
    assert isinstance(first.pending, Insert)
    if inserted:
        table.insert(first.pending.intent, [record.offset for record in first.pending.records])
        table.tokens.clear()  # long ago: the table has forgotten it
    table.advance(LIMITS.lease_seconds + 2)
    second = Owner(log, table)
    second.poll()
    second.ask()
    second.do()
    assert second.ask() is None
    assert second.lane.phase is Phase.WAITING
    settle(second, table, log)
    assert table.rows == all_once(log)


def test_only_what_is_absent_is_inserted(table: MemoryTable) -> None:
    log = group(4)
    until(Owner(log, table), Insert)
    table.rows.update([1, 2])
    table.advance(LIMITS.lease_seconds + LIMITS.insert_seconds + 3)
    second = Owner(log, table)
    until(second, Look)
    assert log.intent is not None
    assert log.intent.look
    second.do()
    assert second.lane.settled[0].absent == 2
    settle(second, table, log)
    assert table.rows == all_once(log)


def test_a_zombie_that_wakes_after_its_lease_is_refused_by_the_table(table: MemoryTable) -> None:
    log = group(4)
    zombie = Owner(log, table)
    until(zombie, Insert)
    table.advance(LIMITS.lease_seconds + LIMITS.insert_seconds + 3)
    second = Owner(log, table)
    settle(second, table, log)
    zombie.do()
    assert zombie.lane.phase is Phase.WAITING
    assert table.rows == all_once(log)


def test_a_zombie_can_no_longer_commit(table: MemoryTable) -> None:
    log = group(4)
    zombie = Owner(log, table)
    until(zombie, Commit)
    settle(Owner(log, table), table, log)
    before = (log.offset, log.intent)
    zombie.do()
    assert (log.offset, log.intent) == before
    assert table.rows == all_once(log)


def test_a_zombies_insert_that_runs_on_is_waited_for(table: MemoryTable) -> None:
    log = group(4)
    zombie = Owner(log, table)
    until(zombie, Insert)
    table.advance(LIMITS.lease_seconds)
    zombie.begin()
    table.advance(2)
    second = Owner(log, table)
    for _ in range(4):
        second.poll()
        if second.ask() is not None:
            second.do()
    assert second.lane.phase is Phase.WAITING
    assert zombie.flight is not None
    assert table.land(zombie.flight)
    settle(second, table, log)
    assert table.rows == all_once(log)


def test_a_successor_never_repeats_an_insert_that_followed_a_look(table: MemoryTable) -> None:
    """Its token is another one: repeated under the first token the rows would stand there twice."""
    log = group(4)
    until(Owner(log, table), Insert)
    table.advance(LIMITS.lease_seconds + LIMITS.insert_seconds + 3)
    second = Owner(log, table)
    until(second, Look)
    second.do()
    until(second, Insert)
    assert isinstance(second.pending, Insert)
    table.insert(second.pending.intent, [record.offset for record in second.pending.records])
    third = Owner(log, table)
    settle(third, table, log)
    assert table.rows == all_once(log)


def test_a_lost_answer_is_repeated_under_the_same_token(table: MemoryTable) -> None:
    log = group(4)
    owner = Owner(log, table)
    until(owner, Insert)
    owner.begin()
    assert owner.flight is not None
    table.land(owner.flight)
    owner.lose()
    settle(owner, table, log)
    assert table.rows == all_once(log)


def test_clickhouse_away_for_longer_than_the_lease(table: MemoryTable) -> None:
    log = group(7)
    owner = Owner(log, table)
    until(owner, Insert)
    for _ in range(60):
        owner.lose()
        table.advance(1)
        owner.poll()
        owner.ask()
    settle(owner, table, log)
    assert table.rows == all_once(log)


def test_lost_group_offsets_do_not_double_rows(table: MemoryTable) -> None:
    log = group(12)
    settle(Owner(log, table), table, log)
    table.tokens.clear()
    log.offset, log.intent = 0, None
    settle(Owner(log, table), table, log, 300)
    assert table.rows == all_once(log)
    assert log.offset == 12


def test_a_lane_that_was_reset_waits_for_whoever_wrote_before(table: MemoryTable) -> None:
    log = group(4)
    settle(Owner(log, table), table, log)
    log.offset = 0
    owner = Owner(log, table)
    owner.ask()
    owner.do()
    owner.poll()
    assert owner.ask(cut_now=True) is None
    assert owner.lane.phase is Phase.WAITING


def test_a_block_that_the_log_no_longer_has_is_passed_over(table: MemoryTable) -> None:
    log = group(6)
    until(Owner(log, table), Insert)
    log.log = [record(5)]
    second = Owner(log, table)
    settle(second, table, log)
    assert set(table.rows) == {5}


def test_a_lane_is_full_at_the_rows_of_a_block() -> None:
    lanes = [Lane(0, None, replace(LIMITS, block_rows=2)) for _ in range(2)]
    for lane, count in zip(lanes, (1, 2), strict=True):
        lane.take([record(offset) for offset in range(count)], 0.0)
    assert [lane.full for lane in lanes] == [False, True]
    assert [lane.held_blocks for lane in lanes] == [0.5, 1.0]


def test_a_record_is_taken_once_however_often_it_is_read() -> None:
    lane = Lane(0, None, LIMITS)
    lane.take([record(0), record(1)], 0.0)
    lane.take([record(0), record(1), record(2)], 0.0)
    assert [r.offset for r in lane.gathered] == [0, 1, 2]


def test_opening_is_asked_first_and_once(table: MemoryTable) -> None:
    lane = Lane(7, None, LIMITS)
    assert lane.ask(0.0, EPOCH) == Open(7)
    assert lane.ask(0.0, EPOCH) is None
    lane.failed(0.0)
    assert lane.ask(0.1, EPOCH) is None
    assert lane.ask(LIMITS.retry_seconds, EPOCH) == Open(7)


def test_what_is_finished_is_committed_before_a_partition_is_given_up(table: MemoryTable) -> None:
    log = group(5)
    owner = Owner(log, table)
    until(owner, Insert)
    assert owner.lane.farewell() is None
    owner.do()
    assert owner.lane.farewell() == Commit(5, None)


def test_an_insert_begun_in_the_last_instant_of_a_lease_is_waited_for(table: MemoryTable) -> None:
    """The table compares whole seconds: an insert may begin until the second after the lease is over."""
    log = group(4)
    zombie = Owner(log, table)
    until(zombie, Insert)
    table.advance(LIMITS.lease_seconds + 0.9)
    zombie.begin()
    second = Owner(log, table)
    for _ in range(3):
        second.poll()
        second.ask()
        second.do()
    table.advance(LIMITS.insert_seconds - 0.1)
    assert second.ask() is None
    assert zombie.flight is not None
    assert table.land(zombie.flight)
    settle(second, table, log)
    assert table.rows == all_once(log)


def test_absent_rows_are_inserted_under_a_token_that_the_table_does_not_know(table: MemoryTable) -> None:
    log = group(4)
    first = Owner(log, table)
    until(first, Insert)
    assert isinstance(first.pending, Insert)
    table.insert(first.pending.intent, [0, 1])
    table.advance(LIMITS.lease_seconds + LIMITS.insert_seconds + 3)
    settle(Owner(log, table), table, log)
    assert table.rows == all_once(log)
