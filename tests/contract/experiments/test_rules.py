"""Does the batch answer follow each rule of what counts? Every number here was worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import xxhash
from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments import answers
from millrace.infra.clickhouse.experiments.as_of import Ends
from millrace.infra.clickhouse.experiments.moments import moments_sql
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Analysis, Span, Unit, Variant
from millrace.schemas.metric import Aggregation, Role, Source
from millrace.schemas.moments import Arm
from tests.contract.experiments.scenario import DAY_US, NOON, NOON_US, SECOND_US, WEEK_MS, Scenario, metric, plan

HOUR_US = 3_600 * SECOND_US


def scenario(client: Client, *metrics: Any, **more: Any) -> Scenario:
    return Scenario(client, plan(*(metrics or (metric(),)), **more))


def test_units_without_outcomes_count_with_nothing(client: Client) -> None:
    s = scenario(client)
    s.meets("u1")
    s.meets("u2")
    s.meets("u3", "b")
    s.happens("u1", 3.0, 1)
    s.happens("u1", 4.0, 2)
    assert s.moments() == {"a": Moments(n=2, total=7, squares=49), "b": Moments(n=1)}


def test_records_from_the_named_offsets_on_play_no_part(client: Client) -> None:
    s = scenario(client)
    s.meets("u1")
    s.meets("u2")
    for at in (1, 2, 3):
        s.happens("u1", 10.0**at, at)
    assert s.moments("m", Ends(0, 1, 2)) == {"a": Moments(n=1, total=110, squares=12_100)}
    assert s.moments("m", Ends(0, 0, 3)) == {}
    assert s.arms()["a"].assigned == 2


def test_partitions_are_apart_and_one_that_is_not_named_plays_no_part(client: Client) -> None:
    s = scenario(client)
    for partition in (0, 1, 2):
        s.meets("u1", "ab"[partition % 2], partition=partition)
        s.happens("u1", 1.0 + partition, 1, partition=partition)
    found = answers.moments(client, s.as_of(Ends(0, 9, 9), Ends(1, 9, 9)), metric())
    assert {place: one.total for place, one in found.items()} == {(0, "a"): 1, (1, "b"): 2}


def test_a_topic_of_the_same_name_with_another_id_plays_no_part(client: Client) -> None:
    first, second = scenario(client), scenario(client)
    for s in (first, second):
        s.meets("u1")
        s.happens("u1", 1.0, 1)
        s.as_of()
    assert first.total() == second.total() == 1


def test_the_window_begins_with_the_exposure_and_ends_before_its_length(client: Client) -> None:
    """To the microsecond."""
    s = scenario(client)
    s.meets("u1")
    for power, at in enumerate((-1, 0, HOUR_US - 1, HOUR_US)):
        s.happens("u1", 10.0**power, at)
    assert s.total() == 110
    assert s.arms()["a"].outcomes == 2


def test_the_exposure_is_the_first_record_that_says_so_and_not_the_first_in_time(client: Client) -> None:
    s = scenario(client, segments={"country": ("DE", "FR")})
    s.meets("u1", at=0, exposed=False, segments={"country": "none"})
    s.meets("u1", at=20, segments={"country": "DE"})
    s.meets("u1", at=10, segments={"country": "FR"})
    s.happens("u1", 1.0, 15)
    s.happens("u1", 10.0, 25)
    assert s.total() == 10
    assert s.arms()["a"] == Arm(
        assigned=1, exposed=1, assignments=3, underived=s.arms()["a"].underived, outcomes=1, segments={"country=DE": 1}
    )


def test_a_unit_that_is_assigned_and_not_exposed_is_in_no_metric(client: Client) -> None:
    s = scenario(client)
    s.meets("u1", exposed=False)
    s.happens("u1", 1.0, 1)
    assert s.moments() == {}
    arm = s.arms()["a"]
    assert (arm.assigned, arm.exposed, arm.assignments, arm.outcomes) == (1, 0, 1, 0)


def test_a_unit_is_assigned_by_its_first_record_and_exposed_by_another(client: Client) -> None:
    s = scenario(client)
    s.meets("u1", "a", exposed=False)
    s.meets("u1", "b", 1)
    arms = s.arms()
    assert (arms["a"].assigned, arms["a"].exposed, arms["b"].assigned, arms["b"].exposed, arms["b"].multiple) == (1, 0, 0, 1, 0)


def test_outcomes_count_that_were_appended_ten_minutes_before_the_exposure(client: Client) -> None:
    """To the millisecond; what counts is the append, for the time must be in the window anyway."""
    s = scenario(client)
    s.meets("u1", appended=600 * SECOND_US)
    s.happens("u1", 1.0, 1, appended=-1_000)
    s.happens("u1", 10.0, 2, appended=0)
    s.happens("u1", 100.0, 3, appended=1_000)
    assert s.total() == 110
    assert s.arms()["a"].outcomes == 2


def test_a_repeated_outcome_counts_once_and_is_told(client: Client) -> None:
    s = scenario(client)
    s.meets("u1")
    for at in (1, 2, 3):
        s.happens("u1", 5.0, at, id="same")
    assert s.total() == 5
    assert (s.arms()["a"].outcomes, s.arms()["a"].duplicates) == (1, 2)


def test_ids_are_remembered_for_this_week_of_append_time_and_the_one_before(client: Client) -> None:
    """Each is compared with the last record of its id: weeks 0, 1, 2 are a chain, 4 begins anew, 5 repeats it."""
    s = scenario(client, metric(window_seconds=90 * 86_400.0), analysis=Analysis(lateness_seconds=1e9))
    s.meets("u1")
    start = (-(-NOON_US // 1_000 // WEEK_MS) + 1) * WEEK_MS * 1_000 - NOON_US
    for week in (0, 1, 2, 4, 5):
        s.happens("u1", 10.0**week, 1 + week, id="same", appended=start + week * WEEK_MS * 1_000)
    assert s.total() == 1 + 10**4
    assert (s.arms()["a"].outcomes, s.arms()["a"].duplicates) == (2, 3)


def test_the_edge_of_a_week_is_the_millisecond_where_it_begins(client: Client) -> None:
    s = scenario(client, metric(window_seconds=90 * 86_400.0))
    s.meets("u1")
    start = (-(-NOON_US // 1_000 // WEEK_MS) + 1) * WEEK_MS * 1_000 - NOON_US
    s.happens("u1", 1.0, 1, id="x", appended=start - 1_000)
    s.happens("u1", 10.0, 1, id="y", appended=start)
    s.happens("u1", 100.0, 1, id="x", appended=start + WEEK_MS * 1_000)
    s.happens("u1", 1_000.0, 1, id="y", appended=start + WEEK_MS * 1_000)
    assert s.total() == 111


def test_a_repeated_outcome_of_another_partition_is_another_one(client: Client) -> None:
    s = scenario(client)
    for partition in (0, 1):
        s.meets("u1", partition=partition)
        s.happens("u1", 1.0, 1, id="same", partition=partition)
    assert s.total() == 1
    assert s.moments("m", Ends(0, 9, 9), Ends(1, 9, 9))["a"].total == 2


def test_late_is_what_is_older_than_the_newest_before_it_less_the_lateness(client: Client) -> None:
    """Another unit's outcome of another name makes it late; one of its own offset or later does not. To the microsecond."""
    s = scenario(client)
    s.meets("u1")
    s.happens("u1", 1.0, 0)
    s.happens("somebody", 0.0, 700 * SECOND_US, metric="another")
    s.happens("u1", 10.0, 100 * SECOND_US, appended=700 * SECOND_US)
    s.happens("u1", 100.0, 100 * SECOND_US - 1, appended=700 * SECOND_US)
    s.happens("somebody", 0.0, 701 * SECOND_US, metric="another")
    s.happens("u1", 1_000.0, 100 * SECOND_US, appended=700 * SECOND_US)
    assert s.total() == 11
    assert (s.arms()["a"].outcomes, s.arms()["a"].late) == (2, 2)


