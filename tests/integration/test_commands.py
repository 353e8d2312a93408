"""The commands that talk to Kafka, run as a person runs them: arguments, exit codes, what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from millrace.infra.kafka import clients
from millrace.infra.kafka.offsets import reset
from millrace.infra.kafka.provision import provision
from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.kafka.tail import From, Spot, Tail
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import Settings, convert
from millrace.schemas.errors import MillraceError
from millrace.schemas.experiment import Analysis, Rule
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.samples import DEAD_LETTER, PREDICTION
from millrace.schemas.topics import DEAD_LETTERS, EXPERIMENTS, MOMENTS, POLICIES, PREDICTIONS
from millrace.schemas.wire import codec
from millrace.streams.judge.merge import Sealed
from millrace.workers.cli import app
from millrace.workers.experiment_file import EXAMPLE
from tests.judging import counted, experiment, published, sealed
from tests.models import NOW
from tests.stack import Broker

runner = CliRunner()


def live_in(monkeypatch: pytest.MonkeyPatch, broker: Broker, prefix: str, data: Path) -> None:
    """Make this process's environment that of a person with this prefix; no stack that happens to run here is found."""
    monkeypatch.delenv("MILLRACE_CLICKHOUSE", raising=False)
    for key, value in {
        "MILLRACE_KAFKA": broker.address,
        "MILLRACE_TOPIC_PREFIX": prefix,
        "MILLRACE_DATA": str(data),
        "MILLRACE_KAFKA__PARTITIONS": "2",
        "MILLRACE_RUNNER__SESSION_TIMEOUT_SECONDS": "1",
    }.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def prefix(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The prefix of a person who has topics of their own."""
    name = f"t{uuid.uuid4().hex[:8]}-"
    live_in(monkeypatch, broker, name, tmp_path)
    run("provision")
    return name


@pytest.fixture(scope="module")
def shared_prefix(broker: Broker) -> str:
    """The prefix of topics that stay empty: for tests in which nothing may be written."""
    name = f"t{uuid.uuid4().hex[:8]}-"
    provision(convert({"topic_prefix": name, "kafka": {"address": broker.address, "partitions": 2}}))
    return name


@pytest.fixture
def empty(broker: Broker, shared_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a person whose topics are empty."""
    live_in(monkeypatch, broker, shared_prefix, tmp_path)


@pytest.fixture
def settings(broker: Broker, prefix: str) -> Settings:
    return convert({"topic_prefix": prefix, "kafka": {"address": broker.address, "partitions": 2}})


def run(*arguments: str, stdin: str | None = None, fails: int = 0) -> str:
    """What a command prints; fails unless it ends with this exit code. An error raised on purpose is given as its text."""
    result = runner.invoke(app, list(arguments), input=stdin)
    if isinstance(result.exception, MillraceError):
        from millrace.workers.cli import exit_code

        assert exit_code(result.exception) == fails, result.exception
        return str(result.exception)
    assert result.exit_code == fails, result.output
    return result.output


def run_json(*arguments: str, stdin: str | None = None) -> Any:
    """The document on standard output; notes stand on standard error."""
    result = runner.invoke(app, [*arguments, "--json"], input=stdin)
    assert result.exit_code == 0, result.exception or result.output
    return json.loads(result.stdout)


def test_provision_says_what_it_made_and_then_that_all_was_there(prefix: str) -> None:
    assert run_json("provision") == []
    assert "everything was there" in run("provision")
    assert {row["topic"]: row["partitions"] for row in run_json("topics", "list")}[f"{prefix}models"] == 1


def test_produce_checks_every_line_before_it_publishes_any(empty: None) -> None:
    said = run("topics", "produce", "requests", stdin='{"id":"1","unit_id":"u"}\n{"id":2,"unit_id":"u"}\n', fails=2)
    assert said == "record 2: Expected `str`, got `int` - at `$.id`. Nothing was published."
    assert run("topics", "tail", "requests") == ""


def test_produce_and_tail_in_both_formats(prefix: str) -> None:
    run("topics", "produce", "requests", '{"id":"1","unit_id":"u","model":"m","features":{"a":1.5}}', "--key", "k")
    lines = '{"id":"2","unit_id":"u","model":"m","vector":[1,0.5]}\n\n{"id":"3","unit_id":"u","model":"m","vector":[2]}\n'
    places = run_json("topics", "produce", "requests", "--format", "msgpack", stdin=lines)
    assert [place["topic"] for place in places] == ["requests", "requests"]
    seen = [json.loads(line) for line in run("topics", "tail", "requests", "--json", "--from", "earliest").splitlines()]
    values = {record["value"]["id"]: record["value"] for record in seen}
    assert values["1"]["features"] == {"a": 1.5}
    assert values["2"]["vector"] == [1.0, 0.5]
    assert {record["key"] for record in seen} == {"k", "u"}
    assert "requests/" in run("topics", "tail", "requests", "--max", "1")
    assert run("topics", "tail", "requests", "--from", "latest") == ""


def test_tail_follows_what_comes_until_it_has_enough(prefix: str, settings: Settings) -> None:
    ended = threading.Event()

    def again() -> None:
        """Until it is seen: nobody says when the tail has found the log's end."""
        while not ended.wait(0.2):
            publish(settings, [Outgoing("requests", b"k", b'{"id":"late","unit_id":"u"}')])

    later = threading.Thread(target=again)
    later.start()
    try:
        seen = run("topics", "tail", "requests", "--from", "latest", "--follow", "--max", "1", "--json")
    finally:
        ended.set()
        later.join()
    assert json.loads(seen)["value"]["id"] == "late"


def test_tail_shows_what_cannot_be_decoded_and_why(prefix: str, settings: Settings) -> None:
    publish(settings, [Outgoing("requests", b"\xff\x01", b"not json"), Outgoing("requests", None, b'{"id":5,"unit_id":"u"}')])
    records = [json.loads(line) for line in run("topics", "tail", "requests", "--json").splitlines()]
    by_key = {record["key"]: record for record in records}
    assert by_key["0xff01"]["raw"] == "not json"
    assert by_key[None]["value"]["id"] == 5
    assert "$.id" in by_key[None]["error"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("topics", "produce", "models", "{}"), "models is written by millrace alone: publish to requests, outcomes"),
        (("topics", "produce", "nothing", "{}"), "nothing is no topic of millrace"),
        (("topics", "tail", "nothing"), "there is no topic nothing: use one of requests, "),
        (("predict", "m", "--features", '{"a": "1"}'), "--features: 'a' is no number"),
        (("predict", "m", "--features", "[1]"), "--features is no JSON object"),
        (("topics", "tail", "requests", "--from", "yesterday"), "use earliest, latest, an offset, or -N"),
        (("offsets", "reset", "nobody", "--to", "earliest"), "no role 'nobody' reads with a group: use one of inference, intake, "),
        (("offsets", "reset", "inference", "--to", "now"), "use earliest, latest, commits or an offset"),
        (("offsets", "reset", "inference", "--to", "0", "--topic", "models"), "inference does not read 'models': it reads requests"),
        (("offsets", "reset", "inference", "--to", "commits"), "has no transaction of inference"),
        (("models", "show", "m"), "no model is called 'm'; there are: none yet"),
        (("models", "route", "m", "1"), "no model is called 'm'"),
        (("experiments", "start", "e"), "no experiment is called 'e'; there are: none yet"),
        (("dead-letters", "show", "x"), "no dead letter has the id or place 'x'"),
        (("dead-letters", "allow", "inference"), "held at its dead-letter cap"),
        (("predict", "m"), "give the features either by name"),
        (("predict", "m", "--features", "{a:1}"), "--features is not JSON"),
        (("predict", "m", "--vector", "[1]", "--context", "7"), "this is no request: Expected `object`, got `int` - at `$.context`"),
    ],
)
def test_wrong_usage_says_what_to_do(empty: None, arguments: tuple[str, ...], said: str) -> None:
    assert said in run(*arguments, fails=2)


