"""Does the door let in what is at a limit, refuse what is one past it, and say where?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from millrace.schemas.event import from_ms
from millrace.schemas.limits import Limits
from millrace.schemas.record import Format, Record
from millrace.streams.door import Door
from tests.models import NOW_MS, least, request

LIMITS = Limits(record_bytes=5_000, features=10, string_characters=20, nesting=3, past_seconds=100.0, future_seconds=10.0)
APPENDED_MS = NOW_MS


def refusal(value: dict[str, Any] | bytes, form: Format = Format.JSON, limits: Limits = LIMITS) -> str | None:
    """The reason for one request that stands among good ones, which must all be let in."""
    good = [request(least(i), appended_ms=APPENDED_MS) for i in range(2)]
    records: list[Record] = [good[0], request(value, form, APPENDED_MS), good[1]]
    reasons = Door(limits).refusals(records)
    assert reasons.keys() <= {1}
    return reasons.get(1)


def nested(depth: int) -> Any:
    return {"x": nested(depth - 1)} if depth else 1


def padded(size: int) -> bytes:
    start = msgspec.json.encode(least())
    return start + b" " * (size - len(start))


@pytest.mark.parametrize(
    ("at", "past", "where"),
    [
        (padded(5_000), padded(5_001), "$: the record has 5001 bytes"),
        (least(id="i" * 20), least(id="i" * 21), "$.id"),
        (least(unit_id="u" * 20), least(unit_id="u" * 21), "$.unit_id"),
        (least(model="m" * 20), least(model="m" * 21), "$.model"),
        (least(entities={"k" * 20: "e" * 20}), least(entities={"k" * 20: "e" * 21}), "$.entities"),
        (least(entities={"k" * 20: "e"}), least(entities={"k" * 21: "e"}), "$.entities"),
        (least(context={"c": "x" * 20}), least(context={"c": "x" * 21}), "$.context['c']"),
        (least(context={"c" * 20: 1}), least(context={"c" * 21: 1}), "$.context"),
        (least(context={"c": [{"d" * 20: 1}]}), least(context={"c": [{"d" * 21: 1}]}), "$.context['c'][0]"),
        (least(context=nested(3)), least(context=nested(4)), "$.context['x']['x']['x']: nested deeper"),
        (least(context={"c": [[]]}), least(context={"c": [[[]]]}), "$.context['c'][0][0]: nested deeper"),
        (least(time=from_ms(APPENDED_MS - 100_000)), least(time=from_ms(APPENDED_MS - 100_001)), "$.time"),
        (least(time=from_ms(APPENDED_MS + 10_000)), least(time=from_ms(APPENDED_MS + 10_001)), "$.time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_at_the_limit_and_one_past_it(at: Any, past: Any, where: str) -> None:
    assert refusal(at) is None
    assert (refusal(past) or "").startswith(where)


def test_the_limit_counts_characters_not_bytes() -> None:
    assert refusal(least(id="é" * 20, context={"c": "\U0001f600" * 20})) is None
    assert refusal(least(id="é" * 21)) is not None


def test_event_time_is_judged_by_each_records_own_append_time() -> None:
    time = from_ms(APPENDED_MS)
    late = request(least(1, time=time), appended_ms=APPENDED_MS + 100_001)
    good = [request(least(2, time=time), appended_ms=APPENDED_MS + shift) for shift in (-10_000, 0, 100_000)]
    early = request(least(3, time=time), appended_ms=APPENDED_MS - 10_001)
    assert set(Door(LIMITS).refusals([late, *good, early])) == {0, 4}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], {"deep": float("nan")}])
def test_a_context_holds_finite_numbers_only(value: object) -> None:
    assert "is not a finite number" in (refusal(least(context={"c": value}), Format.MSGPACK) or "")


@pytest.mark.parametrize("value", [b"raw", msgspec.msgpack.Ext(5, b"x"), from_ms(0)])
def test_a_context_holds_json_types_only(value: object) -> None:
    assert "$.context['c']" in (refusal(least(context={"c": value}), Format.MSGPACK) or "")


def test_a_context_may_hold_every_json_type() -> None:
    assert refusal(least(context={"a": None, "b": True, "c": 1, "d": 1.5, "e": "x", "f": [1, {}]})) is None


@pytest.mark.parametrize("field", ["id", "unit_id"])
def test_what_identifies_must_not_be_empty(field: str) -> None:
    assert (refusal(least() | {field: ""}) or "").startswith(f"$.{field}")


def test_features_come_by_name_or_in_order_but_not_both() -> None:
    assert (refusal(least(vector=[1, 2])) or "").startswith("$.vector")
    assert refusal({**least(vector=[1, 2]), "features": None}) is None
    assert refusal({**least(), "vector": None}, Format.MSGPACK) is None


def test_an_outage_or_a_replay_does_not_turn_good_data_bad() -> None:
    old = request(least(time=from_ms(0) + timedelta(days=3_650)), appended_ms=int(timedelta(days=3_650).total_seconds() * 1_000))
    assert Door(LIMITS).refusals([old]) == {}


def test_the_default_limits_are_those_of_the_documentation() -> None:
    limits = Limits()
    assert (limits.past_seconds, limits.future_seconds) == (7 * 86_400, 300)