def test_a_late_one_that_is_repeated_is_told_as_a_duplicate(client: Client) -> None:
    s = scenario(client)
    s.meets("u1")
    s.happens("x", 1.0, 1_000 * SECOND_US)
    for _ in range(2):
        s.happens("u1", 1.0, 1, id="same")
    assert (s.arms()["a"].outcomes, s.arms()["a"].late, s.arms()["a"].duplicates) == (0, 1, 1)


def test_the_first_outcome_of_a_partition_is_never_late(client: Client) -> None:
    s = scenario(client, analysis=Analysis(lateness_seconds=0.0))
    s.meets("u1", at=-400 * DAY_US)
    s.happens("u1", 1.0, -400 * DAY_US)
    assert s.total() == 1


def test_a_unit_that_meets_two_variants_leaves_every_metric_and_segment(client: Client) -> None:
    s = scenario(client, metric(role=Role.PRIMARY), segments={"country": ("DE",)})
    s.meets("u1", "a", segments={"country": "DE"})
    s.meets("u2", "a", 1, segments={"country": "DE"})
    s.happens("u1", 5.0, 2)
    s.happens("u2", 7.0, 2)
    s.meets("u1", "b", 3)
    s.meets("u1", "b", 4)
    s.happens("u1", 9.0, 5)
    assert s.moments() == {"a": Moments(n=1, total=7, squares=49), "a|country=DE": Moments(n=1, total=7, squares=49)}
    arms = s.arms()
    assert (arms["a"].exposed, arms["a"].multiple, arms["a"].units, arms["a"].outcomes) == (2, 1, 1, 3)
    assert arms["a"].segments == {"country=DE": 1}
    assert (arms["b"].exposed, arms["b"].assigned, arms["b"].assignments) == (0, 0, 2)


