"""Do the benchmarks compare like with like: does the bare loop produce the records that inference produces?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings, convert
from millrace.schemas.record import Record
from millrace.schemas.topics import ASSIGNMENTS, PREDICTIONS, Topic
from millrace.schemas.wire import codec
from millrace.workers.bench import latency, throughput
from millrace.workers.bench.options import Encoding, Network, Options, Shape
from millrace.workers.bench.place import LOOPS, loop, publish, topics, wait_until_done
from tests.stack import Broker

REQUESTS = 300


@pytest.fixture
def settings(broker: Broker) -> Settings:
    return convert({"kafka": {"address": broker.address, "partitions": 2}})


class Answers(NamedTuple):
    """What a loop answered, in the order of the requests."""

    predictions: list[Record]
    assignments: list[Record]


def answers(role: str, settings: Settings, options: Options) -> Answers:
    """Let a loop answer the requests of these options."""
    with topics(settings, options, f"{role}-{options.encoding}-{options.shape}") as fresh:
        publish(fresh, options)
        with loop(role, fresh, options) as child:
            wait_until_done(role, fresh, options.requests, child)
        return Answers(by_request(fresh, PREDICTIONS), by_request(fresh, ASSIGNMENTS))


def by_request(settings: Settings, topic: Topic) -> list[Record]:
    """What stands on a topic, in the order of the requests."""
    decode: Callable[..., object] = codec(topic).decode
    found = list(read_whole(settings, topic))
    return sorted(found, key=lambda record: decode(record.value, record.headers).request_id)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("encoding", "shape"), [(Encoding.JSON, Shape.NAME), (Encoding.MSGPACK, Shape.VECTOR)])
def test_both_loops_answer_with_the_same_records(settings: Settings, encoding: Encoding, shape: Shape) -> None:
    options = Options(encoding, shape, requests=REQUESTS)
    bare, ours = (answers(role, settings, options) for role in LOOPS)
    decode = codec(PREDICTIONS).decode
    for one, other in zip(bare.predictions, ours.predictions, strict=True):
        ours_event, bare_event = decode(other.value, other.headers), decode(one.value, one.headers)
        assert bare_event.outputs["score"] == pytest.approx(ours_event.outputs["score"], abs=1e-5)
        assert bytes(bare_event.features) == bytes(ours_event.features)
        assert bytes(bare_event.vector) == bytes(ours_event.vector)
        assert one.key == other.key
        assert [name for name, _ in one.headers or []] == [name for name, _ in other.headers or []]
        assert abs(len(one.value or b"") - len(other.value or b"")) < 40
    sizes = [sum(len(record.value or b"") for record in records) / REQUESTS for records in (bare.assignments, ours.assignments)]
    assert len(bare.assignments) == len(ours.assignments) == REQUESTS
    assert abs(sizes[0] - sizes[1]) < 10


def test_a_comparison_reports_rates_and_their_ratio(settings: Settings) -> None:
    told: list[str] = []
    report = throughput.compare(settings, Options(network=Network.POLICY, requests=2_000, rounds=1), told.append)
    assert report.ratio == pytest.approx(report.inference.median / report.bare.median, abs=0.01)
    assert report.met == (report.ratio >= 0.75) or abs(report.ratio - 0.75) < 0.001, "what is reported is rounded"
    assert len(told) == 2


@pytest.mark.slow
def test_latency_counts_every_request_from_when_it_was_due(settings: Settings) -> None:
    options = Options(rounds=1)
    report = latency.compare(settings, options, rate=100, seconds=2, tell=lambda line: None)
    assert (report.bare.requests, report.inference.requests) == (200, 200)
    for one in (report.bare, report.inference):
        assert 0 < one.p50_ms <= one.p99_ms <= one.p999_ms
