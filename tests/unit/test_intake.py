"""Does intake let in what is at a limit, refuse what is one past it, and call each outcome by what it is counted by?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from millrace.schemas.event import from_ms
from millrace.schemas.limits import Limits
from millrace.schemas.outcome import UnitOutcome
from millrace.schemas.record import Emit, Format, Record, Refused
from millrace.schemas.topics import OUTCOMES, OUTCOMES_BY_UNIT
from millrace.schemas.wire import codec
from millrace.streams.intake import Intake
from millrace.streams.step import Batch
from tests.models import NOW, NOW_MS

LIMITS = Limits(record_bytes=300, string_characters=20, past_seconds=100.0, future_seconds=10.0)
CODEC = codec(OUTCOMES)
Fact = Emit | Refused


def paid(**fields: Any) -> dict[str, Any]:
    return {"unit_id": "u", "metric": "paid", "value": 1.5} | fields


def record(value: dict[str, Any] | bytes, form: Format = Format.JSON, offset: int = 7, appended_ms: int = NOW_MS) -> Record:
    raw = value if isinstance(value, bytes) else (msgspec.msgpack if form is Format.MSGPACK else msgspec.json).encode(value)
    made = Record("outcomes", 3, offset, appended_ms, b"any", raw, [("content-type", form.value.encode())])
    CODEC.read(made)
    return made


def facts(*records: Record) -> list[Fact]:
    return Intake(LIMITS).process(Batch(-1, records, NOW))


def moved(value: dict[str, Any], **more: Any) -> UnitOutcome:
    (fact,) = facts(record(value, **more))
    assert isinstance(fact, Emit)
    event: UnitOutcome = fact.event
    return event


def refusal(value: dict[str, Any] | bytes, form: Format = Format.JSON) -> str | None:
    """The reason for one outcome that stands among good ones, which must be let in."""
    first, fact, last = facts(record(paid()), record(value, form), record(paid()))
    assert isinstance(first, Emit)
    assert isinstance(last, Emit)
    return fact.reason if isinstance(fact, Refused) else None


def padded(size: int) -> bytes:
    start = msgspec.json.encode(paid())
    return start + b" " * (size - len(start))


@pytest.mark.parametrize(
    ("at", "past", "where"),
    [
        (padded(300), padded(301), "$: the record has 301 bytes, the limit is 300"),
        (paid(unit_id="u" * 20), paid(unit_id="u" * 21), "$.unit_id: a string of 21 characters"),
        (paid(metric="é" * 20), paid(metric="é" * 21), "$.metric: a string of 21 characters"),
        (paid(id="i" * 20), paid(id="i" * 21), "$.id: a string of 21 characters"),
        (paid(request_id="r" * 20), paid(request_id="r" * 21), "$.request_id: a string of 21 characters"),
        (paid(unit_id="u"), paid(unit_id=""), "$.unit_id: it is empty"),
        (paid(metric="m"), paid(metric=""), "$.metric: it is empty"),
        (paid(id=None), paid(id=""), "$.id: it is empty; leave it out"),
        (paid(request_id=None), paid(request_id=""), "$.request_id: it is empty; leave it out"),
        (paid(value=1e15), paid(value=1.000001e15), "$.value: 1000001000000000.0 is larger than 1e+15 in size"),
        (paid(value=-1e15), paid(value=-1e16), "$.value: -1e+16 is larger"),
        (paid(time=from_ms(NOW_MS - 100_000)), paid(time=from_ms(NOW_MS - 100_001)), "$.time"),
        (paid(time=from_ms(NOW_MS + 10_000)), paid(time=from_ms(NOW_MS + 10_001)), "$.time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_at_the_limit_and_one_past_it(at: Any, past: Any, where: str) -> None:
    assert refusal(at) is None
    assert (refusal(past) or "").startswith(where)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_is_finite(value: float) -> None:
    assert refusal(paid(value=value), Format.MSGPACK) == f"$.value: {value} is not a finite number"


def test_event_time_is_judged_by_each_records_own_append_time() -> None:
    """An outage or a replay does not turn good data bad."""
    made = [record(paid(time=NOW), appended_ms=NOW_MS + shift) for shift in (-10_001, -10_000, 0, 100_000, 100_001)]
    assert [isinstance(fact, Emit) for fact in facts(*made)] == [False, True, True, True, False]


def test_nothing_of_an_outcome_is_lost_or_changed() -> None:
    zone = timezone(timedelta(hours=2))
    said = paid(id="payment-7", request_id="r", time=datetime(2023, 11, 15, 0, 13, 20, 123_456, zone))
    found = moved(said)
    assert (found.unit_id, found.metric, found.value, found.request_id, found.outcome_id) == ("u", "paid", 1.5, "r", "payment-7")
    assert found.time == datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC)


def test_without_a_time_it_happened_when_it_was_appended() -> None:
    assert moved(paid(), appended_ms=NOW_MS + 1).time == from_ms(NOW_MS + 1)


def test_an_outcome_with_an_id_has_one_id_however_often_it_is_published() -> None:
    same = {moved(paid(id="a"), offset=offset).id for offset in range(3)} | {moved(paid(id="a", value=2.0)).id}
    assert len(same) == 1
    others = {moved(paid(**fields)).id for fields in ({"id": "b"}, {"id": "a", "unit_id": "v"}, {"id": "a", "metric": "label"})}
    assert len(others | same) == 4


def test_an_outcome_without_an_id_has_that_of_its_place() -> None:
    assert len({moved(paid(), offset=offset).id for offset in range(3)}) == 3
    assert moved(paid(), offset=5).id == moved(paid(value=2.0), offset=5).id


def test_it_goes_to_its_unit_with_its_cause() -> None:
    """The cause tells format and trace."""
    cause = record(paid(unit_id="customer"), Format.MSGPACK)
    (fact,) = facts(cause)
    assert isinstance(fact, Emit)
    assert (fact.topic, fact.key, fact.partition_by) == (OUTCOMES_BY_UNIT.name, "customer", None)
    assert fact.cause is cause