def test_being_assigned_another_variant_without_meeting_it_changes_nothing(client: Client) -> None:
    s = scenario(client)
    s.meets("u1", "a")
    s.meets("u1", "b", 1, exposed=False)
    s.meets("u1", "b", 2, override=True)
    assert s.moments() == {"a": Moments(n=1)}
    assert s.arms()["a"].multiple == 0


def test_a_unit_whose_first_record_is_an_override_counts_nowhere(client: Client) -> None:
    s = scenario(client)
    s.meets("u1", "a", override=True)
    s.meets("u1", "b", 1)
    s.happens("u1", 5.0, 2)
    assert s.moments() == {}
    arms = s.arms()
    assert arms == {"a": Arm(overridden=1, assignments=1), "b": Arm(assignments=1)}


def test_segments_are_those_of_the_exposure_and_only_primary_metrics_have_them(client: Client) -> None:
    s = scenario(client, metric(role=Role.PRIMARY), metric("other"), segments={"country": ("DE",), "os": ("ios",)})
    s.meets("u1", segments={"country": "DE", "os": "ios"})
    s.meets("u2", segments={"country": "DE", "os": "other"})
    s.happens("u1", 2.0, 1)
    one, both = Moments(n=1, total=2, squares=4), Moments(n=2, total=2, squares=4)
    assert s.moments() == {"a": both, "a|country=DE": both, "a|os=ios": one, "a|os=other": Moments(n=1)}
    assert s.moments("other") == {"a": both}
    assert s.arms()["a"].segments == {"country=DE": 2, "os=ios": 1, "os=other": 1}


@pytest.mark.parametrize(("aggregation", "value"), {"sum": 5, "count": 5, "max": 4, "first": -2, "last": 3, "unique": 4}.items())
def test_outcomes_are_aggregated(client: Client, aggregation: str, value: int) -> None:
    """Ties of time are broken by the offset: -2 comes before -3 at time 1, and 3 after 4 at time 9."""
    s = scenario(client, metric(aggregation=Aggregation(aggregation)))
    s.meets("u1")
    for amount, at in ((3.0, 5), (-2.0, 1), (-3.0, 1), (4.0, 9), (3.0, 9)):
        s.happens("u1", amount, at)
    assert s.total() == value


