"""Does the decision step keep the contract of a step: does it replay, and leave what it is given as it was?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from millrace.schemas.experiment import Condition, Test
from millrace.schemas.record import Format, Record
from millrace.schemas.topics import REQUESTS
from millrace.streams.answer import Recording
from millrace.streams.predict import Decide, DecideSettings
from millrace.streams.step import Batch, Step
from tests.driver import Log, as_bytes, replayed
from tests.models import NOW, MemoryModels, control, least, manifest, nan_where, plan, request, route

EVENTS = (
    manifest(defaults={"b": 0.5}),
    manifest(version=2),
    manifest(version=3, features=("a",)),
    route(serves=((1, 3.0), (2, 1.0)), shadows=(3,)),
    plan("all"),
    plan("some", weights=(1.0, 2.0, 3.0), sample=0.4, targeting=(Condition(field="paid", test=Test.EQUALS, value=True),)),
)
VALUES: list[tuple[dict[str, Any], Format]] = [
    (least(0), Format.JSON),
    (least(1, context={"paid": True}), Format.JSON),
    (least(2, features=None, vector=[1.0, 2.0]), Format.JSON),
    (least(3, features=None, vector=np.array([1, 2], np.float32).tobytes()), Format.MSGPACK),
    (least(4, features={"a": 1.0}), Format.MSGPACK),
    (least(5, features={"a": "x"}), Format.JSON),
    (least(6, model=None, features=None, context={"paid": True}), Format.JSON),
    (least(7, model="unknown"), Format.JSON),
    (least(8, deadline=NOW - timedelta(seconds=1)), Format.JSON),
    (least(9, features=None, vector=[1.0]), Format.JSON),
    (least(10, features={"a": 13.0, "b": 1.0}), Format.JSON),
    (least(0), Format.JSON),
]


def make() -> Decide:
    step = Decide(MemoryModels(nan_where(0, 13.0)), DecideSettings(batch_records=3, recording=Recording.parse("0.5")))
    for event in EVENTS:
        step.observe(control(event))
    step.settle()
    return step


def records() -> list[Record]:
    return [request(value, form, offset=i) for i, (value, form) in enumerate(VALUES)]


def facts(step: Step, given: list[Record]) -> list[tuple[str, str, bytes]]:
    return [as_bytes(fact) for fact in step.process(Batch(-1, given, NOW), None)]  # type: ignore[arg-type]


def test_the_same_poll_gives_the_same_bytes_on_a_fresh_step_and_again_on_the_same() -> None:
    step = make()
    first = facts(step, records())
    assert len(first) > len(VALUES)
    assert first == facts(step, records()) == facts(make(), records())


def test_inputs_are_left_alone() -> None:
    given = records()
    before = [msgspec.structs.astuple(record) for record in given]
    encoded = [msgspec.json.encode(record.event) for record in given]
    facts(make(), given)
    assert [msgspec.structs.astuple(record) for record in given] == before
    assert [msgspec.json.encode(record.event) for record in given] == encoded


@pytest.mark.parametrize("size", [1, 2, 5])
def test_however_a_backlog_is_cut_the_same_is_decided(size: int) -> None:
    def decided(taken: list[tuple[str, str, bytes]]) -> list[tuple[str, str, Any]]:
        return [(topic, key, without_batch_size(topic, value)) for topic, key, value in taken]

    whole, step, given = facts(make(), records()), make(), records()
    cut = [fact for start in range(0, len(given), size) for fact in facts(step, given[start : start + size])]
    assert decided(cut) == decided(whole)


def without_batch_size(topic: str, value: bytes) -> Any:
    if topic != "predictions":
        return value
    event = msgspec.json.decode(value) if value.startswith(b"{") else msgspec.msgpack.decode(value)
    return {name: field for name, field in event.items() if name != "batch_records"}


def test_it_replays_through_the_driver_of_the_runner() -> None:
    log = Log(partitions=2)
    for i in range(40):
        log.append_raw(REQUESTS.name, i % 2, None, msgspec.json.encode(least(i)))
    once, again = (replayed(make, log, (REQUESTS,), stateless=True, records=7).facts() for _ in range(2))
    assert once == again
    assert len({value for topic, _, value in once if topic == "assignments"}) == 40


def test_what_it_states_is_what_a_reader_of_the_topic_understands() -> None:
    from tests.driver import CODECS

    for topic, _, value in facts(make(), records()):
        if topic != "refused":
            form = Format.JSON if value.startswith(b"{") else Format.MSGPACK
            event = CODECS[topic].coding(form).decode(value)
            assert CODECS[topic].encode(event, form) == value
