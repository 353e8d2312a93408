"""Who answers while versions are on their way, missing or broken: does one of them ever cost another model anything?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from millrace.schemas.errors import NotNow
from millrace.schemas.event import from_ms
from millrace.schemas.model import ModelVersion, Route
from millrace.schemas.record import Record
from millrace.streams.fleet import GRACE_SECONDS
from millrace.streams.predict import Decide, DecideSettings
from millrace.streams.step import Batch
from tests.models import (
    NOW_MS,
    MemoryModels,
    control,
    decide,
    facts_of,
    least,
    manifest,
    predictions_of,
    request,
    route,
)

TO_2 = route(version=2, serves=((2, 1.0),))
PATHS = ("loading", "missing", "broken")


def hinder(models: MemoryModels, path: str, target: tuple[str, int]) -> None:
    """Let a version be on its way, not to be had, or of no use."""
    if path == "loading":
        models.loading.add(target)
    else:
        getattr(models, path)[target] = f"{target[0]}/{target[1]} is {path}"


def free(models: MemoryModels) -> None:
    for path in PATHS:
        getattr(models, path).clear()


def tell(step: Decide, *events: Any) -> None:
    for event in events:
        assert step.observe(control(event))


def answers(step: Decide, *names: str) -> list[tuple[str, int, str]]:
    """Status, version and error of one request of each model, in one poll."""
    found = predictions_of(step, *(request(least(i, model=name), offset=i) for i, name in enumerate(names)))
    return [(one.status.value, one.version, one.error) for one in found]


@pytest.mark.parametrize("path", PATHS)
def test_the_old_version_serves_until_the_new_one_is_there(path: str) -> None:
    models = MemoryModels()
    step = decide(models)
    hinder(models, path, ("m", 2))
    tell(step, manifest(version=2), TO_2)
    for _ in range(3):
        assert answers(step, "m") == [("ok", 1, "")]
        assert list(step.settle()) == ["m/2"]
        assert models.wanted == {("m", 1), ("m", 2)}
    free(models)
    assert answers(step, "m") == [("ok", 2, "")]
    assert step.settle() == {}
    assert models.wanted == {("m", 2)}


@pytest.mark.parametrize("path", PATHS)
def test_one_version_that_is_not_there_stops_no_other_model(path: str) -> None:
    models = MemoryModels()
    step = decide(models)
    hinder(models, path, ("m", 2))
    tell(step, manifest(version=2), TO_2, manifest("n"), route("n"), manifest("n", 2), route("n", 2, ((2, 1.0),)))
    assert answers(step, "m", "n") == [("ok", 1, ""), ("ok", 2, "")]
    assert step.settle().keys() == {"m/2"}


@pytest.mark.parametrize("path", ["missing", "broken"])
def test_a_first_version_that_failed_is_an_answer_with_the_reason_and_serves_when_it_is_there(path: str) -> None:
    models = MemoryModels()
    hinder(models, path, ("n", 1))
    step = decide(models)
    tell(step, manifest("n"), route("n"))
    assert answers(step, "m", "n") == [("ok", 1, ""), ("error", 1, f"n/1 is {path}")]
    assert step.settle() == {"n/1": f"n/1 is {path}"}
    free(models)
    assert answers(step, "n") == [("ok", 1, "")]


def test_requests_of_a_first_version_that_is_on_its_way_wait_and_say_where() -> None:
    models = MemoryModels()
    step = decide(models)
    models.loading.add(("n", 1))
    tell(step, manifest("n"), route("n"))
    assert answers(step, "m") == [("ok", 1, "")]
    records = [replaced(request(least(i, model="mn"[i > 2]), offset=i), partition=i % 2) for i in range(6)]
    with pytest.raises(NotNow) as error:
        facts_of(step, *records)
    assert error.value.at == {("requests", 1): 3, ("requests", 0): 4}
    models.loading.clear()
    assert [one.status.value for one in predictions_of(step, *records)] == ["ok"] * 6


def replaced(record: Record, partition: int) -> Record:
    record.partition = partition
    return record


def test_a_shadow_that_is_on_its_way_holds_no_route_but_its_own() -> None:
    models = MemoryModels()
    step = decide(models)
    models.loading.add(("m", 2))
    tell(step, manifest(version=2), route(version=2, shadows=(2,)))
    assert [one.shadow for one in predictions_of(step, request(least()))] == [False]
    models.loading.clear()
    assert [one.shadow for one in predictions_of(step, request(least()))] == [False, True]


@pytest.mark.parametrize("half", [manifest("n"), route("n")], ids=["version", "route"])
def test_half_a_model_is_waited_for_a_moment_and_no_longer(half: ModelVersion | Route) -> None:
    step = decide()
    tell(step, half)
    with pytest.raises(NotNow, match="was added a moment ago"):
        answers(step, "n")
    later = Batch(-1, [request(least(model="n"))], from_ms(NOW_MS + round(GRACE_SECONDS * 1_000)))
    (fact,) = step.process(later)
    assert fact.event.error.startswith("no route for the model 'n': ")  # type: ignore[union-attr]
    tell(step, route("n") if isinstance(half, ModelVersion) else manifest("n"))
    assert answers(step, "n") == [("ok", 1, "")]


@pytest.mark.parametrize("turned", [False, True])
def test_the_moment_begins_with_the_last_that_was_told_whichever_topic_is_read_first(turned: bool) -> None:
    """Two versions of a model whose route is not there yet, the second told 3 s after the first."""
    step = decide()
    told = [(manifest("n"), NOW_MS), (route("n", serves=((2, 1.0),)), NOW_MS + 3_000)]
    for event, appended_ms in reversed(told) if turned else told:
        assert step.observe(msgspec.structs.replace(control(event), appended_ms=appended_ms))
    with pytest.raises(NotNow, match="was added a moment ago"):
        step.process(Batch(-1, [request(least(model="n"))], from_ms(NOW_MS + round(GRACE_SECONDS * 1_000))))


def test_a_model_that_was_never_added_is_not_waited_for() -> None:
    assert answers(decide(), "other", "m")[0][0] == "error"


def test_what_becomes_usable_between_settling_and_the_poll_is_not_used_before_it_is_settled() -> None:
    """What a transaction knew is what ``settle`` said, because that is what is recorded."""
    models = MemoryModels()
    hinder(models, "missing", ("m", 1))
    step = decide(models)
    free(models)
    (fact,) = step.process(Batch(-1, [request(least())], from_ms(NOW_MS)))
    assert fact.event.error == "m/1 is missing"  # type: ignore[union-attr]


def test_a_fresh_worker_falls_back_to_the_newest_route_that_lacks_nothing() -> None:
    models = MemoryModels()
    hinder(models, "missing", ("m", 3))
    hinder(models, "broken", ("m", 2))
    events = [manifest(), manifest(version=2), manifest(version=3), route(), TO_2, route(version=3, serves=((3, 1.0),))]
    assert answers(decide(models, None, *events), "m") == [("ok", 1, "")]
    hinder(models, "broken", ("m", 1))
    assert answers(decide(models, None, *events), "m") == [("error", 3, "m/3 is missing")]


def interleaved(first: Sequence[Any], second: Sequence[Any]) -> list[list[Any]]:
    """Every order in which two topics can be read."""
    total = len(first) + len(second)
    orders = []
    for places in itertools.combinations(range(total), len(first)):
        ours, theirs = iter(first), iter(second)
        orders.append([next(ours) if i in places else next(theirs) for i in range(total)])
    return orders


@pytest.mark.parametrize("lacking", [(), (1,), (2,), (3,), (2, 3), (1, 2, 3)])
def test_who_answers_is_a_function_of_what_is_known_and_lacking_and_of_no_order(lacking: tuple[int, ...]) -> None:
    versions = [manifest(version=number) for number in (1, 2, 3)]
    routes = [route(version=number, serves=((number, 1.0),)) for number in (1, 2, 3)]
    found = set()
    for order, every in itertools.product(interleaved(versions, routes), (1, 2, 6)):
        models = MemoryModels()
        for number in lacking:
            hinder(models, "missing", ("m", number))
        step = Decide(models, DecideSettings())
        for i, event in enumerate(order, 1):
            tell(step, event)
            if i % every == 0:
                step.settle()
        told = step.settle()
        found.add((*answers(step, "m"), *told) if len(lacking) == 3 else tuple(answers(step, "m")))
    usable = [number for number in (1, 2, 3) if number not in lacking]
    wanted = (("ok", usable[-1], ""),) if usable else (("error", 3, "m/3 is missing"), "m/1", "m/2", "m/3")
    assert found == {wanted}