@pytest.mark.parametrize(("aggregation", "value"), {"sum": -5, "count": 2, "max": -2, "first": -3, "last": -2, "unique": 2}.items())
def test_negative_values_are_no_less_than_nothing(client: Client, aggregation: str, value: int) -> None:
    """The greatest of -3 and -2 is -2, not the 0 of a unit without outcomes."""
    s = scenario(client, metric(aggregation=Aggregation(aggregation)))
    s.meets("u1")
    s.meets("u2")
    s.happens("u1", -3.0, 1)
    s.happens("u1", -2.0, 2)
    found = s.moments()["a"]
    assert (found.n, found.total, found.squares) == (2, value, value * value)


@pytest.mark.parametrize(
    ("value", "resolution", "steps"),
    [
        (0.5, 1.0, 0),
        (1.5, 1.0, 2),
        (2.5, 1.0, 2),
        (-0.5, 1.0, 0),
        (-2.5, 1.0, -2),
        (-3.5, 1.0, -4),
        (0.25, 0.1, 2),
        (2.675, 0.01, 268),  # the quotient of the two doubles is 267.5 exactly
        (1e15, 1e-9, round(1e15 / 1e-9)),
        (-1e15, 1e-9, round(-1e15 / 1e-9)),
        (123456789012345.67, 1e-9, round(123456789012345.67 / 1e-9)),
        (9_223_372_036.854775807, 1e-9, round(9_223_372_036.854775807 / 1e-9)),
        (1e9, 1e9, 1),
        (5e-324, 1e-9, 0),
    ],
)
def test_a_value_in_whole_steps_is_that_of_python(client: Client, value: float, resolution: float, steps: int) -> None:
    """Halves to even, and exact far beyond 64 bits: squares too."""
    s = scenario(client, metric(resolution=resolution))
    s.meets("u1")
    s.happens("u1", value, 1)
    assert s.moments() == {"a": Moments.of(steps)}


def test_sums_of_the_largest_values_are_exact(client: Client) -> None:
    s = scenario(client, metric(resolution=1e-9))
    most = round(1e15 / 1e-9)
    s.meets("u1")
    for at in range(1, 41):
        s.happens("u1", 1e15, at)
    s.happens("u1", 1e-9, 41)
    assert s.moments() == {"a": Moments.of(40 * most + 1)}


def test_a_proportion_is_whether_there_was_one_that_is_not_nothing(client: Client) -> None:
    s = scenario(client, metric(kind=Kind.PROPORTION, cap=0.1))
    for unit, values in {"u1": (1.0, -1.0), "u2": (0.4,), "u3": (), "u4": (-7.0,), "u5": (0.0, 0.0)}.items():
        s.meets(unit)
        for value in values:
            s.happens(unit, value, 1)
    assert s.moments() == {"a": Moments(n=5, total=2, squares=2)}


def test_a_ratio_has_two_sources_each_with_its_own_rules(client: Client) -> None:
    visits = Source(outcome="visit", aggregation=Aggregation.COUNT)
    s = scenario(client, metric(kind=Kind.RATIO, resolution=0.01, denominator=visits))
    for unit, paid, seen in (("u1", (1.25, 0.75), 3), ("u2", (), 1), ("u3", (2.0,), 0)):
        s.meets(unit)
        for value in paid:
            s.happens(unit, value, 1)
        for _ in range(seen):
            s.happens(unit, 1.0, 1, metric="visit")
    assert s.moments() == {"a": Moments.of(200, 3) + Moments.of(0, 1) + Moments.of(200, 0)}
    assert s.arms()["a"].outcomes == 7


def test_a_ratio_of_one_outcome_with_itself(client: Client) -> None:
    itself = Source(outcome="paid", aggregation=Aggregation.MAX, resolution=0.5, cap=2.0)
    s = scenario(client, metric(kind=Kind.RATIO, denominator=itself))
    s.meets("u1")
    s.happens("u1", 1.0, 1)
    s.happens("u1", 7.0, 2)
    assert s.moments() == {"a": Moments.of(8, 4)}


