"""Does a report tell of a planted log what follows from it by hand, and do its statements give an analyst the same rows again?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments import answers
from millrace.infra.settings import ClickHouseSettings
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Allocation, Analysis, Correction, Plan, Policy, Unit
from millrace.schemas.metric import Role
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.result import Estimate, Result
from millrace.workers.report.asking import Asking
from millrace.workers.report.content import Report
from millrace.workers.report.gather import gathered
from millrace.workers.report.page import page
from millrace.workers.report.text import markdown
from tests.contract.experiments.scenario import DAY_US, NOON, SECOND_US, Scenario, encoded, insert, metric, plan
from tests.judging import judged, sealed
from tests.stack import ClickHouse

UNITS = 120
HOUR_US = 3_600 * SECOND_US
WINDOW = 3 * 86_400.0
PAID = metric("paid", kind=Kind.PROPORTION, role=Role.PRIMARY, window_seconds=WINDOW)
REVENUE = metric("revenue", outcome="revenue", resolution=0.5, window_seconds=WINDOW)
WAITING = metric("waiting", outcome="waiting", kind=Kind.QUANTILE, window_seconds=WINDOW)
ANALYSIS = Analysis(lateness_seconds=1e9, difference="absolute", correction=Correction.NONE, minimal_units=10, tuning=100.0)


def paid_on(variant: str, unit: int) -> set[int]:
    """The days since its exposure on which a unit paid."""
    if variant == "a":
        return {day for day, does in enumerate((unit % 2 == 0, unit % 4 == 0, unit % 4 == 1)) if does}
    return {day for day, does in enumerate((unit % 4 != 0, unit % 5 == 0, unit % 4 == 1)) if does}


def spent(variant: str, unit: int) -> float:
    """Two units of b spend a thousand, everybody else 1 to 30."""
    return 1_000.0 if variant == "b" and unit < 2 else float(unit % 30 + 1)


class Noting(Asking):
    """Remembers what it was answered."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        super().__init__(settings, 30.0)
        self.answers: dict[str, list[tuple[Any, ...]]] = {}

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        self.answers[sql] = super().rows(sql, parameters)
        return self.answers[sql]


class Told:
    """A planted log, the result that the judge would have published, and what statements answered while the report was made."""

    def __init__(self, clickhouse: ClickHouse, client: Client, planned: Plan) -> None:
        self.scenario = s = Scenario(client, planned)
        for variant in "ab":
            for unit in range(UNITS):
                at = unit % 4 * 12 * HOUR_US
                s.meets(f"{variant}{unit}", variant, at, segments={"country": "DE" if unit % 3 == 0 else "other"})
                for day in paid_on(variant, unit):
                    s.happens(f"{variant}{unit}", 1.0, at + day * DAY_US + HOUR_US)
                s.happens(f"{variant}{unit}", spent(variant, unit), at + 1, metric="revenue")
                s.happens(f"{variant}{unit}", unit + 10.0 * (variant == "b"), at + 2, metric="waiting")
        s.happens("nobody", 1.0, 6 * DAY_US, metric="other")
        question = s.as_of()
        sums = {one.name: s.moments(one.name) for one in (PAID, REVENUE)}
        arms = {name: one for (_, name), one in answers.arms(client, question, (planned,)).items()}
        self.result = replace(judged(planned, sealed(sums, arms)), time=NOON + timedelta(days=6))
        self.asking = Noting(ClickHouseSettings(address=clickhouse.url, database="millrace"))
        self.asking.use_database()
        self.question, self.versions = question, (planned,)

    def report(self) -> Report:
        return gathered(self.asking, self.question, self.versions, self.result, NOON + timedelta(days=7))


@pytest.fixture(scope="module")
def told(clickhouse: ClickHouse, client: Client) -> Iterator[Told]:
    """With three earlier results in the archive, and one that is newer than what is reported."""
    made = Told(clickhouse, client, plan(PAID, REVENUE, WAITING, analysis=ANALYSIS, segments={"country": ("DE",)}))
    published = [replace(made.result, id=f"r{day}", time=NOON + timedelta(days=day)) for day in (4, 5, 6, 7)]
    insert(client, "results", "results-id", encoded("results", 0, [(at, 1, msgspec.json.encode(one)) for at, one in enumerate(published)]))
    yield made
    made.asking.close()
    client.command("TRUNCATE TABLE millrace.results")


@pytest.fixture(scope="module")
def report(told: Told) -> Report:
    return told.report()


