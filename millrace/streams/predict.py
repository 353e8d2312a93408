"""Decide: give each request its variants, and answer it with the model that serves it, in micro-batches by model version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.assignment import Assignment
from millrace.schemas.errors import NotNow
from millrace.schemas.event import to_ms
from millrace.schemas.experiment import Plan
from millrace.schemas.limits import Limits
from millrace.schemas.model import ModelVersion, Route
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.prediction import Status
from millrace.schemas.record import Emit, Record, Refused
from millrace.schemas.request import Request
from millrace.schemas.topics import ASSIGNMENTS
from millrace.streams.answer import Answers, Recording, unexposed
from millrace.streams.assign import Assigner
from millrace.streams.door import Door
from millrace.streams.feature_values import inspect
from millrace.streams.features import Rows
from millrace.streams.fleet import Fleet, Models
from millrace.streams.microbatch import Model, Part, run_apart
from millrace.streams.routes import Serving, Target
from millrace.streams.step import Batch, Store

Fact = Emit | Refused


class DecideSettings(Struct, frozen=True):
    """Limits at the door; how many requests a model answers in one run, and how much of its features a prediction records.

    The two dictionaries override by model name.
    """

    limits: Limits = Limits()
    batch_records: int = 1_024
    recording: Recording = Recording()
    batch_records_of: dict[str, int] = {}
    recording_of: dict[str, Recording] = {}


class Poll:
    """The working state of one poll, in columns: ``facts[i]`` is what follows from ``records[i]``, and ``models[i]`` answers it."""

    def __init__(self, batch: Batch, digests: dict[Target, str]) -> None:
        self.records: Sequence[Record] = batch.records
        self.requests: list[Request] = [record.event for record in batch.records]
        self.models: list[str | None] = [request.model for request in self.requests]
        self.facts: list[list[Fact]] = [[] for _ in batch.records]
        self.open: Sequence[int] = range(len(batch.records))
        self.answers = Answers(batch.now, digests)
        self.groups: dict[Target, list[int]] = {}
        self.shadows: dict[Target, list[int]] = {}

    def refuse(self, i: int, reason: str) -> None:
        """Nothing follows from a record that is refused but its dead letter."""
        self.facts[i] = [Refused(self.records[i], reason)]

    def is_refused(self, i: int) -> bool:
        """Whether the record is refused."""
        return isinstance(next(iter(self.facts[i]), None), Refused)

    def miss(self, places: Iterable[int]) -> None:
        """What was assigned for these was not exposed; a refusal stays as it is."""
        for i in places:
            self.facts[i] = [unexposed(fact) if isinstance(fact, Emit) else fact for fact in self.facts[i]]

    def wait(self, places: Iterable[int], error: NotNow) -> NotNow:
        """The error, told of the first of these records in each partition: what stands before it, and elsewhere, need not wait."""
        first: dict[tuple[str, int], int] = {}
        for record in (self.records[i] for i in places):
            place = (record.topic, record.partition)
            first[place] = min(first.get(place, record.offset), record.offset)
        return NotNow(str(error), error.retry_seconds, first)

    def fail(self, i: int, target: Target, status: Status, error: str, *, shadow: bool = False) -> None:
        """Answer without outputs. Unless it is a shadow that has none, what was assigned was not exposed."""
        if not shadow:
            self.miss([i])
        self.facts[i].append(self.answers.failed(self.records[i], target, status, error, shadow=shadow))


class Decide:
    """Assignments and predictions of the requests of one poll, in input order.

    Stateless: the same poll, ``now`` and control records give the same events, on any machine. No micro-batch mixes versions. A wrong
    payload is refused, a late request is answered `expired` without a model run, and one that no model can answer `error`.
    """

    def __init__(self, models: Models, settings: DecideSettings) -> None:
        self._settings = settings
        self._door = Door(settings.limits)
        self._assigner = Assigner()
        self._fleet = Fleet(models, settings.limits)

    def observe(self, record: Record) -> bool:
        """Take in a plan, a policy, a model version or a route; False where it is not the next of its name.

        What it names is taken up by ``settle``, when it is loaded: until then the old route serves on.
        """
        match record.event:
            case Plan() | PolicyVersion() as event:
                return self._assigner.observe(event)
            case ModelVersion() as version:
                return self._fleet.observe_version(version, record.appended_ms)
            case Route() as route:
                return self._fleet.observe_route(route, record.appended_ms)
            case _:
                return False

    def settle(self) -> dict[str, str]:
        """Let routes serve whose versions are loaded by now; the versions that are lacking, ``model/version`` to the reason."""
        return self._fleet.settle()

    def process(self, batch: Batch, store: Store | None = None) -> list[Fact]:
        """What follows from these requests. Raises NotNow, saying which, while the first version of a model is on its way."""
        poll = Poll(batch, self._fleet.digests)
        self._admit(poll)
        self._assign(poll)
        self._route(poll)
        self._answer_all(poll)
        return list(chain.from_iterable(poll.facts))

    def tick(self, watermark_ms: int, now: datetime, store: Store | None = None) -> list[Fact]:
        """Nothing follows from time alone."""
        return []

    def _admit(self, poll: Poll) -> None:
        reasons = self._door.refusals(poll.records)
        for i, reason in reasons.items():
            poll.refuse(i, reason)
        if reasons:
            poll.open = [i for i in poll.open if i not in reasons]

    def _assign(self, poll: Poll) -> None:
        """Experiment by experiment, in the order of names."""
        requests = [poll.requests[i] for i in poll.open]
        units = [request.unit_id.encode() for request in requests]
        chosen: dict[int, str] = {}
        for experiment in self._assigner.running:
            for i, assignment in zip(poll.open, experiment.assign(requests, units, poll.answers.now), strict=True):
                if assignment is not None:
                    met = assignment if assignment.model is None else _choose(poll, i, assignment, chosen)
                    poll.facts[i].append(Emit(ASSIGNMENTS.name, assignment.unit_id, met, poll.records[i]))

    def _route(self, poll: Poll) -> None:
        """Put each request in line for the version that answers it."""
        for model, places in _by_model(poll).items():
            if model is None:
                self._judge(poll, places)
                poll.miss(_late(poll, places))
            elif (serving := self._serving(poll, model, places)) is not None:
                self._line_up(poll, serving, _in_time(poll, serving, places))
            else:
                error = f"no route for the model {model!r}: {self._remedy(model)}"
                for i in self._judge(poll, places):
                    poll.fail(i, (model, 0), Status.ERROR, error)

    def _serving(self, poll: Poll, model: str, places: Iterable[int]) -> Serving | None:
        """Who answers for a model. Raises NotNow, with the places that wait, while its first version is on its way."""
        try:
            return self._fleet.serving(model, to_ms(poll.answers.now))
        except NotNow as error:
            raise poll.wait(places, error) from None

    def _remedy(self, model: str) -> str:
        if self._fleet.knows(model):
            return f"say which version serves with `millrace models route {model} VERSION`"
        return f"add one with `millrace models add {model} FILE.onnx`"

    def _judge(self, poll: Poll, places: Iterable[int]) -> list[int]:
        """Requests that no model reads have their features judged still: what is wrong in itself is refused. Those that are good."""
        good = []
        for i in places:
            fault = inspect(poll.requests[i], self._settings.limits)
            if fault is None:
                good.append(i)
            else:
                poll.refuse(i, fault.reason)
        return good

    def _line_up(self, poll: Poll, serving: Serving, places: Sequence[int]) -> None:
        if serving.sole is not None:
            poll.groups.setdefault(serving.sole, []).extend(places)
            return
        for i in places:
            target = serving.choose(poll.requests[i].unit_id.encode())
            poll.groups.setdefault(target, []).append(i)
            for shadow in serving.shadows:
                if shadow != target:
                    poll.shadows.setdefault(shadow, []).append(i)

    def _answer_all(self, poll: Poll) -> None:
        """All models are at hand before the first one runs; shadows come after what they shadow."""
        loaded = {target: self._model(poll, target) for target in (*poll.groups, *poll.shadows)}
        for target, places in poll.groups.items():
            self._answer(poll, target, loaded[target], places, shadow=False)
        for target in sorted(poll.shadows):
            places = [i for i in poll.shadows[target] if not poll.is_refused(i)]
            self._answer(poll, target, loaded[target], places, shadow=True)

    def _model(self, poll: Poll, target: Target) -> Model | str:
        try:
            return self._fleet.model(target)
        except NotNow as error:
            raise poll.wait([*poll.groups.get(target, ()), *poll.shadows.get(target, ())], error) from None

    def _answer(self, poll: Poll, target: Target, model: Model | str, places: list[int], *, shadow: bool) -> None:
        size = self._settings.batch_records_of.get(target[0], self._settings.batch_records)
        for start in range(0, len(places), size):
            chunk = places[start : start + size]
            if isinstance(model, str):
                for i in chunk:
                    poll.fail(i, target, Status.ERROR, model, shadow=shadow)
            else:
                self._run(poll, target, model, chunk, shadow=shadow)

    def _run(self, poll: Poll, target: Target, model: Model, places: list[int], *, shadow: bool) -> None:
        """One micro-batch: read features, run the model, state the answers."""
        rows = self._fleet.reader(target, model).read([poll.records[i] for i in places])
        for at, fault in rows.faults.items():
            if fault.refused and not shadow:
                poll.refuse(places[at], fault.reason)
            else:
                poll.fail(places[at], target, Status.ERROR, fault.reason, shadow=shadow)
        good = rows.without_faults()
        kept = [i for at, i in enumerate(places) if at not in rows.faults] if rows.faults else places
        for part in run_apart(model, good.matrix):
            self._state(poll, target, kept[part.start : part.end], good, part, shadow=shadow)

    def _state(self, poll: Poll, target: Target, places: list[int], rows: Rows, part: Part, *, shadow: bool) -> None:
        recording = self._settings.recording_of.get(target[0], self._settings.recording)
        made = poll.answers.answered([poll.records[i] for i in places], target, part.outputs, shadow=shadow)
        facts = poll.facts
        for i, answer in zip(places, recording.apply(made, rows, part.start), strict=True):
            facts[i].append(answer)
        for at, error in part.errors.items():
            i = places[at - part.start]
            poll.facts[i].pop()
            poll.fail(i, target, Status.ERROR, error, shadow=shadow)


def _choose(poll: Poll, i: int, assignment: Assignment, chosen: dict[int, str]) -> Assignment:
    """Let the variant choose the model of a request that asks for one.

    Where two experiments choose differently, the first by name has its way, and the other's variant was not met.
    """
    if poll.models[i] is None or assignment.model is None:
        return assignment
    first = chosen.setdefault(i, assignment.model)
    poll.models[i] = first
    return assignment if first == assignment.model else replace(assignment, exposed=False)


def _by_model(poll: Poll) -> dict[str | None, Sequence[int]]:
    """The records that are not refused, by the model that answers them."""
    models = poll.models
    if len(set(models)) == 1:
        return {models[0]: poll.open}
    places: dict[str | None, list[int]] = {}
    for i in poll.open:
        places.setdefault(models[i], []).append(i)
    return dict(places)


def _in_time(poll: Poll, serving: Serving, places: Sequence[int]) -> Sequence[int]:
    """Answer those whose deadline has passed, and give the others."""
    late = set(_late(poll, places))
    for i in sorted(late):
        target = serving.choose(poll.requests[i].unit_id.encode())
        poll.fail(i, target, Status.EXPIRED, "the deadline had passed")
    return [i for i in places if i not in late] if late else places


def _late(poll: Poll, places: Iterable[int]) -> list[int]:
    """Those whose deadline has passed."""
    now, requests = poll.answers.now, poll.requests
    return [i for i in places if (deadline := requests[i].deadline) is not None and deadline < now]
