"""The bare loop: consume, decode, run the model, encode, produce, commit. What inference is measured against; run as a process.

It is written as a careful engineer would write it for one known payload and one model, and does nothing else: no check of any value, no
hashing, no routing, no experiments, no metrics, no triage. The features' own bytes are cut out of the value by a fixed marker, which
is cheaper than encoding them again. It produces the records that inference produces, of the same size and with the same headers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct

from millrace.infra.kafka.clients import Slot, full_name, group_consumer, transactional_producer
from millrace.infra.models.session import SessionSettings, open_session
from millrace.infra.settings import Settings, load
from millrace.schemas.assignment import Assignment
from millrace.schemas.event import NOTHING, from_ms
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.topics import ASSIGNMENTS, PREDICTIONS, REQUESTS, Topic
from millrace.workers.bench.options import Encoding, Options, Shape
from millrace.workers.bench.traffic import EXPERIMENT, network

ROLE = "bare"
DIGEST = "0" * 64
BUCKET = 0.12345678901234567


class Vectored(Struct, gc=False):
    """A request with its features in a list."""

    id: str
    unit_id: str
    vector: list[float]


class Packed(Struct, gc=False):
    """A request with its features as float32 in binary."""

    id: str
    unit_id: str
    vector: bytes


def _reader(options: Options) -> tuple[Callable[[bytes], Any], Callable[[Sequence[Any]], Any], bytes]:
    """How a value is decoded, how many requests become one matrix, and the marker before the features' own bytes."""
    width = options.network.sizes[0]
    if options.shape is Shape.NAME:
        row = msgspec.defstruct("Row", [(f"f{i}", float) for i in range(width)], gc=False)
        named = msgspec.defstruct("Named", [("id", str), ("unit_id", str), ("features", row)], gc=False)
        decoder: Any = msgspec.json.Decoder(named) if options.encoding is Encoding.JSON else msgspec.msgpack.Decoder(named)
        rows = msgspec.structs.astuple
        marker = b'"features":' if options.encoding is Encoding.JSON else b"\xa8features"
        return decoder.decode, lambda requests: np.array([rows(request.features) for request in requests], np.float32), marker
    if options.encoding is Encoding.JSON:
        vectored = msgspec.json.Decoder(Vectored).decode
        return vectored, lambda requests: np.array([request.vector for request in requests], np.float32), b'"vector":'
    packed = msgspec.msgpack.Decoder(Packed).decode
    return packed, lambda requests: np.frombuffer(b"".join([r.vector for r in requests]), "<f4").reshape(-1, width), b"\xa6vector"


def _headers(topic: Topic, options: Options) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", topic.event_type.encode()),
        ("ce_source", b"/millrace"),
        ("content-type", options.encoding.form.value.encode()),
    ]


class Loop:
    """The loop's clients and its model."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self.options = options
        slot = Slot(ROLE, 0)
        self.consumer = group_consumer(settings, slot, **{"enable.partition.eof": False})
        self.consumer.subscribe([full_name(settings, REQUESTS)])
        self.producer = transactional_producer(settings, slot)
        self.producer.init_transactions()
        self.run_model = open_session(network(options), SessionSettings()).run
        self.assignments, self.predictions = full_name(settings, ASSIGNMENTS), full_name(settings, PREDICTIONS)
        self.assignment_headers, self.prediction_headers = _headers(ASSIGNMENTS, options), _headers(PREDICTIONS, options)
        self.decode, self.matrix, self.marker = _reader(options)
        self.encode = (msgspec.json.Encoder() if options.encoding is Encoding.JSON else msgspec.msgpack.Encoder()).encode
        self.end = -1 if options.encoding is Encoding.JSON else None

    def gather(self) -> list[Any]:
        """Block for the first message, then take what is there, and what comes within the gather time."""
        messages = self.consumer.consume(1, 0.2)
        if not messages:
            return []
        limit = self.options.poll_records
        messages += self.consumer.consume(limit - 1, 0)
        if len(messages) < limit:
            time.sleep(self.options.gather_seconds)
            messages += self.consumer.consume(limit - len(messages), 0)
        return messages

    def turn(self) -> None:
        """One transaction."""
        messages = self.gather()
        if not messages:
            return
        decode = self.decode
        values = [message.value() for message in messages]
        requests = [decode(value) for value in values]
        (scores,) = self.run_model(["score"], {"features": self.matrix(requests)})
        self.producer.begin_transaction()
        self.produce(messages, values, requests, scores[:, 0].tolist() if scores.shape[1] == 1 else scores.tolist())
        consumer = self.consumer
        self.producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata())
        self.producer.commit_transaction()

    def produce(self, messages: list[Any], values: list[bytes], requests: list[Any], scores: list[Any]) -> None:
        """One assignment and one prediction a request."""
        produce, encode, now, count = self.producer.produce, self.encode, datetime.now(UTC), len(messages)
        named, marker, skip, end = self.options.shape is Shape.NAME, self.marker, len(self.marker), self.end
        model = self.options.network.value
        requested = from_ms(messages[0].timestamp()[1])
        for value, request, score in zip(values, requests, scores, strict=True):
            name, unit = request.id, request.unit_id
            derived = f"{name:0>32}"
            assignment = Assignment(
                id=derived, request_id=name, unit_id=unit, time=now, experiment=EXPERIMENT, plan_version=1, variant="control",
                bucket=BUCKET, propensity=0.5,
            )  # fmt: skip
            own = Raw(value[value.index(marker) + skip : end])
            prediction = Prediction(
                id=derived, request_id=name, unit_id=unit, time=now, model=model, version=1, digest=DIGEST, status=Status.OK,
                outputs={"score": score}, requested=requested, latency_seconds=0.123, batch_records=count,
                features=own if named else NOTHING, vector=NOTHING if named else own,
            )  # fmt: skip
            produce(self.assignments, encode(assignment), unit, headers=[*self.assignment_headers, ("ce_id", derived)])
            produce(self.predictions, encode(prediction), unit, headers=[*self.prediction_headers, ("ce_id", derived)])


def main() -> None:
    """Run until killed: it keeps nothing that a kill could harm."""
    loop = Loop(load(), Options.from_text(sys.argv[1]))
    while True:
        loop.turn()


if __name__ == "__main__":
    main()