def test_units_and_means_follow_from_the_log(report: Report) -> None:
    last = {point.variant: point for point in report.points if point.time == report.points[-1].time}
    assert {name: (point.units, point.mean) for name, point in last.items()} == {"a": (120, 0.75), "b": (120, 0.8)}
    by_day = {(point.time, point.variant): point.units for point in report.points}
    midnight = NOON.replace(hour=0)
    assert [by_day[midnight + timedelta(days=day), "a"] for day in (1, 2, 3)] == [30, 90, 120]


def test_effects_by_segment_and_by_age_follow_from_the_log(report: Report) -> None:
    in_germany = [unit for unit in range(UNITS) if unit % 3 == 0]
    shares = [np.mean([bool(paid_on(variant, unit)) for unit in in_germany]) for variant in "ab"]
    segment = next(one for one in report.segments if one.segment == "country=DE")
    assert isinstance(segment.estimate, Estimate)
    assert segment.units == 80
    assert segment.estimate.effect == pytest.approx(shares[1] - shares[0])
    assert [(age.day, age.units, round(age.effect, 12)) for age in report.ages] == [(0, 240, 0.25), (1, 240, -0.05), (2, 240, 0.0)]
    (line,) = report.trends
    errors = [np.sqrt(sum(p * (1 - p) / 120 for p in pair)) for pair in ((0.5, 0.75), (0.25, 0.2), (0.25, 0.25))]
    assert line.slope == pytest.approx(np.polyfit([0, 1, 2], [0.25, -0.05, 0.0], 1, w=1 / np.array(errors))[0])
    assert [(finding.check, finding.variant) for finding in report.findings] == [("novelty", "b")]


def test_what_is_asked_in_other_ways_follows_from_the_log(report: Report) -> None:
    asked = {(one.metric, one.name): one for one in report.sensitivity}
    values = [[spent(variant, unit) for unit in range(UNITS)] for variant in "ab"]
    judged = next(one for one in report.result.metrics if one.name == "revenue").comparisons[0].estimate
    assert isinstance(judged, Estimate)
    assert judged.effect == pytest.approx(1_997 / 120)
    assert asked["revenue", "values cut at the 99% quantile"].effect == pytest.approx(57 / 120)
    assert asked["revenue", "Mann-Whitney"].p_value == pytest.approx(stats.mannwhitneyu(*values, method="asymptotic").pvalue)
    assert asked["paid", "without the first day's units"].effect == pytest.approx(60 / 60 - 30 / 60)
    table = [[90, 30], [96, 24]]
    assert asked["paid", "chi-square"].p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert report.crosstabs[0].rows == {"a": (90, 30), "b": (96, 24)}
    strata = [[unit for unit in range(UNITS) if (unit % 3 == 0) is within] for within in (True, False)]
    means = [[np.mean([bool(paid_on(variant, unit)) for unit in stratum]) for variant in "ab"] for stratum in strata]
    effect = sum(len(stratum) / UNITS * (after - before) for stratum, (before, after) in zip(strata, means, strict=True))
    assert asked["paid", "post-stratified by country"].effect == pytest.approx(effect)


def test_values_and_quantiles_follow_from_the_log(report: Report) -> None:
    drawn = {spread.variant: spread for spread in report.spreads}
    assert sorted(drawn["b"].values) == sorted(spent("b", unit) for unit in range(UNITS))
    assert drawn["a"].quantiles["0.5"] == sorted(spent("a", unit) for unit in range(UNITS))[60]
    (quantile,) = report.quantiles
    assert (quantile.control, quantile.treatment, quantile.effect) == (60.0, 70.0, 10.0)


def test_looks_end_with_the_result(report: Report) -> None:
    """The control has none, and what was judged later is of later offsets."""
    paid = [look for look in report.looks if look.metric == "paid"]
    assert [(look.time, look.variant, look.units) for look in paid] == [(NOON + timedelta(days=day), "b", 120) for day in (4, 5, 6)]
    assert paid[-1].effect == pytest.approx(0.05)


def test_an_analyst_who_runs_a_statement_gets_the_rows_that_the_report_was_made_of(told: Told, report: Report, analyst: Client) -> None:
    analyst.use_database()
    assert len(report.queries) >= 14
    assert set(told.asking.answers) <= {query.sql for query in report.queries}
    for query in report.queries:
        assert query.title
        assert query.gives
        rows = analyst.rows(query.sql)
        assert rows
        assert rows == told.asking.answers.get(query.sql, rows)
    assert report == told.report()


