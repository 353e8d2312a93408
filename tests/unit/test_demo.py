"""The demo's pure parts: data, models, traffic, judgement, percentiles."""

from __future__ import annotations

from collections.abc import Sequence
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
from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Plan
from millrace.schemas.metric import Role
from millrace.schemas.moments import Arm as Seen
from millrace.schemas.request import Request
from millrace.schemas.result import (
    AnytimeEvidence,
    BayesianEvidence,
    Comparison,
    Estimate,
    FixedEvidence,
    Harm,
    MetricArm,
    MetricResult,
    Verdict,
)
from millrace.schemas.result import Decision as Decided
from millrace.schemas.result import Result as Judged
from millrace.schemas.topics import OUTCOMES, REQUESTS
from millrace.schemas.wire import codec
from millrace.streams.assign import Experiment
from millrace.workers.demo.check import ailing, check
from millrace.workers.demo.conclusion import Published, faults, told
from millrace.workers.demo.control import draft, probe, rehearsal
from millrace.workers.demo.judge import Decision, Truth, mistakes
from millrace.workers.demo.publish import Answered
from millrace.workers.demo.result import Arm, Checks, Conclusion, Counts, Found, Setting, latency, percentile, result
from millrace.workers.demo.sites import Site, load, split
from millrace.workers.demo.story import Evidence, Story
from millrace.workers.demo.traffic import PREFIX, Visit, visits, warm_ups
from millrace.workers.demo.training import OUTPUT, OUTPUTS, Trained, train
from millrace.workers.experiments_verify import Unequal, Verified
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
    outcome = codec(OUTCOMES).decode(visit.outcome("label", float(visit.site.phishing)))
    assert (request.id, request.unit_id, request.model) == (visit.request_id, visit.unit_id, "m")
    assert msgspec.json.decode(request.features) == visit.site.features
    assert (outcome.request_id, outcome.unit_id, outcome.metric) == (visit.request_id, visit.unit_id, "label")
    assert outcome.value == float(visit.site.phishing)


@pytest.mark.parametrize(
    ("phishing", "said", "outcomes"),
    [
        (True, 0.5, {"label": 1.0, "correct": 1.0, "brier": 0.25}),
        (True, 0.25, {"label": 1.0, "correct": 0.0, "brier": 0.5625, "missed": 1.0}),
        (False, 0.5, {"label": 0.0, "correct": 0.0, "brier": 0.25}),
        (False, 0.25, {"label": 0.0, "correct": 1.0, "brier": 0.0625}),
        (True, None, {"label": 1.0}),
    ],
)
def test_the_producer_tells_what_acting_on_the_answer_was_worth(phishing: bool, said: float | None, outcomes: dict[str, float]) -> None:
    assert Visit(1, "site-0001", Site(1, {}, phishing)).outcomes(said) == outcomes


def variants(plan: Plan, requests: Sequence[bytes]) -> list[str | None]:
    """The variant that inference gives to each request; None where the request takes no part."""
    decoded = [codec(REQUESTS).decode(request) for request in requests]
    made = Experiment(plan).assign(decoded, [request.unit_id.encode() for request in decoded], NOW)
    return [assignment.variant if assignment else None for assignment in made]


def asked(made: Sequence[Visit], models: Sequence[Trained]) -> list[bytes]:
    return [visit.request(models[0].name) for visit in made]


def test_the_experiment_gives_each_model_about_half_and_the_same_half_again(sites: list[Site], models: tuple[Trained, Trained]) -> None:
    made = asked(visits(split(sites)[1], 3_000, seed=7), models)
    first = variants(draft(models, 7, 3_000, NOW), made)
    assert first == variants(draft(models, 7, 3_000, NOW), made) != variants(draft(models, 8, 3_000, NOW), made)
    assert 1_400 < first.count("linear") < 1_600
    assert first.count("linear") + first.count("trees") == 3_000


def test_what_warms_up_meets_both_variants_of_a_rehearsal_and_never_the_experiment(
    sites: list[Site], models: tuple[Trained, Trained]
) -> None:
    plan = draft(models, 7, 3_000, NOW)
    warming, counted = asked(warm_ups(split(sites)[1], 200), models), asked(visits(split(sites)[1], 200, seed=7), models)
    assert set(variants(plan, warming)) == set(variants(rehearsal(plan), counted)) == {None}
    assert set(variants(rehearsal(plan), warming)) == {"linear", "trees"}
    assert rehearsal(plan).name != plan.name