def test_a_model_from_file_to_route(prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(perceptron([3, 4, 1]))
    assert "it serves all requests" in run("models", "add", "m", str(file), "--features", "a,b,c", "--defaults", "c=1.5")
    added = run_json("models", "add", "m", str(file))
    assert (added["version"], added["routed"], added["features"]) == (2, False, ["f0", "f1", "f2"])
    assert [(row["version"], row["serves"]) for row in run_json("models", "list")] == [(1, "100%"), (2, "-")]
    run("models", "route", "m", "1", "--share", "2=0.25")
    assert [(row["version"], row["serves"]) for row in run_json("models", "list")] == [(1, "75%"), (2, "25%")]
    run("models", "route", "m", "2", "--shadow", "1")
    shown = run_json("models", "show", "m")
    assert shown["versions"][0]["defaults"] == {"c": 1.5}
    assert [route["version"] for route in shown["routes"]] == [1, 2, 3]
    assert "it has 1, 2" in run("models", "route", "m", "3", fails=2)
    assert "must be above 0" in run("models", "route", "m", "1", "--share", "2=1", fails=2)


def test_a_model_too_large_for_a_record_goes_to_the_object_store(prefix: str, tmp_path: Path) -> None:
    small, large = perceptron([263, 512, 160, 4]), perceptron([263, 512, 512, 4])
    for name, data in (("small", small), ("large", large)):
        (tmp_path / f"{name}.onnx").write_bytes(data)
    inline = run_json("models", "add", "small", str(tmp_path / "small.onnx"))
    stored = run_json("models", "add", "large", str(tmp_path / "large.onnx"))
    assert len(small) < 900_000 < len(large)
    assert inline["location"] == "in the record"
    assert stored["location"] == f"sha256:{stored['digest']}"
    (kept,) = (tmp_path / "objects" / stored["digest"][:2]).iterdir()
    assert kept.read_bytes() == large


@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        (["--features", "a,b"], "takes 3 features, 2 are named", 1),
        (["--defaults", "z=1"], "names 'z', which is none of the model's features", 2),
        (["--defaults", "f0=nan"], "no finite number", 2),
        (["--outputs", "a=b:c"], "is not `tensor`", 2),
    ],
)
def test_a_model_that_does_not_fit_is_not_added(empty: None, tmp_path: Path, more: list[str], said: str, code: int) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(perceptron([3, 4, 1]))
    assert said in run("models", "add", "m", str(file), *more, fails=code)
    assert run_json("models", "list") == []


