"""Does a key fall where ClickHouse's ``xxHash64`` puts it? The values were computed by ClickHouse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millrace.schemas.model import Route, Share
from millrace.streams.assign import Experiment
from millrace.streams.buckets import bucket
from millrace.streams.routes import Serving
from tests.models import NOW, least, plan, request

BUCKETS = json.loads((Path(__file__).parent / "buckets.json").read_text())
BY_KEY = {sample["key"]: sample["bucket"] for sample in BUCKETS}


@pytest.mark.parametrize("sample", BUCKETS, ids=lambda sample: sample["key"][:30])
def test_a_bucket_is_the_upper_53_bits_of_the_hash(sample: dict[str, object]) -> None:
    found = bucket(str(sample["key"]).encode())
    assert found == sample["bucket"] == (int(str(sample["hash"])) >> 11) / 2**53


@pytest.mark.parametrize("unit", ["unit-1", "unit-2", "u-000042", "Zoë"])
def test_assignment_and_route_use_the_documented_keys(unit: str) -> None:
    (assignment,) = Experiment(plan(salt="checkout-1")).assign([request(least(unit_id=unit)).event], [unit.encode()], NOW)
    assert assignment is not None
    assert assignment.bucket == BY_KEY[f"checkout-1:variant:{unit}"]


def test_sample_hashes_with_a_salt_of_its_own() -> None:
    units = ["unit-1", "unit-2", "u-000042", "Zoë"]
    experiment = Experiment(plan(salt="checkout-1", sample=0.5))
    made = experiment.assign([request(least(unit_id=unit)).event for unit in units], [unit.encode() for unit in units], NOW)
    assert [one is not None for one in made] == [BY_KEY[f"checkout-1:sample:{unit}"] < 0.5 for unit in units]


def test_a_route_splits_by_its_own_key() -> None:
    serving = Serving(Route(name="fraud", version=1, time=NOW, shares=(Share(version=1), Share(version=2))))
    for i in range(4):
        assert serving.choose(f"unit-{i}".encode()) == ("fraud", 1 if BY_KEY[f"route:fraud:unit-{i}"] < 0.5 else 2)