def test_a_variant_s_own_unit_meets_it_and_is_left_out_of_results(models: tuple[Trained, Trained]) -> None:
    plan = draft(models, 7, 3_000, NOW)
    requests = [Request(id=variant.name, unit_id=probe(variant), model=models[0].name) for variant in plan.variants]
    made = [assignment for assignment in Experiment(plan).assign(requests, [r.unit_id.encode() for r in requests], NOW) if assignment]
    assert [(one.variant, one.model, one.override) for one in made] == [(v.name, v.model, True) for v in plan.variants]


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
    answered = Answered([1.0], {VISIT.request_id: 1.5}, 0, {})
    parts: dict[str, Any] = {"answered": answered, "report": report, "counts": Counts(1, 1, 1, 1), "wrong": [], "experiment": []} | changes
    return check([VISIT], **parts)


def test_a_clean_run_has_no_problem() -> None:
    found = checked()
    assert (found.lost, found.duplicated, found.wrong, found.problems, found.verified_records) == (0, 0, 0, (), 4)


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"answered": Answered([1.0], {}, 0, {})}, (1, 0, 0)),
        ({"answered": Answered([1.0], {VISIT.request_id: 2.0}, 3, {})}, (0, 3, 0)),
        ({"report": Report([], 4, 3, missing=1, duplicated=0, unknown=0, behind=1, seconds=1.0)}, (1, 0, 0)),
        ({"report": Report([], 4, 4, missing=0, duplicated=0, unknown=0, behind=1, seconds=1.0)}, (0, 0, 0)),
        ({"report": Report([PARTITION], 4, 7, missing=0, duplicated=1, unknown=2, behind=0, seconds=1.0)}, (0, 1, 2)),
        ({"counts": Counts(1, 1, 0, 1)}, (0, 0, 0)),
        ({"wrong": ["demo-000000 was answered 0.1"]}, (0, 0, 1)),
        ({"experiment": ["it counts 2 units"]}, (0, 0, 0)),
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


ARMS = {
    name: Arm(model=f"phishing-{name}", kind=kind, assignments=2_500, predictions=2_500, outcomes=2_500, accuracy=accuracy)
    for name, kind, accuracy in (("linear", "logistic regression", 0.9), ("trees", "gradient-boosted trees", 0.94))
}
PUBLISHED = Published(units=5_000, outcomes=5_200)
OFFSETS = {"0": {"assignments": 5_002, "outcomes-by-unit": 10_200}}


def proportion(name: str, role: Role, control: float, treatment: float, harm: Harm | None = None) -> MetricResult:
    """A metric of the two variants, 2,500 units each."""
    effect = treatment - control
    interval = (effect - 0.02, effect + 0.02)
    estimate = Estimate(
        effect=effect,
        std_error=0.008,
        fixed=FixedEvidence(interval=interval, p_value=0.001),
        always_valid=AnytimeEvidence(interval=interval, p_value=0.002, adjusted_p_value=0.004),
        bayesian=BayesianEvidence(lift=effect, std=0.008, interval=interval, chance_to_win=0.9996, risk=(0.04, 0.0)),
        cohens_d=0.1,
    )
    means = {"linear": MetricArm(units=2_500, mean=control), "trees": MetricArm(units=2_500, mean=treatment)}
    compared = (Comparison(variant="trees", estimate=estimate, harm=harm),)
    return MetricResult(name=name, kind=Kind.PROPORTION, role=role, arms=means, comparisons=compared)


def judged(**changes: Any) -> Judged:
    """The judge's result of an experiment that went well, but for the changes."""
    harmless = Harm(limit=0.01, bound=-0.03, p_value=1.0, breached=False)
    parts: dict[str, Any] = {
        "id": "r",
        "experiment": "phishing-models",
        "plan_version": 2,
        "time": NOW,
        "offsets": OFFSETS,
        "difference": "absolute",
        "alpha": 0.05,
        "units": 5_000,
        "decision": Decided(verdict=Verdict.IMPLEMENT, rule="always_valid", reason="correct of trees differs: better", variant="trees"),
        "arms": {name: Seen(assigned=2_500, exposed=2_500, outcomes=2_600) for name in ("linear", "trees")},
        "metrics": (
            proportion("correct", Role.PRIMARY, 0.9, 0.94),
            proportion("missed", Role.GUARDRAIL, 0.05, 0.03, harmless),
        ),
    }
    return Judged(**(parts | changes))


def verified(unequal: Sequence[Unequal] = (), **changes: Any) -> Verified:
    """What was compared of it, but for the changes."""
    parts: dict[str, Any] = {"offsets": {0: OFFSETS["0"]}, "compared": 216, "unequal": list(unequal)} | changes
    return Verified(experiment="phishing-models", metrics=["correct", "missed"], variants=[*ARMS], statements={}, seconds=1.0, **parts)


UNEQUAL = Unequal(0, "correct", "trees", "total", 2_350, 2_349)