BANDIT_EXAMPLE = """
name = "learning"
unit = "request"

[[variants]]
name = "a"

[[variants]]
name = "b"

[[targeting]]
field = "country"
test = "equals"
value = "CH"

[allocation]
policy = "thompson"
metric = "paid"

[[metrics]]
name = "paid"
outcome = "order"
kind = "proportion"
role = "primary"
"""


def test_an_experiment_from_file_to_concluded(prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text(EXAMPLE)
    assert "names the model 'approve', which has no route: add it with `millrace models add approve FILE.onnx`" in run(
        "experiments", "create", str(file), fails=2
    )
    file.write_text('name = "e"\n[[variants]]\nname = "a"\n[[variants]]\nname = "b"\n')
    run("experiments", "create", str(file))
    assert "exists: edit it with `millrace experiments update" in run("experiments", "create", str(file), fails=2)
    run("experiments", "start", "e")
    assert "is running already" in run("experiments", "start", "e", fails=2)
    file.write_text('name = "e"\n[[variants]]\nname = "b"\n[[variants]]\nname = "a"\n')
    assert "`variants` cannot be changed so" in run("experiments", "update", str(file), fails=2)
    file.write_text('name = "e"\n[[variants]]\nname = "a"\nweight = 3\n[[variants]]\nname = "b"\n')
    assert "a 75%, b 25%" in run("experiments", "update", str(file))
    assert run_json("experiments", "update", str(file))["version"] == 3
    run("experiments", "pause", "e")
    run("experiments", "resume", "e")
    assert "is running already" in run("experiments", "resume", "e", fails=2)
    run("experiments", "stop", "e")
    assert "stays so" in run("experiments", "start", "e", fails=2)
    assert "has no variant 'c'" in run("experiments", "conclude", "e", "--variant", "c", "--because", "x", fails=2)
    assert "a: no effect" in run("experiments", "conclude", "e", "--variant", "a", "--because", "no effect")
    versions = run_json("experiments", "show", "e")
    assert [plan["state"] for plan in versions] == ["draft", "running", "running", "paused", "running", "stopped", "completed"]
    assert {plan["created"] for plan in versions} == {versions[0]["time"]}
    assert [(span["variant"], span["high"]) for span in versions[-1]["spans"]] == [("a", 0.5), ("b", 0.75), ("a", 1.0)]
    assert [(plan["name"], plan["version"]) for plan in run_json("experiments", "list")] == [("e", 7)]


def test_a_range_of_a_layer_is_held_until_its_experiment_stops(prefix: str, tmp_path: Path) -> None:
    def file(name: str, low: float, high: float) -> str:
        path = tmp_path / f"{name}.toml"
        variants = "".join(f'[[variants]]\nname = "{variant}"\n' for variant in "ab")
        path.write_text(f'name = "{name}"\n{variants}[layer]\nname = "page"\nlow = {low}\nhigh = {high}\n')
        return str(path)

    for name, low, high in (("one", 0.0, 0.5), ("beside", 0.5, 1.0), ("across", 0.4, 0.6)):
        run("experiments", "create", file(name, low, high))
    run("experiments", "start", "one")
    run("experiments", "start", "beside")
    assert "overlaps [0.5, 1) of beside, which is running: take a free range, or stop beside" in run(
        "experiments", "start", "across", fails=2
    )
    run("experiments", "create", file("late", 0.0, 0.1))  # a draft may be prepared for a range that is in use
    assert "overlaps [0, 0.5) of one" in run("experiments", "start", "late", fails=2)
    run("experiments", "stop", "one")
    run("experiments", "stop", "beside")
    assert run_json("experiments", "start", "across")["state"] == "running"


def test_which_variant_a_unit_gets_and_why(prefix: str, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text(BANDIT_EXAMPLE)
    run("experiments", "create", str(file))
    one = ("--experiment", "learning")
    assert "gets no variant in learning version 1: state: it does not hold that the experiment is running" in run(
        "experiments", "assign", "u-1", *one
    )
    assert run_json("experiments", "assign", "u-1") == []
    assert "no experiment has begun" in run("experiments", "assign", "u-1")
    run("experiments", "start", "learning")
    policies = [
        PolicyVersion(experiment="learning", version=version, plan_version=2, time=NOW, offsets={}, weights={"a": weight, "b": 1 - weight})
        for version, weight in ((1, 0.5), (2, 0.0))
    ]
    publish(settings, [Outgoing("policies", b"learning", codec(POLICIES).encode(policy)) for policy in policies])
    given = run_json("experiments", "assign", "u-1", *one, "--request-id", "r-1", "--context", '{"country": "CH"}')
    assert (given["variant"], given["propensity"], given["policy_version"], given["takes_part"]) == ("b", 1.0, 2, True)
    assert [(gate["gate"], gate["passed"]) for gate in given["gates"]] == [("state", True), ("targeting", True)]
    other = tmp_path / "other.toml"
    other.write_text('name = "other"\n[[variants]]\nname = "all"\n')
    run("experiments", "create", str(other))
    run("experiments", "start", "other")
    run("experiments", "pause", "other")
    every = run_json("experiments", "assign", "u-1", "--request-id", "r-1", "--context", '{"country": "CH"}')
    assert [(told["experiment"], told["state"], told["variant"]) for told in every] == [
        ("learning", "running", "b"),
        ("other", "paused", None),
    ]
    assert next(told for told in every if told["experiment"] == "learning") == given
    table = [line.split() for line in run("experiments", "assign", "u-1", "--context", '{"country": "CH"}').splitlines()]
    assert [row[:5] for row in table[1:]] == [["learning", "2", "running", "b", "1"], ["other", "3", "paused", "-", "-"]]
    elsewhere = run("experiments", "assign", "u-1", *one, "--context", '{"country": "DE"}')
    assert "u-1 gets no variant in learning version 2: targeting: it does not hold that country equals CH" in elsewhere
    assert "--context is not JSON" in run("experiments", "assign", "u-1", "--context", "{", fails=2)
    assert "no experiment is called 'x'; there are: learning, other" in run("experiments", "assign", "u-1", "--experiment", "x", fails=2)


def test_what_another_program_wrote_does_not_stand_in_the_way_of_a_stop(prefix: str, settings: Settings) -> None:
    """Workers go by the version before one that cannot assign, and so do the commands."""
    good = experiment()
    for plan in (good, replace(good, version=2, variants=tuple(replace(variant, weight=0.0) for variant in good.variants))):
        publish(settings, [Outgoing("experiments", b"e", codec(EXPERIMENTS).encode(plan))])
    assert "e: running" in run("experiments", "show", "e")
    stopped = run_json("experiments", "stop", "e")
    assert (stopped["version"], stopped["state"]) == (3, "stopped")
    assert [variant["weight"] for variant in stopped["variants"]] == [1.0, 1.0]


def test_a_result_on_demand(prefix: str, settings: Settings) -> None:
    """What is sealed is judged without a judge; what looks back goes on from the newest result, if there is one."""
    plan = experiment(analysis=Analysis(rule=Rule.MSPRT, tau=0.1))
    publish(settings, [Outgoing("experiments", b"e", codec(EXPERIMENTS).encode(plan))])
    assert "has nothing sealed yet" in run("experiments", "results", "e", "--now", fails=3)
    assert "take one of them" in run("experiments", "results", "e", "--now", "--watch", fails=2)
    strong, weak = (sealed({"paid": {"a": counted(4_000, 400), "b": counted(4_000, hits)}}) for hits in (520, 410))
    seal(settings, strong)
    now = runner.invoke(app, ["experiments", "results", "e", "--now", "--json"])
    alone = json.loads(now.stdout)
    assert "no result was published" in now.stderr
    assert (alone["decision"]["verdict"], alone["units"], alone["offsets"]) == ("implement", 8_000, {"0": strong.offsets})
    publish(settings, [Outgoing("results", b"e", json.dumps(alone).encode())])
    seal(settings, weak)
    later = run_json("experiments", "results", "e", "--now")
    mixtures = [one["metrics"][0]["comparisons"][0]["estimate"]["always_valid"]["mixture"] for one in (alone, later)]
    assert mixtures[1]["so_far"]["log_evalue"] == mixtures[0]["log_evalue"] > mixtures[1]["log_evalue"]
    assert run_json("experiments", "results", "e") == alone
    assert "goes on from the result of" in runner.invoke(app, ["experiments", "results", "e", "--now"]).stderr


def seal(settings: Settings, one: Sealed) -> None:
    """Publish a sealed partition, as the experimenter does."""
    publish(settings, [Outgoing("moments", b"e", codec(MOMENTS).encode(event)) for event in published(one)])


def test_a_file_is_validated_without_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_KAFKA", "127.0.0.1:1")
    file = tmp_path / "e.toml"
    file.write_text(BANDIT_EXAMPLE)
    assert run_json("experiments", "validate", str(file))["warnings"] == []
    file.write_text(EXAMPLE)
    assert "note: `metrics`: there are none" in run("experiments", "validate", str(file))
    file.write_text(f"{EXAMPLE}sample = 2\n")
    assert "unknown field `sample`" in run("experiments", "validate", str(file), fails=2)


def test_dead_letters_are_listed_and_shown_whole(prefix: str, settings: Settings) -> None:
    letters = [replace(DEAD_LETTER, id=str(n), offset=n, worker=worker) for n, worker in ((1, "inference"), (2, "intake"))]
    publish(settings, [Outgoing("dead-letters", b"requests", codec(DEAD_LETTERS).encode(letter)) for letter in letters])
    assert [row["place"] for row in run_json("dead-letters", "list")] == ["requests/3@1", "requests/3@2"]
    assert [row["id"] for row in run_json("dead-letters", "list", "--worker", "intake")] == ["2"]
    shown = run_json("dead-letters", "show", "requests/3@2")
    assert (shown["reason"], shown["value"], shown["key"]) == (DEAD_LETTER.reason, '{"id":"order-1729","unit_id":42}', "customer-42")
    assert shown["headers"]["content-type"] == "application/json"
    assert "order-1729" in run("dead-letters", "show", "1")


def publish_in_transactions(settings: Settings, records: Iterable[tuple[str, bool]]) -> None:
    """Predictions for requests of these ids, each in a transaction of its own, on partition 0; those that are not kept are aborted."""
    producer = clients.transactional_producer(settings, clients.Slot(f"test-{uuid.uuid4().hex}", 0))
    producer.init_transactions(20)
    for request_id, kept in records:
        producer.begin_transaction()
        value = codec(PREDICTIONS).encode(replace(PREDICTION, request_id=request_id))
        producer.produce(clients.full_name(settings, PREDICTIONS), value, partition=0)
        producer.flush(20)  # else what is aborted would never have been sent
        (producer.commit_transaction if kept else producer.abort_transaction)(20)


def tailed(*arguments: str) -> list[str]:
    """The request ids that a tail of predictions shows."""
    return [json.loads(line)["value"]["request_id"] for line in run("topics", "tail", "predictions", "--json", *arguments).splitlines()]


def test_the_last_records_are_counted_as_a_committed_reader_sees_them(prefix: str, settings: Settings) -> None:
    """Offsets do not count them: each transaction's marker takes one, and so does what was aborted."""
    publish_in_transactions(settings, [*((f"k{number}", True) for number in range(5)), *((f"a{number}", False) for number in range(40))])
    assert tailed("--from", "-1") == ["k4"]
    assert tailed("--from", "-3") == ["k2", "k3", "k4"]
    assert tailed("--from", "-100") == ["k0", "k1", "k2", "k3", "k4"]
    publish(
        settings,
        [Outgoing("predictions", key.encode(), codec(PREDICTIONS).encode(replace(PREDICTION, request_id=key))) for key in "abcdefgh"],
    )
    shown = tailed("--from", "-1")
    assert len(shown) == 2, "one of each partition"
    assert set(shown) < set("abcdefgh")


def test_the_search_for_the_last_records_is_bounded(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_in_transactions(settings, [("kept", True), *((f"a{number}", False) for number in range(40))])
    monkeypatch.setattr("millrace.infra.kafka.last.REACH_OFFSETS", 60)
    assert tailed("--from", "-1") == []
    monkeypatch.setattr("millrace.infra.kafka.last.REACH_OFFSETS", 100)
    assert tailed("--from", "-1") == ["kept"]


def test_an_allowance_reaches_to_the_end_of_the_held_partition(prefix: str, settings: Settings) -> None:
    publish(settings, [Outgoing("requests", key.encode(), b"{}") for key in "abcdefgh"])  # these keys reach both partitions
    ends = {row["partition"]: row["through"] for row in run_json("dead-letters", "allow", "inference", "--all")}
    assert sum(through + 1 for through in ends.values()) == 8
    name = f"{prefix}requests"
    reset(settings, "inference", [name], 0)
    hold(settings, name, partition=1)
    (given,) = run_json("dead-letters", "allow", "inference")
    assert (given["partition"], given["through"]) == (1, ends[1])
    written = [json.loads(line)["value"] for line in run("topics", "tail", "allowances", "--json").splitlines()]
    assert [allowance["version"] for allowance in written] == list(range(1, len(written) + 1))
    assert {allowance["worker"] for allowance in written} == {"inference"}


def hold(settings: Settings, name: str, partition: int) -> None:
    """Commit what a worker commits that is held at its cap."""
    from confluent_kafka import TopicPartition

    consumer = clients.group_consumer(settings, clients.Slot("inference", 0))
    at_cap = json.dumps({"topic_id": "x", "run": settings.runner.dead_letter_run, "seen": 100, "dead": 100})
    consumer.commit(offsets=[TopicPartition(name, partition, 0, metadata=at_cap)], asynchronous=False)
    consumer.close()


def test_predict_waits_for_its_own_answer_and_no_shadows(prefix: str, settings: Settings) -> None:
    answering = threading.Thread(target=answer_first_request, args=(settings,))
    answering.start()
    try:
        answer = run_json("predict", "m", "--features", '{"a": 1}', "--unit", "u7", "--timeout", "20")
    finally:
        answering.join()
    assert (answer["unit_id"], answer["model"], answer["outputs"]) == ("u7", "m", {"probability": 0.25})


def answer_first_request(settings: Settings) -> None:
    """What inference does, for one request: a shadow's answer, somebody else's, then the one that is waited for."""
    watched = Tail(settings, "requests", Spot(place=From.EARLIEST))
    try:
        request = json.loads(next(iter(watched.for_seconds(20))).value or b"")
    finally:
        watched.close()
    mine = replace(PREDICTION, request_id=request["id"], unit_id=request["unit_id"], model=request["model"], outputs={"probability": 0.25})
    answers = [replace(mine, shadow=True), replace(mine, request_id="another", shadow=False), replace(mine, shadow=False)]
    publish(settings, [Outgoing("predictions", b"k", codec(PREDICTIONS).encode(each)) for each in answers])


def test_predict_says_that_nobody_answered(prefix: str) -> None:
    said = run("predict", "m", "--vector", "[1]", "--timeout", "0.5", fails=1)
    assert "was published, but not answered within 0.5 s" in said


def test_asyncapi_in_both_forms() -> None:
    assert run_json("asyncapi")["asyncapi"] == "3.0.0"
    assert run("asyncapi").startswith("asyncapi: 3.0.0\n")


def test_no_kafka_is_exit_code_3_and_one_line(tmp_path: Path) -> None:
    environment = {"MILLRACE_DATA": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "millrace", "topics", "list"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "millrace up" in result.stderr
