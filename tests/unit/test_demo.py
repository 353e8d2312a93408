"""The demo's pure parts: data, models, traffic, judgement, percentiles."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from millrace.infra.clickhouse.client import Column
from millrace.infra.kafka.paced import due_times
from millrace.infra.models import inspect, parse_outputs
from millrace.schemas.request import Request
from millrace.schemas.topics import OUTCOMES, REQUESTS
from millrace.schemas.wire import codec
from millrace.streams.assign import Experiment
from millrace.workers.demo.check import ailing, check
from millrace.workers.demo.control import draft, unit_of, variant_of
from millrace.workers.demo.judge import Decision, Truth, mistakes
from millrace.workers.demo.publish import Answered
from millrace.workers.demo.result import Arm, Checks, Counts, Found, Setting, latency, percentile, result
from millrace.workers.demo.sites import Site, load, split
from millrace.workers.demo.story import Evidence, Story
from millrace.workers.demo.traffic import PREFIX, Visit, visits, warm_ups
from millrace.workers.demo.training import OUTPUT, OUTPUTS, Trained, train
from millrace.workers.stack.status import Places, Row, Status
from millrace.workers.verify import Checked, Report

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return load()


@pytest.fixture(scope="module")
def models(sites: list[Site]) -> tuple[Trained, Trained]:
    return train(split(sites)[0], seed=7)


def test_the_data_is_split_into_sites_to_learn_from_and_sites_to_serve(sites: list[Site]) -> None:
    training, served = split(sites)
    assert (len(training), len(served)) == (500, 750)
    assert {site.number for site in training}.isdisjoint(site.number for site in served)
    assert all(len(site.features) == 9 for site in sites)
    assert {site.phishing for site in sites} == {True, False}


def test_both_models_are_good_and_of_different_kinds(sites: list[Site], models: tuple[Trained, Trained]) -> None:
    served = split(sites)[1]
    operators = []
    for model in models:
        right = [(answer >= 0.5) is site.phishing for answer, site in zip(model.expected(served), served, strict=True)]
        assert sum(right) / len(right) > 0.88, model.name
        operators.append(set(inspect(model.onnx, model.features, parse_outputs(OUTPUTS)).operators))
    assert operators[0].isdisjoint(operators[1])


def test_a_model_s_onnx_answers_as_the_library_that_trained_it(models: tuple[Trained, Trained]) -> None:
    for model in models:
        golden = inspect(model.onnx, model.features, parse_outputs(OUTPUTS)).golden
        site = Site(0, dict(zip(model.features, golden.vector, strict=True)), phishing=False)
        assert model.expected([site])[0] == pytest.approx(golden.outputs[OUTPUT], abs=1e-5)


def test_the_same_seed_trains_the_same_models(sites: list[Site], models: tuple[Trained, Trained]) -> None:
    again = train(split(sites)[0], seed=7)
    served = split(sites)[1]
    assert [model.expected(served) for model in again] == [model.expected(served) for model in models]


def test_requests_cover_every_site_before_any_comes_again(sites: list[Site]) -> None:
    served = split(sites)[1]
    made = visits(served, 1_600, seed=7)
    assert len(made) == len({visit.request_id for visit in made}) == len({visit.unit_id for visit in made}) == 1_600
    assert {visit.site.number for visit in made[:750]} == {site.number for site in served}
    assert [visit.site.number for visit in made[:750]] != [visit.site.number for visit in made[750:1_500]]


def test_the_seed_decides_the_order(sites: list[Site]) -> None:
    served = split(sites)[1]
    assert visits(served, 900, 1) == visits(served, 900, 1) != visits(served, 900, 2)


def test_what_is_published_is_what_the_topics_carry(sites: list[Site]) -> None:
    visit = visits(split(sites)[1], 1, seed=7)[0]
    request = codec(REQUESTS).decode(visit.request("m"))
    outcome = codec(OUTCOMES).decode(visit.outcome())
    assert (request.id, request.unit_id, request.model) == (visit.request_id, visit.unit_id, "m")
    assert msgspec.json.decode(request.features) == visit.site.features
    assert (outcome.request_id, outcome.unit_id, outcome.metric) == (visit.request_id, visit.unit_id, "label")
    assert outcome.value == float(visit.site.phishing)


def test_the_experiment_gives_each_model_about_half_and_the_same_half_again(sites: list[Site], models: tuple[Trained, Trained]) -> None:
    made = visits(split(sites)[1], 3_000, seed=7)

    def split_of(seed: int) -> list[str]:
        plan = draft(models, seed, NOW)
        return [variant_of(plan, visit.unit_id).name for visit in made]

    first = split_of(7)
    assert first == split_of(7) != split_of(8)
    assert 1_400 < first.count("linear") < 1_600
    assert first.count("linear") + first.count("trees") == 3_000


def test_the_split_is_the_one_that_inference_makes(models: tuple[Trained, Trained]) -> None:
    plan = draft(models, 7, NOW)
    units = [f"site-{number}" for number in range(200)]
    requests = [Request(id=unit, unit_id=unit, model=models[0].name) for unit in units]
    made = Experiment(plan).assign(requests, [unit.encode() for unit in units], NOW)
    assert [assignment.variant for assignment in made if assignment] == [variant_of(plan, unit).name for unit in units]


def test_a_warm_up_unit_meets_the_model_that_is_to_be_warmed(models: tuple[Trained, Trained]) -> None:
    plan = draft(models, 7, NOW)
    for model in models:
        assert variant_of(plan, unit_of(plan, model.name)).model == model.name


PARTITION = Checked("requests", 0, 0, 4, records=4, rows=7, missing=0, duplicated=1, unknown=2, where={})
SITE = Site(600, {"a": 1.0}, phishing=True)
VISIT = Visit(0, SITE.name, SITE)
TRUTH = Truth.of({"trees": "phishing-trees"}, [SITE], {"phishing-trees": [0.75]})
RIGHT = Decision(VISIT.request_id, VISIT.unit_id, "trees", "phishing-trees", "ok", 0.75, 1.0)


def test_what_warms_it_up_is_never_taken_for_what_is_counted(sites: list[Site]) -> None:
    served = split(sites)[1]
    warming, counted = warm_ups(served, 2_000), visits(served, 2_000, seed=7)
    assert len({visit.request_id for visit in [*warming, *counted]}) == 4_000
    assert {visit.unit_id for visit in warming}.isdisjoint(visit.unit_id for visit in counted)
    assert not any(visit.request_id.startswith(PREFIX) for visit in warming)


def test_a_right_decision_is_no_mistake() -> None:
    assert mistakes([VISIT], [RIGHT, replace(RIGHT, label=None), replace(RIGHT, phishing=0.75005)], TRUTH) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"request_id": "demo-9"}, "never asked for"),
        ({"unit_id": "site-0001"}, "is about site-0001"),
        ({"variant": None}, "no variant"),
        ({"variant": "other"}, "no variant"),
        ({"model": "phishing-linear"}, "answered by phishing-linear"),
        ({"status": "error"}, "answered error"),
        ({"phishing": None}, "was answered"),
        ({"phishing": 0.76}, "says 0.750000"),
        ({"label": 0.0}, "another site's"),
    ],
)
def test_each_kind_of_mistake_is_found(change: dict[str, object], said: str) -> None:
    found = mistakes([VISIT], [replace(RIGHT, **change)], TRUTH)
    assert len(found) == 1
    assert said in found[0]


def checked(**changes: object) -> Checks:
    """What is found of one visit that went well, but for the changes."""
    report = Report([], records=4, rows=4, missing=0, duplicated=0, unknown=0, behind=0, seconds=1.0)
    answered = Answered([1.0], {VISIT.request_id: 1.5}, 0)
    parts: dict[str, Any] = {"answered": answered, "report": report, "counts": Counts(1, 1, 1, 1), "wrong": []} | changes
    return check([VISIT], **parts)


def test_a_clean_run_has_no_problem() -> None:
    found = checked()
    assert (found.lost, found.duplicated, found.wrong, found.problems, found.verified_records) == (0, 0, 0, (), 4)


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"answered": Answered([1.0], {}, 0)}, (1, 0, 0)),
        ({"answered": Answered([1.0], {VISIT.request_id: 2.0}, 3)}, (0, 3, 0)),
        ({"report": Report([], 4, 3, missing=1, duplicated=0, unknown=0, behind=1, seconds=1.0)}, (1, 0, 0)),
        ({"report": Report([], 4, 4, missing=0, duplicated=0, unknown=0, behind=1, seconds=1.0)}, (0, 0, 0)),
        ({"report": Report([PARTITION], 4, 7, missing=0, duplicated=1, unknown=2, behind=0, seconds=1.0)}, (0, 1, 2)),
        ({"counts": Counts(1, 1, 0, 1)}, (0, 0, 0)),
        ({"wrong": ["demo-000000 was answered 0.1"]}, (0, 0, 1)),
    ],
)
def test_what_is_lost_doubled_or_wrong_is_counted_and_told(changes: dict[str, object], numbers: tuple[int, int, int]) -> None:
    found = checked(**changes)
    assert (found.lost, found.duplicated, found.wrong) == numbers
    assert found.problems


def test_a_process_that_is_not_well_is_named() -> None:
    well = Row(name="kafka", role="kafka", pid=1, state="ready", uptime_seconds=1.0, restarts=0, lag=None, last_error="")
    ill = replace(well, name="archiver-0", state="backing-off", restarts=7, last_error="no such thing")
    assert ailing(Status((well, ill), Places("k", "c"))) == ["archiver-0 is backing-off, started again 7 times: no such thing"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_cell_of_the_story_is_cut_in_a_narrow_terminal(width: int) -> None:
    arm = Arm(model="phishing-linear", kind="logistic regression", assignments=2_492, predictions=2_492, outcomes=2_492, accuracy=0.899)
    found = result(
        Found(Counts(1, 1, 1, 1), {"linear": arm}, None, checked()),
        Setting(seed=1, requests_per_second=1_000.0, warm_up_seconds=0.0, seconds=1.0),
    )
    told = StringIO()
    columns = [Column("request_id", "String"), Column("phishing", "Float64")]
    Story(Console(file=told, width=width)).tell(found, Evidence(1, "{}", "{}", "SELECT 1", columns, [("demo-000000", 0.5)]), None)
    lines = told.getvalue().splitlines()
    row = next(line for line in lines if line.split()[:1] == ["linear"])
    assert "…" not in row
    assert [*row.split()[:2], *row.split()[-4:]] == ["linear", "phishing-linear", "2,492", "2,492", "2,492", "89.9%"]
    assert ("logistic regression" in row) is (width == 120)
    assert len(row) <= max(width, 78)


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [50.0, 99.0, 100.0, 100.0]
    assert percentile([4.0], 0.5) == 4.0


def test_latency_counts_from_when_a_request_was_due() -> None:
    made = [Visit(number, f"u{number}", SITE) for number in range(3)]
    found = latency(made, due_times(100.0, 3, 10.0), {made[0].request_id: 100.5, made[1].request_id: 100.5})
    assert found is not None
    assert (found.p50, found.max) == (400.0, 500.0)
    assert latency(made, due_times(0.0, 3, 1.0), {}) is None
