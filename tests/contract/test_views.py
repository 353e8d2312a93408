"""Do the views tell analysts what happened?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import xxhash

from millrace.infra.clickhouse.blocks import Builder, Place
from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.clickhouse.result_view import experiment_results
from millrace.infra.clickhouse.store import Store
from millrace.infra.clickhouse.view import PLACE
from millrace.infra.settings import ClickHouseSettings
from millrace.schemas.record import Record
from millrace.schemas.samples import SAMPLES
from millrace.schemas.tables import TABLES
from tests.stack import ClickHouse

DATABASE = "views"
TIME = "2026-11-21T10:00:00Z"
APPENDED_MS = 1_795_000_000_000
SALT = "checkout-2026"


def bucket(unit: str) -> float:
    return (xxhash.xxh64_intdigest(f"{SALT}:variant:{unit}".encode()) >> 11) / 2**53


def iso(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat()


def insert(client: Client, topic: str, values: Sequence[dict[str, Any] | bytes]) -> None:
    """Put these events into their table, as partition 0 from offset 0 on."""
    encoded = [value if isinstance(value, bytes) else msgspec.json.encode(value) for value in values]
    records = [Record(topic, 0, offset, APPENDED_MS + offset, None, value) for offset, value in enumerate(encoded)]
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    Store(client, 20).insert(topic, Builder(TABLES[topic]).build(records, Place("topic-id", 0, lease)), f"{topic}-views")


def request(name: str, unit: str) -> dict[str, Any]:
    return {"id": name, "unit_id": unit, "model": "m", "features": {"a": 1}, "time": TIME}


def prediction(name: str, request: str, **more: Any) -> dict[str, Any]:
    fixed = {"unit_id": "u", "time": TIME, "model": "m", "version": 1, "digest": "d", "status": "ok"}
    return {"id": name, "request_id": request, **fixed, "outputs": {"p": 0.25, "all": [0.25, 0.75]}, "latency_seconds": 0.1, **more}


def assignment(name: str, request: str, unit: str, **more: Any) -> dict[str, Any]:
    fixed = {"time": TIME, "experiment": "checkout", "plan_version": 1, "variant": "b", "propensity": 0.5}
    return {"id": name, "request_id": request, "unit_id": unit, **fixed, "bucket": bucket(unit), **more}


def outcome(metric: str, value: float, **more: Any) -> dict[str, Any]:
    return {"unit_id": "u", "metric": metric, "value": value, "time": TIME, **more}


@pytest.fixture(scope="module")
def client(clickhouse: ClickHouse) -> Client:
    client = Client(ClickHouseSettings(address=clickhouse.url, database=DATABASE))
    migrate(client)
    insert(client, "requests", [request("r1", "u1"), request("r2", "u2"), request("r1", "u1"), b"garbage", request("r3", "u3")])
    insert(
        client,
        "predictions",
        [prediction("p1", "r1"), prediction("p1", "r1", version=2), prediction("p2", "r2"), prediction("s1", "r1", shadow=True, version=9)],
    )
    insert(
        client,
        "assignments",
        [
            assignment("a1", "r1", "u1"),
            assignment("a1", "r1", "u1", variant="c"),
            assignment("a2", "r2", "u2", bucket=0.123),
            assignment("a3", "r2", "u2", experiment="unplanned", exposed=False),
        ],
    )
    insert(
        client,
        "outcomes",
        [outcome("paid", 1.0, request_id="r1"), outcome("paid", 2.0, request_id="r1"), outcome("paid", 9.0), outcome("paid", 9.0)],
    )
    plan = {"name": "checkout", "version": 1, "state": "running", "time": TIME, "salt": SALT, "variants": [{"name": "a"}, {"name": "b"}]}
    insert(client, "experiments", [plan, {**plan, "salt": "a racing edit"}])
    return client


def rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return client.rows(sql.replace("FROM v_", f"FROM {DATABASE}.v_"))


@pytest.fixture(scope="module")
def results(client: Client) -> Client:
    """The sample of a result, twice."""
    insert(client, "results", [msgspec.json.encode(SAMPLES["results"])] * 2)
    return client


def test_a_result_is_a_row_for_each_metric_and_variant(results: Client) -> None:
    """Numbers are columns; what cannot be told is null and says why."""
    sql = (
        "SELECT metric, variant, verdict, decided, units, mean, effect, low, high, p_value, adjusted_p_value, always_low, always_high,"
        " always_p_value, smallest_p_value, cohens_d, cannot_tell, harm_limit, breached, duplicates FROM v_experiment_results"
        " WHERE experiment = 'checkout' ORDER BY metric, variant"
    )
    told = ("implement", "challenger", 1_000)
    effect = (0.04, 0.0257, 0.0543, 4e-8, 8e-8, 0.01, 0.07, 0.0004, 0.0003, 0.25, "")
    nothing = (None,) * 10
    assert rows(results, sql) == [
        ("returned-per-item", "challenger", *told, 0.02, *nothing, "control: the denominator is 0", 0.02, False, 1),
        ("returned-per-item", "control", *told, None, *nothing, "", None, None, 1),
        ("revenue", "challenger", *told, 13.0, *effect, None, None, 1),
        ("revenue", "control", *told, 12.5, *nothing, "", None, None, 1),
    ]


def test_every_number_of_a_result_is_found_where_its_event_has_it(results: Client) -> None:
    """No column of the view reads a name that the event does not have: of the sample, every one is somewhere not null."""
    for name, kind, _ in experiment_results().columns:
        if kind.startswith("Nullable"):
            assert rows(results, f"SELECT count(`{name}`) > 0 FROM v_experiment_results") == [(True,)], name


def test_a_repeated_record_is_one_row_of_its_first_offset_and_counted(client: Client) -> None:
    assert rows(client, "SELECT id, _offset, duplicates FROM v_requests ORDER BY id") == [("r1", 0, 1), ("r2", 1, 0), ("r3", 4, 0)]
    assert rows(client, "SELECT id, version, duplicates FROM v_predictions ORDER BY id") == [("p1", 1, 1), ("p2", 1, 0), ("s1", 9, 0)]


def test_outcomes_without_an_id_are_each_a_row(client: Client) -> None:
    assert rows(client, "SELECT count(), sum(duplicates) FROM v_outcomes") == [(4, 0)]


def test_the_first_record_of_a_plan_version_counts(client: Client) -> None:
    assert rows(client, "SELECT salt, duplicates FROM v_experiments") == [(SALT, 1)]


def test_what_cannot_be_decoded_is_left_out_and_told_apart(client: Client) -> None:
    assert rows(client, "SELECT topic, _offset, _raw FROM v_undecoded") == [("requests", 3, "garbage")]


def test_buckets_are_computed_again_from_the_plan(client: Client) -> None:
    found = rows(client, "SELECT id, variant, derived_bucket, agrees FROM v_assignments ORDER BY id")
    assert found == [("a1", "b", bucket("u1"), True), ("a2", "b", bucket("u2"), False), ("a3", "b", None, None)]


def test_a_decision_is_one_row(client: Client) -> None:
    sql = (
        "SELECT request_id, duplicates, variants, propensities, status, version, outputs, output_lists, latency_seconds, answer_seconds,"
        " outcomes FROM v_decisions ORDER BY request_id"
    )
    answer = ({"p": 0.25}, {"all": [0.25, 0.75]}, 0.1)
    assert rows(client, sql) == [
        ("r1", 1, {"checkout": "b"}, {"checkout": 0.5}, "ok", 1, *answer, 0.0, {"paid": 2.0}),
        ("r2", 0, {"checkout": "b", "unplanned": "b"}, {"checkout": 0.5, "unplanned": 0.5}, "ok", 1, *answer, 0.001, {}),
        ("r3", 0, {}, {}, "unanswered", 0, {}, {}, None, None, {}),
    ]


def test_each_experiment_of_a_decision_says_whether_its_variant_was_met(client: Client) -> None:
    assert rows(client, "SELECT request_id, exposed FROM v_decisions ORDER BY request_id") == [
        ("r1", {"checkout": True}),
        ("r2", {"checkout": True, "unplanned": False}),
        ("r3", {}),
    ]
    met = "SELECT groupArray(request_id) FROM (SELECT request_id FROM v_decisions WHERE exposed['{name}'] ORDER BY request_id)"
    assert [rows(client, met.replace("{name}", name)) for name in ("checkout", "unplanned", "unheard-of")] == [
        [(["r1", "r2"],)],
        [([],)],
        [([],)],
    ]


def test_one_decision_is_found_by_its_id(client: Client) -> None:
    assert rows(client, "SELECT unit_id FROM v_decisions WHERE request_id = 'r2'") == [("u2",)]


def test_latency_is_told_by_minute_model_and_version(client: Client) -> None:
    sql = (
        "SELECT model, version, shadow, predictions, round(taken_up_p50_seconds, 3), taken_up_max_seconds FROM v_latency"
        " ORDER BY version, shadow"
    )
    assert rows(client, sql) == [("m", 1, False, 2, 0.1, 0.1), ("m", 2, False, 1, 0.1, 0.1), ("m", 9, True, 1, 0.1, 0.1)]


def test_latency_is_from_append_to_append_of_the_very_record_that_is_answered(client: Client) -> None:
    """A request that is published again a minute later, and answered again, was not waited for a minute."""
    asked, again = APPENDED_MS, APPENDED_MS + 60_000
    fixed = {"model": "timed", "shadow": False}
    answers = [
        (asked + 21, prediction("t1", "r8", **fixed, time=iso(asked + 6.4), latency_seconds=0.006)),
        (again + 31, prediction("t1", "r8", **fixed, time=iso(again + 7.6), latency_seconds=0.008)),
        (again + 32, prediction("t2", "r8", **fixed | {"shadow": True}, time=iso(again + 7.6), latency_seconds=0.008)),
    ]
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    records = [
        Record("predictions", 1, offset, appended, None, msgspec.json.encode(value)) for offset, (appended, value) in enumerate(answers)
    ]
    Store(client, 20).insert("predictions", Builder(TABLES["predictions"]).build(records, Place("topic-id", 1, lease)), "timed")
    sql = (
        "SELECT minute, shadow, predictions, p50_seconds, p999_seconds, max_seconds, taken_up_p50_seconds, taken_up_max_seconds"
        " FROM v_latency WHERE model = 'timed' ORDER BY minute, shadow"
    )
    assert [row[1:] for row in rows(client, sql)] == [
        (False, 1, 0.021, 0.021, 0.021, 0.006, 0.006),
        (False, 1, 0.031, 0.031, 0.031, 0.008, 0.008),
        (True, 1, 0.032, 0.032, 0.032, 0.008, 0.008),
    ]


def test_places_are_ordered_as_append_time_then_partition_then_offset(client: Client) -> None:
    """The one number orders every pair as the three do, at the ends of their ranges too."""
    number = PLACE.replace("{t}", "")
    sql = f"""
        WITH places AS (
            SELECT (_appended, _partition, _offset) AS place, {number} AS number
            FROM (SELECT fromUnixTimestamp64Milli(arrayJoin([0, 1, {APPENDED_MS}, 4102444800000]::Array(Int64)), 'UTC') AS _appended) AS a
            CROSS JOIN (SELECT arrayJoin([0, 1, 7, 2097151]::Array(Int32)) AS _partition) AS b
            CROSS JOIN (SELECT arrayJoin([0, 1, 4294967296, 9223372036854775807]::Array(Int64)) AS _offset) AS c
        )
        SELECT count(), countIf((x.place < y.place) != (x.number < y.number)) FROM places AS x CROSS JOIN places AS y"""
    assert client.rows(sql) == [(64 * 64, 0)]


def test_of_copies_in_other_partitions_the_first_appended_counts(client: Client) -> None:
    placed = [
        Record("predictions", partition, offset, appended, None, msgspec.json.encode(prediction("q", "r9", version=version)))
        for partition, offset, appended, version in ((3, 5, APPENDED_MS + 9, 1), (2, 900, APPENDED_MS + 8, 2), (3, 4, APPENDED_MS + 8, 3))
    ]
    lease = int(client.rows("SELECT toUnixTimestamp(now())")[0][0]) + 60
    for record in placed:
        block = Builder(TABLES["predictions"]).build([record], Place("topic-id", record.partition, lease))
        Store(client, 20).insert("predictions", block, f"copies-{record.place}")
    assert rows(client, "SELECT version, duplicates FROM v_predictions WHERE request_id = 'r9'") == [(2, 2)]


@pytest.mark.parametrize("asked", ["time >= now()", "unit_id = 'u2'", "requested < now()"])
def test_what_is_asked_of_requests_narrows_what_is_read_of_the_rest(client: Client, asked: str) -> None:
    """Predictions, assignments and outcomes are filtered by the ids of the requests before they are aggregated."""
    question = f"SELECT outputs, variants, outcomes FROM {DATABASE}.v_decisions WHERE {asked}"
    plan = [line for (line,) in client.rows(f"EXPLAIN PLAN actions = 0 {question} SETTINGS join_runtime_filter_min_probe_rows = 0")]
    for table in ("predictions", "assignments", "outcomes"):
        reads = [at for at, line in enumerate(plan) if f"ReadFromMergeTree ({DATABASE}.{table})" in line]
        assert reads, plan
        assert all("Apply runtime join filter" in plan[at - 1] for at in reads), plan


@pytest.mark.parametrize("view", ["v_requests", "v_assignments", "v_decisions"])
def test_a_client_that_joins_with_nulls_is_told_the_same(client: Client, view: str) -> None:
    asked = f"SELECT * FROM {DATABASE}.{view} WHERE unit_id = 'u2'"
    assert client.rows(f"{asked} SETTINGS join_use_nulls = 1") == client.rows(asked) != []
