"""How versions are ordered, and what ``negate`` turns around."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from millrace.schemas.experiment import Condition, Test
from millrace.streams.release import release
from millrace.streams.segments import Segments
from millrace.streams.target import predicate

ORDERED = ["0.9", "1.0-alpha", "1.0-alpha.1", "1.0-alpha.beta", "1.0-beta.2", "1.0-beta.11", "1.0-rc", "1.0", "1.0.1", "1.9", "1.10", "2"]


def test_versions_are_ordered_as_semantic_versions_are() -> None:
    for low, high in pairwise(ORDERED):
        before, after = release(low), release(high)
        assert before is not None
        assert after is not None
        assert before < after


@pytest.mark.parametrize(
    "value", ["", "latest", "1.", "1..2", "1.x", "-1", "1.2 ", "٣.١", 1.2, 3, None, ["1"], "1" * 5_000, "1." * 50 + "1"]
)
def test_what_is_no_version_is_none(value: object) -> None:
    assert release(value) is None


@pytest.mark.parametrize(
    ("ends", "version", "holds"),
    [
        (["1.9", "1.11"], "1.10", True),
        (["1.9", "1.10"], "1.10", False),
        (["1.10", None], "1.9", False),
        (["1.10", None], "v1.10.0+build", True),
        (["2.0", None], "2.0-beta", False),
        ([None, "2.0"], "2.0-beta", True),
        ([None, None], "not a version", False),
        ([None, "2.0"], None, False),
        ([None, "2.0"], 1.5, False),
    ],
)
@pytest.mark.parametrize("negate", [False, True])
def test_a_range_of_versions(ends: list[Any], version: object, holds: bool, negate: bool) -> None:
    condition = Condition(field="app.version", test=Test.VERSION, value=ends, negate=negate)
    assert predicate(condition)({"app": {"version": version}}) is (holds is not negate)


def test_an_absent_field_meets_a_negated_condition() -> None:
    assert predicate(Condition(field="x", test=Test.EQUALS, value=1, negate=True))({})
    assert predicate(Condition(field="x", test=Test.IN, value=[1], negate=True))({"x": 2})
    assert not predicate(Condition(field="x", test=Test.RANGE, value=[0, 3], negate=True))({"x": 2})


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("DE", "DE"),
        ("FR", "other"),
        ("", "none"),
        (None, "none"),
        (3, "3"),
        (3.0, "3"),
        (True, "true"),
        ([1], "other"),
        ({}, "other"),
        (10**400, "other"),
        (float(10**17), "other"),
    ],
)
def test_a_segment_is_told_apart_or_other_or_none(value: object, segment: str) -> None:
    segments = Segments({"user.country": ("DE", "3", "true", "[1]")})
    assert segments.of({"user": {"country": value}}) == {"user.country": segment}
    assert segments.of({}) == {"user.country": "none"}