def test_a_conclusion_tells_what_decided() -> None:
    found = told(judged(), verified())
    assert (found.decision, found.variant, found.units, found.compared, found.equal) == ("implement", "trees", 5_000, 216, True)
    assert found.effect == pytest.approx(0.04)
    assert found.interval == pytest.approx((0.02, 0.06))
    assert (found.metrics[0].p_value, found.metrics[0].harmed, found.metrics[1].harmed) == (0.004, None, False)
    assert (found.arms, found.sample_ratio_p) == ({"linear": 2_500, "trees": 2_500}, 1.0)


def test_a_conclusion_without_an_effect_has_no_number() -> None:
    metric = proportion("correct", Role.PRIMARY, 0.9, 0.9)
    unknown = replace(metric, comparisons=(Comparison(variant="trees", estimate=CannotTell("no variance")),))
    found = told(judged(metrics=(unknown,)), verified([UNEQUAL]))
    assert (found.effect, found.interval, found.chance_to_win) == (None, None, None)
    assert (found.unequal, found.equal) == (1, False)


def test_a_result_that_is_what_clickhouse_computes_has_no_fault() -> None:
    assert list(faults(judged(), verified(), PUBLISHED, ARMS)) == []


def test_a_mean_that_cannot_be_told_is_no_fault() -> None:
    metric = proportion("correct", Role.PRIMARY, 0.9, 0.94)
    empty = replace(metric, arms=metric.arms | {"trees": MetricArm(units=0, mean=CannotTell("no units"))})
    assert list(faults(judged(metrics=(empty,)), verified(), PUBLISHED, {"linear": ARMS["linear"]})) == []
    assert len(list(faults(judged(), verified(), PUBLISHED, {"linear": ARMS["linear"]}))) == 1


@pytest.mark.parametrize(
    ("result_of", "compared", "said"),
    [
        (judged(units=4_999), verified(), "counts 4999 units and 5200 outcomes, not 5000 and 5200"),
        (judged(), verified([UNEQUAL]), "correct trees total of partition 0: the stream says 2350, ClickHouse 2349"),
        (judged(), verified(offsets={0: {"assignments": 1}}), "of other offsets"),
        (
            judged(arms={"linear": Seen(exposed=2_500, outcomes=5_200), "trees": Seen(exposed=2_500, duplicates=3)}),
            verified(),
            "3 duplicates in trees",
        ),
        (judged(metrics=(proportion("correct", Role.PRIMARY, 0.9, 0.95),)), verified(), "correct of trees is 0.95 to the judge, but 0.94"),
    ],
)
def test_each_fault_of_a_result_is_told(result_of: Judged, compared: Verified, said: str) -> None:
    found = list(faults(result_of, compared, PUBLISHED, ARMS))
    assert len(found) == 1
    assert said in found[0]


def story(width: int, experiment: Conclusion | None) -> list[str]:
    """The lines of a story."""
    found = result(
        Found(Counts(1, 1, 1, 1), ARMS, None, checked(), experiment),
        Setting(seed=1, requests_per_second=1_000.0, warm_up_seconds=0.0, seconds=1.0),
    )
    told_to = StringIO()
    columns = [Column("request_id", "String"), Column("phishing", "Float64")]
    evidence = Evidence(5_000, {"label": 5_000, "missed": 9}, 750, "{}", "{}", "SELECT 1", columns, [("demo-000000", 0.5)])
    Story(Console(file=told_to, width=width)).tell(found, evidence, None)
    return told_to.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_cell_of_the_story_is_cut_in_a_narrow_terminal(width: int) -> None:
    lines = story(width, told(judged(), verified()))
    row = next(line for line in lines if line.split()[:1] == ["linear"])
    assert "…" not in row
    assert [*row.split()[:2], *row.split()[-4:]] == ["linear", "phishing-linear", "2,500", "2,500", "2,500", "90.0%"]
    assert ("logistic regression" in row) is (width == 120)
    assert len(row) <= max(width, 78)
    effect = next(line for line in lines if line.split()[:1] == ["correct"])
    assert effect.split() == [*["correct", "primary", "90.00%", "94.00%", "+4.00", "pt", "+2.00", "to", "+6.00", ">", "99.9%"]]
    assert len(effect) <= max(width, 78)


def test_the_story_tells_the_decision_and_whether_stream_and_batch_are_equal() -> None:
    lines = "\n".join(story(120, told(judged(), verified())))
    assert "What the experiment says: implement trees" in lines
    assert "5,009 outcomes (5,000 label, 9 missed)" in lines
    assert "5,000 units: 2,500 linear, 2,500 trees; sample ratio: p 1.00" in lines
    assert "216 integers recomputed from ClickHouse: all equal (millrace experiments verify)" in lines
    assert "5,000 requests about 750 sites" in lines
    assert "1 are not equal" in "\n".join(story(120, told(judged(), verified([UNEQUAL]))))
    assert "nothing yet" in "\n".join(story(120, None))


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
