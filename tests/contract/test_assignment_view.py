"""Does SQL derive every assignment again as the worker made it, to the last bit?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.clickhouse.store import Store
from millrace.infra.settings import ClickHouseSettings
from millrace.schemas.assignment import Assignment
from millrace.schemas.event import Event
from millrace.schemas.experiment import Allocation, Layer, Plan, Policy, RampStep, Unit
from millrace.schemas.metric import Metric, Role
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.record import Record
from millrace.schemas.request import Request
from millrace.schemas.tables import TABLES
from millrace.streams.assign import Derivation, Experiment
from millrace.streams.buckets import bucket
from millrace.streams.revise import revise
from tests.models import NOW, plan
from tests.stack import ClickHouse

DATABASE = "assigned"
REQUESTS = [Request(id=f"r-{i}", unit_id=f"Zoë-{i % 150}") for i in range(400)]
UNITS = [request.unit_id.encode() for request in REQUESTS]
REWARD = Metric(name="reward", outcome="paid", role=Role.PRIMARY)
NARROW: dict[str, Any] = {"layer": Layer(name="page", low=0.2, high=0.9), "holdout": 0.1, "sample": 0.8}
RAMP = (RampStep(at=NOW - timedelta(hours=2), share=0.25), RampStep(at=NOW, share=0.5), RampStep(at=NOW + timedelta(hours=1), share=1.0))
BANDIT = plan(
    "bandit",
    weights=(1.0, 1.0, 1.0),
    unit=Unit.REQUEST,
    metrics=(REWARD,),
    allocation=Allocation(policy=Policy.THOMPSON, metric="reward"),
    overrides={"Zoë-2": "v2"},
)
POLICY = PolicyVersion(experiment="bandit", version=7, plan_version=1, time=NOW, offsets={}, weights={"v2": 0.7, "v0": 0.1, "v1": 0.2})
UNEVEN = plan("uneven", weights=(0.0, 0.1, 0.2, 0.0, 0.7, 0.0), overrides={"Zoë-1": "v3", "Zoë-7": "v1"})
MADE: tuple[tuple[Plan, PolicyVersion | None], ...] = (
    (UNEVEN, None),
    (revise(UNEVEN, plan("uneven", weights=(1.0, 0.3, 0.1, 0.0, 0.6, 0.2), overrides=UNEVEN.overrides)), None),
    (plan("by-request", weights=(1.0, 2.0), unit=Unit.REQUEST, sample=0.5), None),
    (plan("narrow", **NARROW, ramp=RAMP, overrides={"Zoë-3": "v1"}), None),
    (BANDIT, None),
    (replace(BANDIT, version=2), POLICY),
)


def made(given: Plan, policy: PolicyVersion | None) -> list[Assignment]:
    """Under ids of their own: two versions of a plan give the same request's assignment the same id."""
    assigned = Experiment(given, policy).assign(REQUESTS, UNITS, NOW)
    return [replace(one, id=f"{given.name}-{given.version}-{one.request_id}") for one in assigned if one is not None]


def tampered(one: Assignment) -> list[Assignment]:
    """What no plan gives: another variant, bucket or subject, a name that the plan does not name, chances that are none."""
    changes: tuple[dict[str, Any], ...] = (
        {"variant": "v1" if one.variant == "v0" else "v0"},
        {"bucket": one.bucket / 2},
        {"unit_id": "u", "request_id": "x"},
        {"override": True},
        {"policy_version": 9, "propensities": {}},
        {"policy_version": 9, "propensities": {"v0": -1.0, "v1": 2.0}},
    )
    return [replace(one, id=f"{one.id}-{n}", **fields) for n, fields in enumerate(changes)]


ASSIGNMENTS = [
    *(one for given, policy in MADE for one in made(given, policy)),
    *(bad for given, policy in MADE for bad in tampered(next(one for one in made(given, policy) if not one.override))),
]
PLANS = {(given.name, given.version): given for given, _ in MADE}


