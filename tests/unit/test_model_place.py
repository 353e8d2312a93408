"""Are versions loaded beside the stream, let go when nobody needs them, and never taken for another?"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from millrace.infra.models import OnnxModels, inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.objects import Damaged, Missing
from millrace.infra.settings import InferenceSettings, TelemetrySettings
from millrace.infra.telemetry import ModelLoaded, ModelMissing, ModelRun, ModelUnloaded, PlaceAnswers, PlaceUnavailable, Telemetry, observed
from millrace.infra.telemetry import ModelRefused as RefusedEvent
from millrace.schemas.errors import Never, NotNow, SettingsError, Unavailable
from millrace.schemas.model import ModelVersion
from tests.stack import wait_until


class Shelf:
    """An object store in memory, that may be away and may wait."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.damaged = False
        self.open = threading.Event()
        self.open.set()
        self.asked = 0

    def get(self, location: str) -> bytes:
        self.asked += 1
        if not self.open.wait(30):
            raise AssertionError("never opened")
        if self.away:
            raise Unavailable("the store does not answer")
        if self.damaged:
            raise Damaged(f"{location} is not what it was")
        if location not in self.objects:
            raise Missing(f"{location} is not there")
        return self.objects[location]


def version(number: int, name: str = "m", **fields: Any) -> ModelVersion:
    data = perceptron([3, 4, 1], seed=number)
    return replace(inspect(data), **({"name": name, "version": number, "data": data} | fields))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    with observed(lambda slot, event: seen.append(event)):
        yield seen


@pytest.fixture
def place(shelf: Shelf, events: list[Any]) -> Iterator[OnnxModels]:
    made = make(shelf)
    yield made
    made.close()


def make(shelf: Shelf, **settings: Any) -> OnnxModels:
    return OnnxModels(InferenceSettings(**settings), shelf, Telemetry("inference", "inference-0", TelemetrySettings()))


def ready(place: OnnxModels, target: tuple[str, int]) -> Any:
    """The version, once it is loaded."""
    found: list[Any] = []

    def loaded() -> bool:
        try:
            found.append(place.get(target))
        except NotNow:
            return False
        return True

    wait_until(loaded, 60, f"{target} is loaded")
    return found[-1]


def test_a_wanted_version_is_loaded_and_answers(place: OnnxModels, events: list[Any]) -> None:
    place.add(version(1))
    place.want({("m", 1)})
    model = ready(place, ("m", 1))
    rows = np.ones((5, 3), np.float32)
    assert model.run(rows)["score"].shape == (5,)
    assert model.manifest.data == b""
    assert [(event.model, event.version) for event in events if isinstance(event, ModelLoaded)] == [("m", 1)]
    assert [event.records for event in events if isinstance(event, ModelRun)] == [5]


def test_nothing_is_loaded_before_it_is_wanted(place: OnnxModels, events: list[Any]) -> None:
    place.add(version(1))
    place.want(set())
    assert events == []


def test_a_version_on_its_way_is_not_now_and_does_not_hold_the_others(place: OnnxModels, shelf: Shelf) -> None:
    big = version(2)
    shelf.objects["here"], shelf.open = big.data, threading.Event()
    place.add(version(1))
    place.add(replace(big, data=b"", location="here"))
    place.want({("m", 1)})
    ready(place, ("m", 1))
    place.want({("m", 1), ("m", 2)})
    with pytest.raises(NotNow, match="version 2 is being loaded"):
        place.get(("m", 2))
    assert place.get(("m", 1)).manifest.version == 1
    shelf.open.set()
    assert ready(place, ("m", 2)).manifest.digest == hashlib.sha256(big.data).hexdigest()
    assert shelf.asked == 1


def far(shelf: Shelf) -> ModelVersion:
    """A version whose bytes lie on the shelf."""
    found = version(1)
    shelf.objects["here"] = found.data
    return replace(found, data=b"", location="here")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millrace.infra.models.place.FETCH_RETRY_SECONDS", 0.02)


@pytest.mark.usefixtures("soon")
def test_a_store_that_is_away_is_waited_for(place: OnnxModels, shelf: Shelf, events: list[Any]) -> None:
    shelf.away = True
    place.add(far(shelf))
    place.want({("m", 1)})

    def told() -> bool:
        with pytest.raises(NotNow) as error:
            place.get(("m", 1))
        return "cannot be fetched: the store does not answer" in str(error.value)

    wait_until(told, 60, "it is told")
    wait_until(lambda: told() and shelf.asked > 2, 60, "it is asked again")
    shelf.away = False
    assert ready(place, ("m", 1))
    places = [type(event).__name__ for event in events if isinstance(event, PlaceUnavailable | PlaceAnswers)]
    assert set(places[:-1]) == {"PlaceUnavailable"}
    assert places[-1] == "PlaceAnswers"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("what", "says"), [("missing", "here is not there"), ("damaged", "here is not what it was")])
