"""Predictions as facts: what a model answered, or why there is no answer, with the features that were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum

import xxhash
from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas import wire
from millrace.schemas.errors import SettingsError
from millrace.schemas.event import NOTHING, from_ms, to_ms
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.record import Emit, Record
from millrace.schemas.request import Request
from millrace.schemas.topics import PREDICTIONS
from millrace.streams.buckets import bucket
from millrace.streams.features import Rows
from millrace.streams.microbatch import Outputs
from millrace.streams.routes import Target


class Keep(Enum):
    """How much of its features a prediction records."""

    ALL = "all"
    HASH = "hash"
    SAMPLE = "sample"


class Recording(Struct, frozen=True):
    """What a model's predictions record of their features: all, a hash of the float32 row, or all for a share of requests."""

    keep: Keep = Keep.ALL
    ratio: float = 1.0

    @staticmethod
    def parse(text: str) -> Recording:
        """``all``, ``hash`` or a ratio such as ``0.1``; raises SettingsError for anything else.

        >>> Recording.parse("0.25").ratio
        0.25
        """
        if text in (Keep.ALL.value, Keep.HASH.value):
            return Recording(Keep(text))
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise SettingsError(f"features_recorded is {text!r}: write all, hash, or a ratio between 0 and 1")
        return Recording(Keep.SAMPLE, ratio)

    def apply(self, emits: list[Emit], rows: Rows, start: int) -> list[Emit]:
        """Predictions that carry their request's own bytes, as they are to be recorded; they answer the rows from ``start`` on."""
        if self.keep is Keep.ALL and not rows.completed:
            return emits
        return [self._one(emit, rows, at) for at, emit in enumerate(emits, start)]

    def _one(self, emit: Emit, rows: Rows, at: int) -> Emit:
        prediction: Prediction = emit.event
        if not self._whole(prediction.request_id):
            digest = xxhash.xxh3_128_hexdigest(rows.matrix[at].tobytes())
            emit.event = replace(prediction, features=NOTHING, vector=NOTHING, features_digest=digest)
        elif at in rows.completed:
            emit.event = replace(prediction, features=rows.completed[at], vector=NOTHING)
        return emit

    def _whole(self, request_id: str) -> bool:
        return self.keep is Keep.ALL or (self.keep is Keep.SAMPLE and bucket(f"features:{request_id}".encode()) < self.ratio)


Moment = tuple[datetime, float]
"""An append time, and the seconds from it to ``now``."""


class Answers:
    """Makes the predictions of one poll: all carry its ``now``."""

    def __init__(self, now: datetime, digests: Mapping[Target, str]) -> None:
        self.now = now
        self._now_ms = to_ms(now)
        self._digests = digests
        self._moments: dict[int, Moment] = {}

    def answered(self, records: Sequence[Record], target: Target, outputs: Sequence[Outputs], *, shadow: bool) -> list[Emit]:
        """The predictions of one run, in the order of its rows, each with its request's own features.

        No more than fifteen fields are named in the call: with one more, CPython builds a dictionary for each prediction first.
        """
        (model, version), digest, now, count = target, self._digests.get(target, ""), self.now, len(records)
        ids = wire.derived_ids([record.event.id for record in records], *id_suffix(target, shadow=shadow))
        moments, topic, ok = self._moments, PREDICTIONS.name, Status.OK
        emits = []
        for record, prediction_id, values in zip(records, ids, outputs, strict=True):
            request: Request = record.event
            appended, latency_seconds = moments.get(record.appended_ms) or self._moment(record.appended_ms)
            prediction = Prediction(
                id=prediction_id,
                request_id=request.id,
                unit_id=request.unit_id,
                time=now,
                model=model,
                version=version,
                digest=digest,
                status=ok,
                outputs=values,
                features=request.features,
                vector=request.vector,
                shadow=shadow,
                requested=request.time or appended,
                latency_seconds=latency_seconds,
                batch_records=count,
            )
            emits.append(Emit(topic, request.unit_id, prediction, record))
        return emits

    def failed(self, record: Record, target: Target, status: Status, error: str, *, shadow: bool = False) -> Emit:
        """The prediction of a request that has no outputs. A version of 0 stands for none."""
        request: Request = record.event
        appended, latency_seconds = self._moment(record.appended_ms)
        prediction = Prediction(
            id=wire.derived_id(request.id, *id_suffix(target, shadow=shadow)),
            request_id=request.id,
            unit_id=request.unit_id,
            time=self.now,
            model=target[0],
            version=target[1],
            digest=self._digests.get(target, ""),
            status=status,
            shadow=shadow,
            requested=request.time or appended,
            latency_seconds=latency_seconds,
            error=error,
        )
        return Emit(PREDICTIONS.name, request.unit_id, prediction, record)

    def _moment(self, appended_ms: int) -> Moment:
        """Remembered: many records of a poll have one append time."""
        moment = from_ms(appended_ms), max(0, self._now_ms - appended_ms) / 1_000
        self._moments[appended_ms] = moment
        return moment


def id_suffix(target: Target, *, shadow: bool) -> tuple[str, ...]:
    """What a prediction's id is derived from beside the request's id: the model, and a shadow's version."""
    return (target[0], "shadow", str(target[1])) if shadow else (target[0],)


def unexposed(fact: Emit) -> Emit:
    """An assignment whose variant the unit did not meet after all."""
    return Emit(fact.topic, fact.key, replace(fact.event, exposed=False), fact.cause, fact.partition_by)