def test_the_judges_numbers_follow_from_the_statement_of_the_metric(report: Report, analyst: Client) -> None:
    analyst.use_database()
    sql = next(query.sql for query in report.queries if query.title == "revenue: as it was judged")
    sums = {arm: Moments(*map(int, numbers)) for _, arm, *numbers in analyst.rows(sql)}
    told = next(one for one in report.result.metrics if one.name == "revenue").arms
    assert {name: one.total * REVENUE.step / one.n for name, one in sums.items()} == {name: arm.mean for name, arm in told.items()}
    counts = next(query.sql for query in report.queries if query.title == "what was seen of each arm")
    assert (0, "b", "exposed", 120) in analyst.rows(counts)


def test_the_whole_is_told_in_every_form(report: Report) -> None:
    whole, text = page(report), markdown(report)
    for told in (
        "Mann-Whitney",
        "chi-square",
        "Novelty",
        "country=DE",
        "values cut at the 99% quantile",
        "waiting, 0.5",
        "Offsets covered",
    ):
        assert told in whole
        assert told in text
    assert text.count("```sql") == len(report.queries)
    assert msgspec.json.decode(msgspec.json.encode(report), type=dict)["crosstabs"][0]["rows"]["a"] == [90, 30]


def test_an_archive_that_counts_other_units_than_the_result_is_told(told: Told) -> None:
    metrics = tuple(
        replace(one, arms={name: replace(arm, units=arm.units + (name == "b")) for name, arm in one.arms.items()})
        for one in told.result.metrics
    )
    before, told.result = told.result, replace(told.result, metrics=metrics)
    found = [(finding.metric, finding.variant, finding.numbers) for finding in told.report().findings if finding.check == "archive"]
    told.result = before
    assert found == [(name, "b", {"archive": 120.0, "result": 121.0}) for name in ("paid", "revenue")]


def test_a_bandits_weights_are_told_up_to_the_result(clickhouse: ClickHouse, client: Client, analyst: Client) -> None:
    learnt = plan(PAID, unit=Unit.REQUEST, allocation=Allocation(policy=Policy.THOMPSON, metric="paid"), analysis=ANALYSIS)
    s = Scenario(client, learnt)
    for number in range(4):
        s.meets("u", "ab"[number % 2], number, request_id=f"q{number}")
    first = PolicyVersion(experiment=learnt.name, version=1, plan_version=1, time=NOON, offsets={}, weights={"a": 0.5, "b": 0.5})
    versions = [
        replace(first, version=day, time=NOON + timedelta(days=day), weights={"a": chance, "b": 1 - chance})
        for day, chance in ((1, 0.5), (2, 0.25), (9, 0.1))
    ]
    insert(client, "policies", "policies-id", encoded("policies", 0, [(at, 1, msgspec.json.encode(v)) for at, v in enumerate(versions)]))
    result: Result = replace(judged(learnt, sealed({"paid": s.moments("paid")})), time=NOON + timedelta(days=3))
    asking = Asking(ClickHouseSettings(address=clickhouse.url, database="millrace"), 30.0)
    asking.use_database()
    report = gathered(asking, s.as_of(), (learnt,), result, NOON)
    asking.close()
    client.command("TRUNCATE TABLE millrace.policies")
    assert [(one.version, one.weights) for one in report.weights] == [(1, {"a": 0.5, "b": 0.5}), (2, {"a": 0.25, "b": 0.75})]
    told = page(report)
    assert "Weights over time" in told
    assert "Sample ratio over time" not in told
    assert "logged propensities" in told


def test_an_experiment_that_nobody_met_has_a_report(clickhouse: ClickHouse, client: Client, analyst: Client) -> None:
    """Without metrics too; and an analyst may run all that it asked."""
    analyst.use_database()
    for metrics in ((), (PAID, REVENUE, WAITING)):
        s = Scenario(client, plan(*metrics, analysis=ANALYSIS, name="empty"))
        asking = Asking(ClickHouseSettings(address=clickhouse.url, database="millrace"), 30.0)
        asking.use_database()
        report = gathered(asking, s.as_of(), (s.plan,), judged(s.plan, sealed({"paid": {}}, arms={})), NOON)
        asking.close()
        assert (report.points, report.spreads, report.ages, report.looks, report.findings) == ((), (), (), (), ())
        assert "cannot tell" in page(report) or not metrics
        for query in report.queries:
            if "Mann-Whitney" not in query.title:
                analyst.rows(query.sql)