def test_bytes_that_are_not_to_be_had_are_told_once_and_asked_for_again(
    place: OnnxModels, shelf: Shelf, events: list[Any], what: str, says: str
) -> None:
    found = far(shelf)
    shelf.damaged, kept = what == "damaged", shelf.objects.pop("here")
    place.add(found)
    place.want({("m", 1)})
    with pytest.raises(Unavailable, match=f"model 'm' version 1 cannot be fetched: {says}"):
        ready(place, ("m", 1))

    def asked_again() -> bool:
        with pytest.raises(Unavailable):  # never "on its way" meanwhile: what is told of it does not flicker
            place.get(("m", 1))
        return shelf.asked > 3

    wait_until(asked_again, 60, "asked again")
    shelf.objects["here"], shelf.damaged = kept, False
    found_again: list[Any] = []

    def there() -> bool:
        with suppress(Unavailable):
            found_again.append(place.get(("m", 1)))
        return bool(found_again)

    wait_until(there, 60, "it is there")
    assert len([event for event in events if isinstance(event, ModelMissing)]) == 1


def test_one_that_is_not_to_be_had_does_not_hold_the_others(place: OnnxModels, shelf: Shelf) -> None:
    place.add(replace(version(1), data=b"", location="nowhere"))
    place.add(version(2))
    place.want({("m", 1), ("m", 2)})
    assert ready(place, ("m", 2))
    with pytest.raises(Unavailable):
        ready(place, ("m", 1))
    assert shelf.asked == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data": perceptron([3, 4, 1], seed=9)}, "not those of the manifest"),
    ({"size_bytes": 5}, "not those of the manifest"),
    ({"operators": ("Relu",)}, "operators"),
    ({"data": b""}, "neither its bytes nor where they are"),
    ({"features": ("a", "b")}, "takes 3 features"),
    ({"input": "other"}, "input"),
]


@pytest.mark.parametrize(("fields", "says"), WRONG)
def test_a_version_that_is_not_what_it_says_is_refused_for_good(
    place: OnnxModels, events: list[Any], fields: dict[str, Any], says: str
) -> None:
    place.add(version(1, **fields))
    place.want({("m", 1)})
    for _ in range(2):
        with pytest.raises(Never, match="cannot be used") as error:
            ready(place, ("m", 1))
        assert says in str(error.value)
    assert len([event for event in events if isinstance(event, RefusedEvent)]) == 1


def test_a_size_limit_holds_at_loading_too(shelf: Shelf, events: list[Any]) -> None:
    place = make(shelf, model_bytes=100)
    place.add(version(1))
    place.want({("m", 1)})
    with pytest.raises(Never, match=r"inference\.model_bytes"):
        ready(place, ("m", 1))
    place.close()


def test_an_unknown_version_is_never(place: OnnxModels) -> None:
    with pytest.raises(Never, match="has no version 7"):
        place.get(("m", 7))


def test_versions_no_longer_routed_are_let_go_and_may_come_back(place: OnnxModels, events: list[Any]) -> None:
    for number in (1, 2):
        place.add(version(number))
    place.want({("m", 1)})
    ready(place, ("m", 1))
    place.want({("m", 2)})
    ready(place, ("m", 2))
    assert [(event.model, event.version) for event in events if isinstance(event, ModelUnloaded)] == [("m", 1)]
    place.want({("m", 1)})
    assert ready(place, ("m", 1)).manifest.version == 1


def test_only_the_last_used_stay_and_one_that_made_room_comes_back_at_once(shelf: Shelf, events: list[Any]) -> None:
    place = make(shelf, loaded_models=2)
    for number in (1, 2, 3):
        place.add(version(number))
    place.want({("m", 1), ("m", 2), ("m", 3)})
    for number in (1, 2, 1, 3):
        ready(place, ("m", number))
    assert [event.version for event in events if isinstance(event, ModelUnloaded)] == [2]
    assert place.get(("m", 2)).manifest.version == 2
    assert [event.version for event in events if isinstance(event, ModelUnloaded)] == [2, 1]
    place.close()


def test_a_version_that_a_later_route_made_needless_is_not_loaded(place: OnnxModels, shelf: Shelf, events: list[Any]) -> None:
    slow = version(1)
    shelf.objects["here"], shelf.open = slow.data, threading.Event()
    place.add(replace(slow, data=b"", location="here"))
    place.add(version(2))
    place.add(version(3))
    place.want({("m", 1)})
    wait_until(lambda: shelf.asked > 0, 60, "the first is being loaded")
    place.want({("m", 2)})
    place.want({("m", 3)})
    shelf.open.set()
    ready(place, ("m", 3))
    assert 2 not in {event.version for event in events if isinstance(event, ModelLoaded)}


def test_an_unknown_provider_stops_the_worker_at_its_start(shelf: Shelf) -> None:
    with pytest.raises(SettingsError, match="NoSuchProvider"):
        make(shelf, providers=("NoSuchProvider",))


def test_a_second_telling_changes_nothing(place: OnnxModels) -> None:
    place.add(version(1))
    place.add(version(1, data=b"other"))
    place.want({("m", 1)})
    assert ready(place, ("m", 1)).manifest.digest == version(1).digest
