"""decode(encode(x)) = x, for every event, in both formats; and whatever the bytes, nothing but an event or a DecodeError comes out."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.schemas import wire
from millrace.schemas.errors import DecodeError
from millrace.schemas.event import NOTHING
from millrace.schemas.outcome import Outcome
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.record import Format
from millrace.schemas.samples import SAMPLES
from millrace.schemas.topics import OUTCOMES, PREDICTIONS, REQUESTS, TOPICS, Topic

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=30)
times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
forms = st.sampled_from(list(Format))
outcomes = st.builds(
    Outcome, unit_id=text, metric=text, value=finite, id=st.none() | text, request_id=st.none() | text, time=st.none() | times
)
predictions = st.builds(
    Prediction,
    id=text,
    request_id=text,
    unit_id=text,
    time=times,
    model=text,
    version=st.integers(0, 2**31),
    digest=text,
    status=st.sampled_from(list(Status)),
    outputs=st.dictionaries(text, finite | st.lists(finite, max_size=4), max_size=4),
    requested=st.none() | times,
    latency_seconds=finite,
    error=text,
)


@given(event=outcomes, form=forms)
def test_an_outcome_survives_the_wire(event: Outcome, form: Format) -> None:
    _survives(OUTCOMES, event, form)


@given(event=predictions, form=forms)
def test_a_prediction_survives_the_wire(event: Prediction, form: Format) -> None:
    _survives(PREDICTIONS, event, form)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
@pytest.mark.parametrize("form", Format)
def test_every_sample_survives_the_wire(topic: Topic, form: Format) -> None:
    codec = wire.codec(topic)
    value = codec.encode(_without_raw(SAMPLES[topic.name]), form)
    again = codec.decode(value, [(wire.CONTENT_TYPE, form.value.encode())])
    assert codec.encode(again, form) == value


@given(features=st.dictionaries(text, finite, max_size=8), unit=text)
def test_the_features_of_a_request_are_carried_byte_for_byte(features: dict[str, float], unit: str) -> None:
    raw = msgspec.json.encode(features)
    request = wire.codec(REQUESTS).decode(b'{"id":"r","unit_id":%s,"features": %s }' % (msgspec.json.encode(unit), raw))
    assert bytes(request.features).strip() == raw
    assert request.unit_id == unit


@settings(max_examples=300)
@given(value=st.binary(max_size=60), form=forms)
def test_any_bytes_give_an_event_or_a_reason(value: bytes, form: Format) -> None:
    with contextlib.suppress(DecodeError):
        wire.codec(REQUESTS).decode(value, [(wire.CONTENT_TYPE, form.value.encode())])


def _survives(topic: Topic, event: Any, form: Format) -> None:
    codec = wire.codec(topic)
    headers = codec.headers("id", form)
    again = codec.decode(codec.encode(event, form), headers)
    assert msgspec.structs.asdict(again) | {"features": 0, "vector": 0} == msgspec.structs.asdict(event) | {"features": 0, "vector": 0}


def _without_raw(event: Any) -> Any:
    """A sample whose raw parts, which hold JSON, are left out: they are another test's matter."""
    raw = {name: NOTHING for name in event.__struct_fields__ if isinstance(getattr(event, name), msgspec.Raw)}
    return msgspec.structs.replace(event, **raw)