@pytest.mark.parametrize(
    ("aggregation", "cap", "values", "expected"),
    [
        ("sum", 2.5, (2.0, 2.0), 2),  # 2.5 in whole ones is 2: halves to even
        ("sum", 3.0, (2.0, 2.0), 3),
        ("sum", 3.0, (-2.0, -2.0), -3),
        ("max", 3.0, (-9.0, -8.0), -3),
        ("count", 2.0, (9.0, 9.0, 9.0), 2),
        ("unique", 1.0, (8.0, 9.0), 1),
        ("sum", 1e300, (8.0, 9.0), 17),
    ],
)
def test_a_units_value_is_capped_after_it_is_aggregated(
    client: Client, aggregation: str, cap: float, values: tuple[float, ...], expected: int
) -> None:
    s = scenario(client, metric(aggregation=Aggregation(aggregation), cap=cap))
    s.meets("u1")
    for at, value in enumerate(values):
        s.happens("u1", value, at)
    assert s.total() == expected


def test_a_cap_of_counts_is_in_ones_whatever_the_resolution(client: Client) -> None:
    s = scenario(client, metric(aggregation=Aggregation.COUNT, cap=2.0, resolution=0.001))
    s.meets("u1")
    for at in range(4):
        s.happens("u1", 1.0, at)
    assert s.total() == 2


def test_the_covariate_is_of_whole_days_before_the_day_of_the_exposure(client: Client) -> None:
    """Noon of day 0, two days: [day -2, day 0) in UTC, to the microsecond, however long ago it was appended; of another name nothing."""
    s = scenario(client, metric(covariate_days=2), analysis=Analysis(lateness_seconds=1e9))
    midnight = -12 * HOUR_US
    for power, at in enumerate((midnight - 2 * DAY_US - 1, midnight - 2 * DAY_US, midnight - 1, midnight)):
        s.happens("u1", 10.0**power, at)
    s.happens("u1", 5.0, midnight - 1, metric="another")
    s.meets("u1")
    s.happens("u1", 3.0, 1)
    assert s.moments() == {"a": Moments.of(3, 0, 110)}
    assert s.arms()["a"].outcomes == 1


def test_the_covariate_knows_no_grace_but_leaves_out_late_and_repeated_ones(client: Client) -> None:
    s = scenario(client, metric(covariate_days=7))
    s.meets("u1")
    s.happens("u1", 1.0, -DAY_US, appended=1, id="same")
    s.happens("u1", 1.0, -DAY_US, appended=2, id="same")
    s.happens("u1", 10.0, -DAY_US - 600 * SECOND_US, appended=3)
    s.happens("u1", 100.0, -DAY_US - 600 * SECOND_US - 1, appended=4)
    assert s.moments() == {"a": Moments.of(0, 0, 11)}


@pytest.mark.parametrize(
    ("kind", "aggregation", "cap", "x"),
    [("mean", "count", None, 3), ("mean", "max", None, -1), ("mean", "sum", 5.0, -5), ("proportion", "sum", None, 1)],
)
def test_the_covariate_is_aggregated_and_capped_as_the_value_is(
    client: Client, kind: str, aggregation: str, cap: float | None, x: int
) -> None:
    s = scenario(client, metric(kind=Kind(kind), aggregation=Aggregation(aggregation), cap=cap, covariate_days=3))
    for value in (-4.0, -2.0, -1.0):
        s.happens("u1", value, -DAY_US)
    s.meets("u1")
    assert s.moments() == {"a": Moments.of(0, 0, x)}


@pytest.mark.parametrize(("written_hours", "x"), [(-61.0, 111), (-60.9999, 110), (-37.0, 110), (-36.9999, 0)])
def test_the_covariate_begins_with_the_first_day_an_hour_after_the_plan_was_written(client: Client, written_hours: float, x: int) -> None:
    """A plan that is written until 23:00 counts from the next midnight on, one written a moment later from the midnight after that."""
    s = scenario(client, metric(covariate_days=7), created=NOON + timedelta(hours=written_hours))
    for power, at in enumerate((-60 * HOUR_US, -36 * HOUR_US, -12 * HOUR_US - 1)):
        s.happens("u1", 10.0**power, at)
    s.meets("u1")
    assert s.moments()["a"].covariate_total == x


