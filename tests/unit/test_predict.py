"""Does each request get its assignments and its answer, in order, and nothing that belongs to another?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from millrace.schemas.errors import SettingsError
from millrace.schemas.experiment import State, Variant
from millrace.schemas.prediction import Status
from millrace.schemas.record import Emit, Format, Refused
from millrace.schemas.wire import derived_id
from millrace.streams.answer import Keep, Recording
from millrace.streams.predict import DecideSettings
from tests.models import (
    NOW,
    NOW_MS,
    MemoryModels,
    assignments_of,
    control,
    decide,
    facts_of,
    least,
    manifest,
    nan_where,
    plan,
    predictions_of,
    refusal_of,
    request,
    route,
)


def test_a_prediction_says_what_was_decided_by_whom_and_from_what() -> None:
    record = request(least(3))
    (prediction,) = predictions_of(decide(), record)
    assert prediction.outputs == {"score": 4.0}
    assert (prediction.request_id, prediction.unit_id, prediction.model, prediction.version) == ("r-3", "u-3", "m", 1)
    assert (prediction.status, prediction.digest, prediction.time) == (Status.OK, f"{1:064x}", NOW)
    assert (prediction.latency_seconds, prediction.batch_records, prediction.shadow) == (0.02, 1, False)
    assert prediction.id == derived_id("r-3", "m")
    assert bytes(prediction.features) == b'{"a":3.0,"b":1.0}'
    assert len(prediction.vector) == 0
    assert prediction.requested.timestamp() * 1_000 == NOW_MS - 20


def test_facts_stand_in_input_order_keyed_by_unit_and_in_the_format_of_their_cause() -> None:
    step = decide(None, None, manifest(), route(), plan("e1"), plan("e2"))
    records = [request(least(i), (Format.JSON, Format.MSGPACK)[i % 2], offset=i) for i in range(10)]
    facts = [fact for fact in facts_of(step, *records) if isinstance(fact, Emit)]
    assert [fact.topic for fact in facts] == ["assignments", "assignments", "predictions"] * 10
    assert [fact.cause for fact in facts] == [record for record in records for _ in range(3)]
    assert [fact.key for fact in facts] == [f"u-{i}" for i in range(10) for _ in range(3)]
    assert [fact.event.experiment for fact in facts[:2]] == ["e1", "e2"]
    assert [fact.event.outputs["score"] for fact in facts[2::3]] == [i + 1.0 for i in range(10)]


def test_a_duplicate_request_is_answered_twice_with_the_same_ids() -> None:
    step = decide(None, None, manifest(), route(), plan())
    first, again = facts_of(step, request(least(1))), facts_of(step, request(least(1), offset=9))
    assert [fact.event.id for fact in first] == [fact.event.id for fact in again]  # type: ignore[union-attr]
    both = facts_of(step, request(least(1)), request(least(1), offset=9))
    assert [fact.event.id for fact in both] == [fact.event.id for fact in first + again]  # type: ignore[union-attr]


def test_a_request_without_a_model_gets_assignments_alone() -> None:
    step = decide(None, None, manifest(), route(), plan(variants=(Variant(name="v", model="m"),)))
    facts = facts_of(step, request(least(model=None, features=None)))
    assert [fact.topic for fact in facts] == ["assignments"]  # type: ignore[union-attr]
    assert facts_of(decide(), request(least(model=None))) == []


def test_a_refused_request_leaves_nothing_but_its_dead_letter() -> None:
    step = decide(None, None, manifest(), route(shadows=(2,)), manifest(version=2), plan())
    bad = [
        least(0, features={"a": "x", "b": 1}),
        least(1, id=""),
        least(2, model=None, features={"a": "x"}),
        least(3, model="?", vector=""),
    ]
    for value in bad:
        assert refusal_of(step, request(value)).startswith("$.")
    facts = facts_of(step, *(request(value) for value in bad), request(least(4)))
    assert [type(fact) for fact in facts] == [Refused] * 4 + [Emit] * 3
    assert [fact.record.event.id for fact in facts[:4]] == ["r-0", "", "r-2", "r-3"]  # type: ignore[union-attr]


class TestDeadline:
    def late(self, i: int, **fields: Any) -> Any:
        return request(least(i, deadline=NOW - timedelta(milliseconds=1), **fields))

    def test_a_late_request_is_answered_expired_without_a_model_run(self) -> None:
        models = MemoryModels()
        step = decide(models, None, manifest(), manifest(version=2), route(shadows=(2,)), plan())
        facts = facts_of(step, self.late(1))
        (assignment,) = assignments_of(facts)
        prediction = facts[-1].event  # type: ignore[union-attr]
        assert (prediction.status, prediction.outputs, prediction.version, prediction.digest) == (Status.EXPIRED, {}, 1, f"{1:064x}")
        assert not assignment.exposed
        assert len(facts) == 2
        assert not any(model.runs for model in models.models.values())

    def test_one_in_time_is_answered_beside_it(self) -> None:
        on_time = request(least(2, deadline=NOW))
        assert [one.status for one in predictions_of(decide(), self.late(1), on_time, self.late(3))] == ["expired", "ok", "expired"]

    def test_the_features_of_a_late_request_are_not_looked_at(self) -> None:
        assert predictions_of(decide(), self.late(1, features={"a": 1.0}))[0].status is Status.EXPIRED

    def test_a_late_request_without_a_model_was_not_exposed(self) -> None:
        step = decide(None, None, manifest(), route(), plan("e1"), plan("e2"))
        on_time = request(least(2, deadline=NOW, model=None))
        facts = facts_of(step, self.late(1, model=None), on_time, self.late(3, model=None, features={"a": "x"}))
        exposed = [(one.request_id, one.experiment, one.exposed) for one in assignments_of(facts)]
        assert exposed == [("r-1", "e1", False), ("r-1", "e2", False), ("r-2", "e1", True), ("r-2", "e2", True)]
        assert [type(fact) for fact in facts] == [Emit] * 4 + [Refused]


class TestErrors:
    def failed(self, step: Any, *records: Any) -> list[tuple[str, str]]:
        return [(one.status.value, one.error) for one in predictions_of(step, *records)]

    def test_an_unknown_model_is_an_error_that_says_what_to_do(self) -> None:
        step = decide(None, None, manifest(), route(), plan())
        facts = facts_of(step, request(least(model="other")))
        prediction = facts[-1].event  # type: ignore[union-attr]
        assert (prediction.status, prediction.model, prediction.version, prediction.digest) == (Status.ERROR, "other", 0, "")
        assert "millrace models add other FILE.onnx" in prediction.error
        assert [one.exposed for one in assignments_of(facts)] == [False]

    def test_a_missing_feature_and_a_wrong_length_fail_alone(self) -> None:
        step = decide(None, None, manifest(), route(), plan())
        records = [
            request(least(0)),
            request(least(1, features={"a": 1.0})),
            request(least(2, features=None, vector=[1.0])),
            request(least(3)),
        ]
        facts = facts_of(step, *records)
        assert [one.status for one in predictions_of(step, *records)] == ["ok", "error", "error", "ok"]
        assert [one.exposed for one in assignments_of(facts)] == [True, False, False, True]
        assert self.failed(step, records[1])[0][1].startswith("$.features: 'b' missing")
        assert [one.outputs.get("score") for one in predictions_of(step, *records)] == [1.0, None, None, 4.0]

    def test_a_row_that_makes_the_model_raise_fails_alone(self) -> None:
        def poisoned(matrix: Any, sums: Any) -> Any:
            if (matrix[:, 0] == 13).any():
                raise RuntimeError("cannot divide")
            return sums

        models = MemoryModels(poisoned)
        step = decide(models, None, manifest(), route(), plan())
        records = [request(least(i)) for i in range(64)]
        facts = facts_of(step, *records)
        answered = predictions_of(step, *records)
        assert [i for i, one in enumerate(answered) if one.status is not Status.OK] == [13]
        assert answered[13].error == "the model raised RuntimeError: cannot divide"
        assert all(one.outputs == {"score": i + 1.0} for i, one in enumerate(answered) if i != 13)
        assert [i for i, one in enumerate(assignments_of(facts)) if not one.exposed] == [13]
        assert len(models.models["m", 1].runs) <= 2 * (1 + 2 * 6)

    def test_a_model_that_always_raises_fails_every_request_and_nothing_else(self) -> None:
        def broken(matrix: Any, sums: Any) -> Any:
            raise ValueError("no")

        step = decide(MemoryModels(broken), None, manifest(), route())
        assert [one.status for one in predictions_of(step, *(request(least(i)) for i in range(7)))] == ["error"] * 7

    def test_a_row_that_is_answered_with_nan_fails_alone(self) -> None:
        models = MemoryModels(nan_where(0, 2.0))
        step = decide(models, None, manifest(), route(), plan())
        records = [request(least(i)) for i in range(5)]
        answered = predictions_of(step, *records)
        assert [one.status.value for one in answered] == ["ok", "ok", "error", "ok", "ok"]
        assert "no finite answer for 'score'" in answered[2].error
        assert answered[2].outputs == {}
        assert models.models["m", 1].runs == [5]
        assert [one.exposed for one in assignments_of(facts_of(step, *records))] == [True, True, False, True, True]

    def test_a_list_output_with_one_infinite_column_fails_alone(self) -> None:
        def pairs(matrix: Any, sums: Any) -> Any:
            with np.errstate(divide="ignore"):
                return np.stack([sums, np.log(matrix[:, 0])], axis=1)

        answered = predictions_of(decide(MemoryModels(pairs)), *(request(least(i)) for i in range(3)))
        assert [one.status.value for one in answered] == ["error", "ok", "ok"]
        assert answered[1].outputs == {"score": [2.0, 0.0]}

    def test_a_version_that_cannot_be_used_says_why(self) -> None:
        models = MemoryModels()
        models.broken["m", 1] = "its bytes are not those of the manifest"
        assert self.failed(decide(models), request(least())) == [("error", "its bytes are not those of the manifest")]


class TestMicroBatches:
    @pytest.mark.parametrize(("records", "runs"), [(4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
    def test_a_batch_is_what_is_there_up_to_its_size(self, records: int, runs: list[int]) -> None:
        models = MemoryModels()
        answered = predictions_of(decide(models, DecideSettings(batch_records=4)), *(request(least(i)) for i in range(records)))
        assert models.models["m", 1].runs == runs
        assert [one.batch_records for one in answered] == [size for size in runs for _ in range(size)]

    def test_a_model_may_have_a_size_of_its_own(self) -> None:
        models = MemoryModels()
        step = decide(models, DecideSettings(batch_records_of={"n": 2}), manifest(), route(), manifest("n"), route("n"))
        answered = predictions_of(step, *(request(least(i, model="mn"[i % 2])) for i in range(6)))
        assert {target: model.runs for target, model in models.models.items()} == {("m", 1): [3], ("n", 1): [2, 1]}
        assert [one.outputs["score"] for one in answered] == [i + 1.0 for i in range(6)]

    def test_no_batch_mixes_versions(self) -> None:
        models = MemoryModels()
        step = decide(models, None, manifest(), manifest(version=2), route(serves=((1, 1.0), (2, 1.0))))
        answered = predictions_of(step, *(request(least(i)) for i in range(100)))
        served = [one.version for one in answered]
        assert {version: models.models["m", version].runs for version in (1, 2)} == {1: [served.count(1)], 2: [served.count(2)]}
        assert 30 < served.count(1) < 70
        assert [one.digest for one in answered] == [f"{version:064x}" for version in served]


class TestShadows:
    def test_shadows_answer_too_and_are_marked(self) -> None:
        step = decide(None, None, manifest(), manifest(version=2), manifest(version=3), route(shadows=(3, 2)), plan())
        facts = facts_of(step, request(least(1)), request(least(2)))
        answers = [fact.event for fact in facts if isinstance(fact, Emit) and fact.topic == "predictions"]
        assert [(one.version, one.shadow) for one in answers] == [(1, False), (2, True), (3, True)] * 2
        assert len({one.id for one in answers}) == 6
        assert answers[1].id == derived_id("r-1", "m", "shadow", "2")

    def test_a_shadow_that_fails_takes_nothing_from_what_it_shadows(self) -> None:
        models = MemoryModels()
        models.broken["m", 2] = "broken"
        wider = manifest(version=3, features=("a", "b", "c"))
        step = decide(models, None, manifest(), manifest(version=2), wider, route(shadows=(2, 3)), plan())
        facts = facts_of(step, request(least(1)))
        answers = [fact.event for fact in facts if isinstance(fact, Emit) and fact.topic == "predictions"]
        assert [(one.status.value, one.shadow) for one in answers] == [("ok", False), ("error", True), ("error", True)]
        assert [one.exposed for one in assignments_of(facts)] == [True]

    def test_a_version_that_serves_a_unit_is_not_its_shadow_as_well(self) -> None:
        step = decide(None, None, manifest(), manifest(version=2), route(serves=((1, 1.0), (2, 1.0)), shadows=(2,)))
        by_request: dict[str, list[tuple[int, bool]]] = {}
        for one in predictions_of(step, *(request(least(i)) for i in range(30))):
            by_request.setdefault(one.request_id, []).append((one.version, one.shadow))
        assert {tuple(answers) for answers in by_request.values()} == {((1, False), (2, True)), ((2, False),)}


class TestExperimentsThatChooseTheModel:
    def chooses(self, name: str, *models: str | None, **fields: Any) -> Any:
        return plan(name, variants=tuple(Variant(name=f"v{i}", model=model) for i, model in enumerate(models)), **fields)

    def test_a_variant_may_choose_the_model(self) -> None:
        step = decide(None, None, manifest(), route(), manifest("n"), route("n"), self.chooses("e", "m", "n"))
        facts = facts_of(step, *(request(least(i)) for i in range(40)))
        assigned = [one.model for one in assignments_of(facts)]
        answered = [fact.event.model for fact in facts if isinstance(fact, Emit) and fact.topic == "predictions"]
        assert assigned == answered
        assert set(answered) == {"m", "n"}

    def test_the_first_experiment_by_name_chooses_and_the_others_variant_was_not_met(self) -> None:
        step = decide(None, None, manifest(), route(), manifest("n"), route("n"), self.chooses("b", "m"), self.chooses("a", "n"))
        facts = facts_of(step, request(least()))
        assert [(one.experiment, one.exposed) for one in assignments_of(facts)] == [("a", True), ("b", False)]
        assert facts[-1].event.model == "n"  # type: ignore[union-attr]

    def test_a_plan_may_be_limited_to_models(self) -> None:
        step = decide(None, None, manifest(), route(), manifest("n"), route("n"), plan("only-n", models=("n",)))
        assert assignments_of(facts_of(step, request(least()))) == []
        assert len(assignments_of(facts_of(step, request(least(model="n"))))) == 1


class TestFeaturesRecorded:
    def features(self, keep: str, **fields: Any) -> list[Any]:
        settings = DecideSettings(recording=Recording.parse(keep))
        return predictions_of(
            decide(None, settings, manifest(defaults={"b": 2.0}), route()), *(request(least(i, **fields)) for i in range(60))
        )

    def test_all_records_the_requests_own_bytes(self) -> None:
        assert bytes(self.features("all", features=None, vector=[1.25, 2.0])[0].vector) == b"[1.25,2.0]"

    def test_a_default_is_recorded_too(self) -> None:
        (first, *_) = self.features("all", features={"a": 1.0})
        assert msgspec.json.decode(first.features) == {"a": 1.0, "b": 2.0}
        assert first.outputs == {"score": 3.0}

    def test_hash_records_the_row_however_it_was_stated(self) -> None:
        named, listed = self.features("hash", features={"a": 1.0, "b": 2.0})[0], self.features("hash", features=None, vector=[1, 2])[0]
        assert named.features_digest == listed.features_digest != ""
        assert len(named.features) == len(listed.vector) == 0
        assert self.features("hash", features={"a": 1.0, "b": 3.0})[0].features_digest != named.features_digest

    def test_a_ratio_records_the_same_share_of_requests_every_time(self) -> None:
        kept = [len(one.features) > 0 for one in self.features("0.5")]
        assert kept == [len(one.features) > 0 for one in self.features("0.5")]
        assert 15 < sum(kept) < 45
        assert [bool(one.features_digest) for one in self.features("0.5")] == [not whole for whole in kept]

    def test_a_model_may_record_otherwise(self) -> None:
        settings = DecideSettings(recording_of={"m": Recording(Keep.HASH)})
        assert predictions_of(decide(None, settings), request(least()))[0].features_digest

    @pytest.mark.parametrize("text", ["some", "-0.1", "1.5", "", "nan"])
    def test_any_other_word_is_refused(self, text: str) -> None:
        with pytest.raises(SettingsError, match="features_recorded"):
            Recording.parse(text)


class TestControl:
    def test_only_running_plans_assign(self) -> None:
        step = decide(None, None, manifest(), route(), plan(state=State.DRAFT))
        states = [State.RUNNING, State.PAUSED, State.RUNNING, State.STOPPED]
        seen = [len(assignments_of(facts_of(step, request(least()))))]
        for version, state in enumerate(states, 2):
            assert step.observe(control(plan(version=version, state=state)))
            seen.append(len(assignments_of(facts_of(step, request(least())))))
        assert seen == [0, 1, 0, 1, 0]

    @pytest.mark.parametrize("event", [plan(version=3), plan(), manifest(version=3), manifest(), route(version=3), route()])
    def test_a_racing_or_skipping_version_is_ignored_and_told_so(self, event: Any) -> None:
        step = decide(None, None, manifest(), route(), plan())
        assert not step.observe(control(event))
        assert len(facts_of(step, request(least()))) == 2

    def test_a_plan_that_cannot_assign_is_ignored_and_the_one_before_goes_on(self) -> None:
        step = decide(None, None, manifest(), route(), plan())
        assert not step.observe(control(plan(version=2, weights=(0.0, 0.0))))
        assert [one.plan_version for one in assignments_of(facts_of(step, request(least())))] == [1]
        assert step.observe(control(plan(version=3)))
        assert [one.plan_version for one in assignments_of(facts_of(step, request(least())))] == [3]

    def test_a_route_waits_for_the_version_that_it_names(self) -> None:
        step = decide(None, None, manifest(), route())
        assert step.observe(control(route(version=2, serves=((2, 1.0),))))
        assert predictions_of(step, request(least()))[0].version == 1
        assert step.observe(control(manifest(version=2)))
        assert predictions_of(step, request(least()))[0].version == 2

    def test_topics_may_be_read_in_any_order_at_the_start(self) -> None:
        step = decide(None, None, route(), plan(), manifest())
        assert predictions_of(step, request(least()))[0].status is Status.OK


def test_an_empty_poll_says_nothing_and_time_alone_neither() -> None:
    assert facts_of(decide()) == []
    assert list(decide().tick(0, NOW)) == []