def insert(client: Client, topic: str, events: Sequence[Event], partition: int = 0) -> None:
    records = [Record(topic, partition, offset, 1_795_000_000_000, None, msgspec.json.encode(event)) for offset, event in enumerate(events)]
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    Store(client, 20).insert(topic, Builder(TABLES[topic]).build(records, Place("topic-id", partition, lease)), f"{topic}-{partition}")


@pytest.fixture(scope="module")
def client(clickhouse: ClickHouse) -> Client:
    client = Client(ClickHouseSettings(address=clickhouse.url, database=DATABASE))
    migrate(client)
    insert(client, "experiments", list(PLANS.values()))
    insert(client, "assignments", [*ASSIGNMENTS, replace(ASSIGNMENTS[0], id="planless", experiment="unheard-of")])
    return client


def column(client: Client, name: str) -> dict[str, Any]:
    return dict(client.rows(f"SELECT id, {name} FROM {DATABASE}.v_assignments"))


def test_sql_and_python_derive_alike(client: Client) -> None:
    derivations = {key: Derivation(given) for key, given in PLANS.items()}
    told = {one.id: derivations[one.experiment, one.plan_version].follows(one) for one in ASSIGNMENTS}
    found = column(client, "agrees")
    assert found.pop("planless") is None
    assert found == told
    assert sum(told.values()) == len(ASSIGNMENTS) - 6 * len(MADE)


def test_what_was_given_is_what_is_derived(client: Client) -> None:
    buckets, variants = column(client, "derived_bucket"), column(client, "derived_variant")
    good = [one for given, policy in MADE for one in made(given, policy)]
    assert [(buckets[one.id], variants[one.id]) for one in good] == [(one.bucket, one.variant) for one in good]
    kinds = {(one.experiment, one.plan_version): {other.variant for other in good if other.experiment == one.experiment} for one in good}
    assert min(map(len, kinds.values())) >= 2


def test_each_gate_that_hashes_is_computed_again(client: Client) -> None:
    rows = client.rows(
        f"SELECT unit_id, request_id, layer_bucket, holdout_bucket, sample_bucket FROM {DATABASE}.v_assignments WHERE experiment = 'narrow'"
    )
    assert rows == [
        (
            unit,
            request,
            bucket(f"layer:page:{unit}".encode()),
            bucket(f"holdout:{unit}".encode()),
            bucket(f"narrow-salt:sample:{unit}".encode()),
        )
        for unit, request, *_ in rows
    ]
    assert client.rows(f"SELECT DISTINCT layer_bucket FROM {DATABASE}.v_assignments WHERE experiment = 'by-request'") == [(None,)]


def test_whoever_was_let_in_is_eligible_and_nobody_else(client: Client) -> None:
    """Assignments that an open plan of the same salt made, told as the narrow one's: SQL says who of them the narrow plan lets in."""
    everyone = made(plan("narrow"), None)
    insert(client, "assignments", [replace(one, id=f"all-{one.id}") for one in everyone], partition=1)
    found = column(client, "eligible")
    let_in = {one.id for one in made(PLANS["narrow", 1], None) if not one.override}
    assert {one.id for one in everyone if found[f"all-{one.id}"]} == let_in
    assert 0 < len(let_in) < len(everyone)
    assert all(found[one.id] for given, policy in MADE for one in made(given, policy))


@pytest.mark.parametrize(("hours", "share"), [(-3, 0.0), (-1, 0.25), (0, 0.5), (2, 1.0)])
def test_the_ramp_is_that_of_the_moment(client: Client, hours: int, share: float) -> None:
    ramped = plan("ramped", ramp=RAMP)
    time = NOW + timedelta(hours=hours)
    shown = [replace(one, id=f"{hours}-{one.id}", experiment="ramped", time=time) for one in made(plan("ramped"), None)]
    insert(client, "experiments", [ramped], partition=10 + hours)
    insert(client, "assignments", shown, partition=10 + hours)
    rows = client.rows(
        f"SELECT DISTINCT sample_bucket, eligible FROM {DATABASE}.v_assignments WHERE experiment = 'ramped' AND startsWith(id, '{hours}-')"
    )
    assert len(rows) == 150
    assert all(eligible == (place < share) for place, eligible in rows)