def test_when_a_metric_was_written_counts_rather_than_the_experiment(client: Client) -> None:
    s = scenario(client, metric(covariate_days=7))
    s.happens("u1", 1.0, -36 * HOUR_US)
    s.meets("u1")
    assert s.moments()["a"].covariate_total == 1
    assert s.moments(written_us={"m": NOON_US - 30 * HOUR_US})["a"].covariate_total == 0


def test_requests_are_analysed_by_their_id(client: Client) -> None:
    """Two requests of one unit are two subjects; an outcome without a request, or of another unit's, is nobody's."""
    s = scenario(client, unit=Unit.REQUEST)
    s.meets("u1", "a", request_id="r1")
    s.meets("u1", "b", 1, request_id="r2")
    s.happens("u1", 5.0, 2, request_id="r1")
    s.happens("u1", 7.0, 2, request_id="r2")
    s.happens("u1", 9.0, 2)
    s.happens("u2", 11.0, 2, request_id="r1")
    assert s.moments() == {"a": Moments.of(5), "b": Moments.of(7)}
    assert s.arms()["a"].outcomes == 1


def test_counters_are_of_the_longest_window_and_of_outcomes_that_a_metric_uses(client: Client) -> None:
    visits = metric("visits", outcome="visit", window_seconds=10.0)
    median = metric("median", outcome="seconds", kind=Kind.QUANTILE)
    s = scenario(client, metric(), metric("soon", window_seconds=10.0), visits, median, analysis=Analysis(lateness_seconds=1e6))
    s.meets("u1")
    for name in ("paid", "visit", "seconds", "unheard-of"):
        for at in (9, 11, 3_601):
            s.happens("u1", 1.0, at * SECOND_US, metric=name, appended=0)
    assert s.arms()["a"].outcomes == 3


def test_an_ended_experiment_closes(client: Client) -> None:
    """Records appended from then on count nowhere; they still make others late and repeated."""
    s = scenario(client)
    closes_ms = NOON_US // 1_000 + 10
    s.meets("u1")
    s.meets("u2", appended=10_000)
    s.happens("u1", 1.0, 5, appended=9_999)
    s.happens("u1", 2.0, 5, appended=10_000)
    assert s.moments(closes_ms=closes_ms) == {"a": Moments.of(1)}
    arm = s.arms(closes_ms=closes_ms)["a"]
    assert (arm.assigned, arm.assignments, arm.outcomes) == (1, 1, 1)
    assert s.moments() == {"a": Moments.of(3) + Moments.of(0)}


def bucket(key: str) -> float:
    return (xxhash.xxh64_intdigest(key.encode()) >> 11) / 2**53


def variant_of(bounds: list[tuple[float, str]], place: float) -> str:
    return next(name for upper, name in bounds if place < upper)


def test_an_assignment_that_does_not_follow_from_its_plan_version_is_told(client: Client) -> None:
    """Of 40 units, half by version 1 and half by version 2 with other weights and salt: those are all right. Three are wrong."""
    first = plan(metric(), variants=(Variant(name="a", weight=1.0), Variant(name="zero", weight=0.0), Variant(name="b", weight=2.0)))
    second = replace(first, version=2, salt="t", spans=(Span(low=0.0, high=0.25, variant="b"), Span(low=0.25, high=1.0, variant="a")))
    s = Scenario(client, first)
    for number in range(40):
        version, unit = 1 + number % 2, f"unit-{number}-ü"
        place = bucket(f"{'st'[version - 1]}:variant:{unit}")
        bounds = [(1 / 3, "a"), (1.0, "b")] if version == 1 else [(0.25, "b"), (1.0, "a")]
        s.meets(unit, variant_of(bounds, place), plan_version=version)
    wrong = {"a": "b", "b": "a"}
    for unit in ("w1", "w2", "w3"):
        s.meets(unit, wrong[variant_of([(1 / 3, "a"), (1.0, "b")], bucket(f"s:variant:{unit}"))], plan_version=1)
    s.meets("w4", "a", plan_version=1, override=True)
    s.meets("w4", "zero", plan_version=1)
    arms = s.arms(first, second)
    assert sum(arm.assignments for arm in arms.values()) == 45
    assert sum(arm.underived for arm in arms.values()) == 3


