"""What reports ask of ClickHouse beside the moments: are those numbers right, and as of the same records?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments import report_answers as ask
from millrace.infra.clickhouse.experiments.as_of import Ends
from millrace.infra.clickhouse.experiments.moments import Variation
from millrace.infra.clickhouse.experiments.report_answers import Quantiles, RankTest, Seen, UnitValue
from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.experiment import Analysis
from millrace.schemas.metric import Aggregation, Metric, Source
from tests.contract.experiments.scenario import DAY_US, NOON_US, SECOND_US, Scenario, metric, plan

WEEK = metric(window_seconds=7 * 86_400.0)
PATIENT = Analysis(lateness_seconds=1e9)
VISITS = Source(outcome="visit", aggregation=Aggregation.COUNT)


def paid(client: Client, values: dict[str, tuple[float, ...]], of: Metric, variant: str = "a") -> Scenario:
    """Units of one variant, with these outcomes a second apart."""
    s = Scenario(client, plan(of, analysis=PATIENT))
    for unit, amounts in values.items():
        s.meets(unit, variant)
        for at, amount in enumerate(amounts):
            s.happens(unit, amount, at * SECOND_US)
    return s


def test_values_of_units_are_in_the_metrics_own_units(client: Client) -> None:
    s = paid(client, {"u1": (1.25, 1.0)}, metric(kind=Kind.RATIO, resolution=0.25, denominator=VISITS))
    s.happens("u1", 1.0, 1, metric="visit")
    s.meets("u2", "b")
    found = ask.unit_values(client, s.as_of(), s.plan.metrics[0])
    assert found == [UnitValue("a", 2.25, 1.0, 0.0), UnitValue("b", 0.0, 0.0, 0.0)]


def test_a_sample_of_units_is_the_same_each_time_and_part_of_a_larger_one(client: Client) -> None:
    s = paid(client, {f"u{number}": (float(number),) for number in range(50)}, metric())
    few, again, more = (ask.unit_values(client, s.as_of(), s.plan.metrics[0], limit) for limit in (5, 5, 20))
    assert (len(few), len(more)) == (5, 20)
    assert few == again
    assert set(few) < set(more)


def test_ranks_are_compared_as_scipy_compares_them(client: Client) -> None:
    values = np.random.default_rng(3)
    s = Scenario(client, plan(metric(resolution=0.01)))
    drawn = {"a": np.round(values.exponential(10, 120), 1), "b": np.round(values.exponential(14, 90), 1)}
    for variant, amounts in drawn.items():
        for number, amount in enumerate(amounts):
            s.meets(f"{variant}{number}", variant)
            s.happens(f"{variant}{number}", float(amount), 1)
    found = ask.rank_test(client, s.as_of(), s.plan.metrics[0], "a", "b")
    expected = stats.mannwhitneyu(drawn["a"], drawn["b"], method="asymptotic", use_continuity=True)
    assert isinstance(found, RankTest)
    assert (found.control_units, found.treatment_units) == (120, 90)
    assert found.u in (pytest.approx(expected.statistic), pytest.approx(120 * 90 - expected.statistic))
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_ranks_of_nobody_or_of_the_same_cannot_be_told(client: Client) -> None:
    s = paid(client, {"u1": (), "u2": ()}, metric())
    assert ask.rank_test(client, s.as_of(), s.plan.metrics[0], "a", "b") == CannotTell("a or b has no units")
    s = paid(client, {"u1": (), "u2": ()}, metric())
    s.meets("u3", "b")
    assert isinstance(ask.rank_test(client, s.as_of(), s.plan.metrics[0], "a", "b"), CannotTell)


def test_quantiles_of_units_and_of_outcomes(client: Client) -> None:
    s = paid(client, {"u1": (5.0, 1.0), "u2": (), "u3": (0.5, 0.5, 2.0)}, metric(resolution=0.5))
    of = s.plan.metrics[0]
    assert ask.unit_quantiles(client, s.as_of(), of, (0.0, 0.5, 0.9)) == {"a": Quantiles(3, (0, 6, 12), (0.0, 3.0, 6.0))}
    assert ask.outcome_quantiles(client, s.as_of(), of, (0.0, 0.5, 0.9)) == {"a": Quantiles(5, (1, 2, 10), (0.5, 1.0, 5.0))}


def test_what_lies_below_a_threshold_is_counted_by_unit(client: Client) -> None:
    """Thresholds are in steps, whole ones here, and inclusive."""
    s = paid(client, {"u1": (5.0, 1.0), "u2": (), "u3": (1.0, 1.0, 2.0)}, metric(kind=Kind.QUANTILE))
    found = ask.below(client, s.as_of(), s.plan.metrics[0], {"a": 1})
    assert found == {"a": Moments.of(1, 2) + Moments.of(0, 0) + Moments.of(2, 3)}
    assert ask.below(client, s.as_of(), s.plan.metrics[0], {"a": -(10**30)})["a"].total == 0
    assert ask.below(client, s.as_of(), s.plan.metrics[0], {"a": 10**30})["a"].total == 5


def test_what_had_happened_by_a_point_in_time(client: Client) -> None:
    s = Scenario(client, plan(WEEK, analysis=PATIENT))
    s.meets("u1")
    s.meets("u2", at=DAY_US)
    s.happens("u1", 1.0, 5)
    s.happens("u1", 10.0, DAY_US)
    s.happens("u2", 100.0, DAY_US + 1)
    points = [NOON_US, NOON_US + 1, NOON_US + DAY_US, NOON_US + DAY_US + 1, NOON_US + 9 * DAY_US]
    found = ask.cumulative(client, s.as_of(), s.plan.metrics[0], points)
    assert found == {
        (points[1], "a"): Moments.of(0),
        (points[2], "a"): Moments.of(1),
        (points[3], "a"): Moments.of(11) + Moments.of(0),
        (points[4], "a"): Moments.of(11) + Moments.of(100),
    }


@pytest.mark.parametrize("aggregation", list(Aggregation))
@pytest.mark.parametrize("kind", [Kind.MEAN, Kind.PROPORTION, Kind.RATIO])
def test_all_that_had_happened_is_what_was_judged(client: Client, kind: Kind, aggregation: Aggregation) -> None:
    """Reports aggregate lists of outcomes, the moments do it as they go: both say the same."""
    own = Source(outcome="visit", aggregation=aggregation, resolution=0.5, cap=2.0)
    of = metric(kind=kind, aggregation=aggregation, cap=40.0, denominator=own if kind is Kind.RATIO else None)
    s = Scenario(client, plan(of, analysis=PATIENT))
    chance = np.random.default_rng(1)
    for number in range(20):
        s.meets(f"u{number}", "ab"[number % 2])
        for _ in range(number % 5):
            at = int(chance.integers(0, 9))
            s.happens(f"u{number}", float(chance.integers(-40, 40)), at, id=f"o{chance.integers(30)}", metric="paid" if at < 6 else "visit")
    last = ask.cumulative(client, s.as_of(), of, [NOON_US + 9 * DAY_US])
    assert {arm: one for (_, arm), one in last.items()} == s.moments()


def test_ages_are_days_since_the_exposure_that_were_seen_to_their_end(client: Client) -> None:
    s = Scenario(client, plan(metric(window_seconds=2.5 * 86_400), analysis=PATIENT))
    s.meets("u1")
    s.meets("u2", at=DAY_US)
    for unit, exposed in (("u1", 0), ("u2", DAY_US)):
        for power, age in enumerate((0, DAY_US - 1, DAY_US, 2 * DAY_US + 5, 2 * DAY_US + DAY_US // 2)):
            s.happens(unit, 10.0**power, exposed + age)
    found = ask.ages(client, s.as_of(), s.plan.metrics[0], NOON_US + 3 * DAY_US)
    assert found == {
        (0, "a"): Moments.of(11) + Moments.of(11),
        (1, "a"): Moments.of(100) + Moments.of(100),
        (2, "a"): Moments.of(1_000),
    }


def test_the_time_that_records_span(client: Client) -> None:
    s = Scenario(client, plan(metric()))
    assert ask.seen(client, s.as_of()) == Seen(None, None, None)
    s = Scenario(client, plan(metric()))
    s.meets("u1", at=3)
    s.meets("u2", at=9)
    s.happens("u1", 1.0, 20)
    s.happens("u1", 1.0, 10)
    s.happens("u1", 1.0, 15, partition=1)
    assert ask.seen(client, s.as_of()) == Seen(NOON_US + 3, NOON_US + 9, NOON_US + 20)
    assert ask.seen(client, s.as_of(Ends(0, 9, 9), Ends(1, 9, 9))).until_us == NOON_US + 15
    assert ask.seen(client, s.as_of(Ends(0, 9, 9), Ends(2, 9, 9))).until_us is None


def test_without_outliers_values_are_cut_at_a_quantile_of_those_that_are_not_nothing(client: Client) -> None:
    """Of 1 to 9 and -1000 in size the one at floor(0.8 * 10) is 9, over both arms."""
    s = Scenario(client, plan(metric(), analysis=PATIENT))
    for number, value in enumerate((0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, -1_000.0)):
        s.meets(f"u{number}", "ab"[number % 2])
        s.happens(f"u{number}", value, 1)
    found = s.moments(variation=Variation(cap_level=0.8))
    assert {arm: (one.n, one.total) for arm, one in found.items()} == {"a": (7, 0 + 0 + 2 + 4 + 6 + 8 - 9), "b": (6, 0 + 1 + 3 + 5 + 7 + 9)}


def test_the_first_day_is_left_out_by_units_that_were_exposed_in_it(client: Client) -> None:
    s = Scenario(client, plan(WEEK, segments={"os": ("ios",)}, analysis=PATIENT))
    s.meets("u1", segments={"os": "ios"})
    s.meets("u2", at=DAY_US, segments={"os": "ios"})
    s.happens("u1", 1.0, 2 * DAY_US)
    s.happens("u2", 10.0, 2 * DAY_US)
    found = s.moments(variation=Variation(exposed_from_us=NOON_US + DAY_US, segments=True))
    assert found == {"a": Moments.of(10), "a|os=ios": Moments.of(10)}
