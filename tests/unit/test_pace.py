"""How many records may the next poll bring?"""

from __future__ import annotations

from millrace.workers.pace import SHARE, Pace

INTERVAL = 100.0
LONGEST = SHARE * INTERVAL


def test_what_takes_too_long_is_cut_to_what_fits() -> None:
    pace = Pace(5_000, INTERVAL)
    pace.took(5_000, 5_000.0)
    assert pace.records == LONGEST
    pace.took(int(LONGEST), LONGEST)
    assert pace.records == LONGEST, "at the limit nothing changes"


def test_one_record_is_the_least() -> None:
    pace = Pace(5_000, INTERVAL)
    for _ in range(3):
        pace.took(1, 10 * INTERVAL)
    assert pace.records == 1


def test_only_a_full_and_fast_poll_lets_it_grow_and_never_beyond_the_setting() -> None:
    pace = Pace(100, INTERVAL)
    pace.took(100, 10 * LONGEST)
    assert pace.records == 10
    for records, seconds in ((9, 0.0), (10, LONGEST * 0.6), (0, 0.0)):
        pace.took(records, seconds)
        assert pace.records == 10
    for wanted in (20, 40, 80, 100, 100):
        pace.took(pace.records, LONGEST * 0.4)
        assert pace.records == wanted


def test_time_that_no_record_took_changes_nothing() -> None:
    pace = Pace(100, INTERVAL)
    pace.took(0, 2 * LONGEST)
    assert pace.records == 100


def test_a_step_of_any_speed_comes_to_a_bound_that_it_keeps() -> None:
    for seconds_a_record in (0.001, 0.03, 0.2, 3.0):
        pace = Pace(5_000, INTERVAL)
        for _ in range(20):
            pace.took(pace.records, pace.records * seconds_a_record)
        assert pace.records * seconds_a_record <= LONGEST
        assert pace.records == 5_000 or pace.records * seconds_a_record >= LONGEST / 4