def test_a_policys_assignment_follows_from_its_propensities_in_the_plans_order(client: Client) -> None:
    s = scenario(client, unit=Unit.REQUEST, variants=(Variant(name="b"), Variant(name="a"), Variant(name="c")))
    chances = {"a": 0.125, "b": 0.75, "c": 0.125}
    for number in range(60):
        request = f"r{number}"
        variant = variant_of([(0.75, "b"), (0.875, "a"), (1.0, "c")], bucket(f"s:variant:{request}"))
        s.meets("u", variant, request_id=request, policy_version=3, propensities=chances)
    s.meets("u", "c", request_id="r-other", policy_version=3, propensities={})
    arms = s.arms()
    assert {name: arm.underived for name, arm in arms.items()} == {"a": 0, "b": 0, "c": 1}
    assert all(arm.assigned > 1 for arm in arms.values())


def test_the_newest_version_up_to_the_one_named_is_what_counts(client: Client) -> None:
    first = plan(metric(), variants=(Variant(name="a"), Variant(name="b", weight=0.0)))
    third = replace(first, version=3, variants=(Variant(name="a", weight=0.0), Variant(name="b")))
    s = Scenario(client, first)
    s.meets("u1", "a", plan_version=2)
    s.meets("u2", "b", plan_version=2)
    s.meets("u3", "b", plan_version=3)
    s.meets("u4", "b", plan_version=0)
    assert {name: arm.underived for name, arm in s.arms(first, third).items()} == {"a": 0, "b": 2}


def test_a_plan_without_metrics_has_arms(client: Client) -> None:
    s = Scenario(client, plan())
    s.meets("u1")
    assert s.arms()["a"].exposed == 1


def test_texts_with_quotes_are_names_and_nothing_else(client: Client) -> None:
    name = 'it\'s \\ "paid"'
    s = scenario(client, metric(outcome=name))
    s.meets("u1")
    s.happens("u1", 3.0, 1, metric=name)
    assert s.total() == 3


@pytest.mark.parametrize(
    "setting", ["join_use_nulls = 1", "join_algorithm = 'grace_hash'", "max_threads = 1", "aggregate_functions_null_for_empty = 1"]
)
def test_a_client_with_other_settings_is_told_the_same(client: Client, setting: str) -> None:
    shown = Source(outcome="visit", aggregation=Aggregation.MAX)
    s = scenario(client, metric(kind=Kind.RATIO, denominator=shown, aggregation=Aggregation.LAST), metric("x", covariate_days=1))
    for unit in ("u1", "u2", "u3"):
        s.meets(unit)
    s.happens("u1", 3.0, -DAY_US, metric="paid")
    s.happens("u1", 3.0, 1)
    s.happens("u2", -3.0, 1, metric="visit")
    for one in s.plan.metrics:
        sql = moments_sql(s.as_of(), one)
        assert client.rows(f"{sql}\nSETTINGS {setting}") == client.rows(sql) != []


def test_an_analyst_runs_the_statements_as_they_stand(client: Client, analyst: Client) -> None:
    s = scenario(client, metric(covariate_days=3, role=Role.PRIMARY), segments={"os": ("ios",)})
    s.meets("u1", segments={"os": "ios"})
    s.happens("u1", 4.0, 1)
    as_of = s.as_of()
    analyst.use_database()
    assert answers.moments(analyst, as_of, s.plan.metrics[0]) == {(0, "a"): Moments.of(4), (0, "a|os=ios"): Moments.of(4)}
    assert answers.arms(analyst, as_of, [s.plan])[0, "a"].segments == {"os=ios": 1}
