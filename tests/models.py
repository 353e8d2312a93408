"""Models for tests of the decision step: in memory, with behaviour that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
import numpy as np

from millrace.schemas.errors import Never, NotNow, Unavailable
from millrace.schemas.event import from_ms
from millrace.schemas.experiment import Plan, State, Variant
from millrace.schemas.model import Golden, ModelVersion, Output, Route, Share
from millrace.schemas.record import Emit, Format, Record, Refused
from millrace.schemas.topics import EXPERIMENTS, MODELS, POLICIES, REQUESTS, ROUTES
from millrace.schemas.wire import codec
from millrace.streams.predict import Decide, DecideSettings
from millrace.streams.step import Batch

NOW_MS = 1_700_000_000_000
NOW = from_ms(NOW_MS)
Target = tuple[str, int]
CODEC = codec(REQUESTS)


class Sum:
    """Answers the sum of a row's features; ``spoil`` may raise or change what it answers."""

    def __init__(self, manifest: ModelVersion, spoil: Callable[[Any, Any], Any] = lambda matrix, sums: sums) -> None:
        self.manifest = manifest
        self.runs: list[int] = []
        self._spoil = spoil

    def run(self, matrix: Any) -> Mapping[str, Any]:
        self.runs.append(len(matrix))
        return {"score": self._spoil(matrix, matrix.sum(axis=1))}


class MemoryModels:
    """The in-memory twin of the place where models are loaded.

    ``loading`` are on their way, ``missing`` are not to be had now, ``broken`` cannot be used.
    """

    def __init__(self, spoil: Callable[[Any, Any], Any] = lambda matrix, sums: sums) -> None:
        self.models: dict[Target, Sum] = {}
        self.wanted: AbstractSet[Target] = frozenset()
        self.loading: set[Target] = set()
        self.broken: dict[Target, str] = {}
        self.missing: dict[Target, str] = {}
        self._spoil = spoil

    def add(self, version: ModelVersion) -> None:
        self.models.setdefault((version.name, version.version), Sum(msgspec.structs.replace(version, data=b""), self._spoil))

    def want(self, targets: AbstractSet[Target]) -> None:
        self.wanted = frozenset(targets)

    def get(self, target: Target) -> Sum:
        if target in self.loading:
            raise NotNow(f"{target} is being loaded")
        if target in self.missing:
            raise Unavailable(self.missing[target])
        if target in self.broken:
            raise Never(self.broken[target])
        if target not in self.models:
            raise Never(f"no such version: {target}")
        return self.models[target]


def manifest(name: str = "m", version: int = 1, features: tuple[str, ...] = ("a", "b"), **fields: Any) -> ModelVersion:
    """A version of a model that sums its features."""
    return ModelVersion(
        name=name,
        version=version,
        time=NOW,
        digest=f"{version:064x}",
        size_bytes=1,
        input="features",
        features=features,
        outputs=(Output(name="score", tensor="score"),),
        operators=("ReduceSum",),
        golden=Golden(vector=(0.0,) * len(features), outputs={"score": 0.0}),
        data=b"x",
        **fields,
    )


def route(name: str = "m", version: int = 1, serves: tuple[tuple[int, float], ...] = ((1, 1.0),), shadows: tuple[int, ...] = ()) -> Route:
    """A route: (version, weight) pairs, and shadows."""
    return Route(
        name=name,
        version=version,
        time=NOW,
        shares=tuple(Share(version=number, weight=weight) for number, weight in serves),
        shadows=shadows,
    )


def plan(name: str = "exp", version: int = 1, state: State = State.RUNNING, weights: tuple[float, ...] = (1.0, 1.0), **fields: Any) -> Plan:
    """A plan with variants v0, v1, ... of these weights."""
    variants = fields.pop("variants", tuple(Variant(name=f"v{i}", weight=weight) for i, weight in enumerate(weights)))
    return Plan(name=name, version=version, state=state, time=NOW, salt=fields.pop("salt", f"{name}-salt"), variants=variants, **fields)


def control(event: Any) -> Record:
    """A control record, decoded."""
    topic = next(topic for topic in (EXPERIMENTS, POLICIES, MODELS, ROUTES) if isinstance(event, topic.event))
    return Record(topic.name, 0, 0, NOW_MS, None, None, None, event)


def request(value: Mapping[str, Any] | bytes, form: Format = Format.JSON, appended_ms: int = NOW_MS - 20, offset: int = 0) -> Record:
    """A record of ``requests``, decoded as the runner does it."""
    encode = msgspec.json.encode if form is Format.JSON else msgspec.msgpack.encode
    raw = value if isinstance(value, bytes) else encode(value)
    record = Record("requests", 0, offset, appended_ms, None, raw, [("content-type", form.value.encode())])
    CODEC.read(record)
    return record


def least(i: int = 0, **fields: Any) -> dict[str, Any]:
    """The least request for the model ``m``; None takes a field away."""
    whole = {"id": f"r-{i}", "unit_id": f"u-{i}", "model": "m", "features": {"a": float(i), "b": 1.0}} | fields
    return {name: value for name, value in whole.items() if value is not None}


def decide(models: MemoryModels | None = None, settings: DecideSettings | None = None, *events: Any) -> Decide:
    """A step that has observed these events; without any, version 1 of ``m`` on its route."""
    step = Decide(models or MemoryModels(), settings or DecideSettings())
    for event in events or (manifest(), route()):
        if not step.observe(control(event)):
            raise AssertionError(f"ignored: {event}")
    step.settle()
    return step


def facts_of(step: Decide, *records: Record) -> list[Emit | Refused]:
    """What follows from these records at NOW, as the runner asks for it."""
    step.settle()
    return step.process(Batch(-1, records, NOW))


def predictions_of(step: Decide, *records: Record) -> list[Any]:
    """The predictions among it."""
    return [fact.event for fact in facts_of(step, *records) if isinstance(fact, Emit) and fact.topic == "predictions"]


def assignments_of(facts: list[Emit | Refused]) -> list[Any]:
    """The assignments among some facts."""
    return [fact.event for fact in facts if isinstance(fact, Emit) and fact.topic == "assignments"]


def refusal_of(step: Decide, record: Record) -> str:
    """The reason for which one record is refused."""
    facts = facts_of(step, record)
    if len(facts) != 1 or not isinstance(facts[0], Refused):
        raise AssertionError(f"not refused: {facts}")
    return facts[0].reason


def nan_where(feature: int, value: float) -> Callable[[Any, Any], Any]:
    """Spoil the rows in which a feature has this value."""
    return lambda matrix, sums: np.where(matrix[:, feature] == value, np.nan, sums)
