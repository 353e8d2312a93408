"""Do the place where models are loaded and the one in memory, by which the decision step is proven, keep the same rules?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pytest
from msgspec.structs import replace

from millrace.infra.models import OnnxModels, inspect
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import InferenceSettings, TelemetrySettings
from millrace.infra.telemetry import Telemetry
from millrace.schemas.errors import Never, NotNow, Unavailable
from millrace.schemas.model import ModelVersion
from millrace.streams.fleet import Models
from millrace.streams.microbatch import Model
from tests.models import MemoryModels, Target, manifest
from tests.objects import MemoryObjects
from tests.stack import wait_until


class Bench(Protocol):
    """A place, and versions of the model ``m`` that are to be had at once, later, not now, or never."""

    @property
    def models(self) -> Models: ...

    def good(self, number: int) -> ModelVersion: ...

    def slow(self, number: int) -> ModelVersion: ...

    def arrive(self) -> None: ...

    def missing(self, number: int) -> ModelVersion: ...

    def broken(self, number: int) -> ModelVersion: ...


class InMemory:
    """The twin, told what becomes of each."""

    def __init__(self) -> None:
        self.models = MemoryModels()

    def good(self, number: int) -> ModelVersion:
        return manifest(version=number)

    def slow(self, number: int) -> ModelVersion:
        self.models.loading.add(("m", number))
        return manifest(version=number)

    def arrive(self) -> None:
        self.models.loading.clear()

    def missing(self, number: int) -> ModelVersion:
        self.models.missing[("m", number)] = "its bytes are not there"
        return manifest(version=number)

    def broken(self, number: int) -> ModelVersion:
        self.models.broken[("m", number)] = "its bytes are not those of the manifest"
        return manifest(version=number)


class Gated(MemoryObjects):
    """A store that lets those who ask wait."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def get(self, location: str) -> bytes:
        if not self.open.wait(60):
            raise AssertionError("never opened")
        return super().get(location)


class Real:
    """Networks that are loaded by the ONNX runtime, from their records or from a store."""

    def __init__(self) -> None:
        self.store = Gated()
        self.models = OnnxModels(InferenceSettings(), self.store, Telemetry("inference", "inference-0", TelemetrySettings()))

    def good(self, number: int) -> ModelVersion:
        data = perceptron([2, 4, 1], seed=number)
        return replace(inspect(data), name="m", version=number, data=data)

    def slow(self, number: int) -> ModelVersion:
        whole = self.good(number)
        return replace(whole, data=b"", location=self.store.put(whole.data))

    def arrive(self) -> None:
        self.store.open.set()

    def missing(self, number: int) -> ModelVersion:
        self.store.open.set()
        return replace(self.good(number), data=b"", location="sha256:" + "0" * 64)

    def broken(self, number: int) -> ModelVersion:
        return replace(self.good(number), data=self.good(number + 1).data)


@pytest.fixture(params=["memory", "real"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield InMemory()
        return
    real = Real()
    yield real
    real.arrive()
    real.models.close()


def add(bench: Bench, *versions: ModelVersion) -> None:
    """Tell of versions, and want all of them."""
    for version in versions:
        bench.models.add(version)
    bench.models.want({("m", version.version) for version in versions})


def settled(bench: Bench, target: Target) -> Model | Exception:
    """The version, or what is raised for it, once it is no longer on its way."""
    found: list[Model | Exception] = []

    def told() -> bool:
        try:
            found.append(bench.models.get(target))
        except NotNow:
            return False
        except (Never, Unavailable) as error:
            found.append(error)
        return True

    wait_until(told, 60, f"{target} is loaded or not to be had")
    return found[-1]


def loaded(bench: Bench, number: int) -> Model:
    found = settled(bench, ("m", number))
    assert not isinstance(found, Exception), found
    return found


def test_a_version_answers_each_row_under_the_names_that_it_says(bench: Bench) -> None:
    add(bench, bench.good(1))
    model = loaded(bench, 1)
    answers = model.run(np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    assert {name: len(column) for name, column in answers.items()} == {output.name: 3 for output in model.manifest.outputs}


def test_what_is_loaded_has_its_manifest_without_its_bytes(bench: Bench) -> None:
    told = bench.good(1)
    add(bench, told)
    assert loaded(bench, 1).manifest == replace(told, data=b"")


def test_no_version_is_taken_for_another(bench: Bench) -> None:
    add(bench, bench.good(2), bench.good(1))
    assert [loaded(bench, number).manifest.version for number in (1, 2, 1)] == [1, 2, 1]
    assert loaded(bench, 1).manifest.digest != loaded(bench, 2).manifest.digest


def test_told_twice_the_first_word_counts(bench: Bench) -> None:
    first = bench.good(1)
    add(bench, first, replace(bench.good(3), version=1))
    assert loaded(bench, 1).manifest.digest == first.digest


def test_one_on_its_way_is_not_now_and_holds_no_other(bench: Bench) -> None:
    add(bench, bench.good(1))
    loaded(bench, 1)
    add(bench, bench.good(1), bench.slow(2))
    with pytest.raises(NotNow):
        bench.models.get(("m", 2))
    assert loaded(bench, 1).manifest.version == 1
    bench.arrive()
    assert loaded(bench, 2).manifest.version == 2


def test_one_whose_bytes_are_not_to_be_had_is_unavailable_and_holds_no_other(bench: Bench) -> None:
    add(bench, bench.good(1), bench.missing(2))
    assert isinstance(settled(bench, ("m", 2)), Unavailable)
    assert loaded(bench, 1).manifest.version == 1


def test_one_that_cannot_be_used_is_never_to_be_had_and_says_why(bench: Bench) -> None:
    add(bench, bench.good(1), bench.broken(2))
    for _ in range(2):
        error = settled(bench, ("m", 2))
        assert isinstance(error, Never)
        assert "its bytes are not those of the manifest" in str(error)
    assert loaded(bench, 1).manifest.version == 1


def test_one_that_nobody_told_of_is_never_to_be_had(bench: Bench) -> None:
    add(bench, bench.good(1))
    assert isinstance(settled(bench, ("m", 7)), Never)
    assert isinstance(settled(bench, ("other", 1)), Never)
