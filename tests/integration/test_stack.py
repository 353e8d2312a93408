"""``millrace up``, ``status`` and ``down`` as a person uses them: as commands, on real places."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from millrace.infra.embedded import kafka, stack_file
from millrace.infra.embedded.processes import find
from millrace.infra.models.networks import perceptron
from millrace.infra.settings import Settings, StackSettings
from millrace.workers.stack.roles import WORKERS
from millrace.workers.stack.status import status
from tests.stack import claim_base, pings, wait_until
from tests.terminal import ESCAPE, GREEN, HIDE_CURSOR, on_terminal

READING = ("inference-0", "intake-0", "archiver-0")
PROCESS_KEYS = {"name", "role", "pid", "state", "uptime_seconds", "restarts", "lag", "last_error"}


class Millrace:
    """The command on one data folder and port base, and what it left behind."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.base = claim_base()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MILLRACE_")}
        self._environment = clean | environment
        self._foreground: subprocess.Popen[str] | None = None

    @property
    def kafka(self) -> str:
        return f"127.0.0.1:{self.base}"

    @property
    def clickhouse(self) -> str:
        return f"http://127.0.0.1:{self.base + 2}"

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command on this folder and check its exit code."""
        command = [sys.executable, "-m", "millrace", *arguments, "--data", str(self.data)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, env=self._environment, check=False)
        assert result.returncode == code, f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    def up(self, *more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self("up", "--detach", "--no-workers", "--port-base", str(self.base), *more, code=code)

    def with_workers(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self("up", "--detach", "--port-base", str(self.base), *more)

    def on_terminal(self, *arguments: str) -> str:
        """What a command shows to a person; it must end well."""
        shown = on_terminal([sys.executable, "-m", "millrace", *arguments, "--data", str(self.data)], self._environment)
        assert shown.code == 0, shown.text
        return shown.text

    def foreground(self, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "millrace", "up", "--no-workers", "--port-base", str(self.base), "--data", str(self.data), *more]
        self._foreground = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        return self._foreground

    def status(self, code: int = 0) -> dict[str, Any]:
        """What the command says; where it is to end well, once every process says that it is ready."""
        if code == 0:
            wait_until(lambda: self.states() == {"ready"}, 60, "all is ready")
        answer: dict[str, Any] = json.loads(self("status", "--json", code=code).stdout)
        return answer

    def states(self) -> set[str]:
        """The states of all processes; asked without starting a command, for polling."""
        found, _ = status(Settings(stack=StackSettings(data=str(self.data))))
        return {row.state for row in found.processes}

    def process(self, name: str) -> dict[str, Any]:
        """One row of the status; asked without starting a command, for polling."""
        found, _ = status(Settings(stack=StackSettings(data=str(self.data))))
        rows = [row for row in found.processes if row.name == name]
        return msgspec.to_builtins(rows[0]) if rows else {}

    def supervisor(self) -> int:
        stack = stack_file.read(self.data)
        assert stack is not None
        return stack.supervisor.pid

    def end(self) -> None:
        self("down")
        if self._foreground is not None:
            self._foreground.communicate(timeout=100)


def running(data: Path) -> list[int]:
    """The processes that name this folder in their command line."""
    processes = psutil.process_iter(["pid", "cmdline"])
    return [process.info["pid"] for process in processes if any(str(data) in part for part in process.info["cmdline"] or ())]


def publish(address: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    producer.produce(topic, value)
    assert producer.flush(60) == 0


def end_offset(address: str, topic: str) -> int:
    """How many offsets all partitions of a topic have."""
    from confluent_kafka import Consumer, TopicPartition

    client = AdminClient({"bootstrap.servers": address})
    partitions = client.list_topics(topic, timeout=60).topics[topic].partitions
    consumer = Consumer({"bootstrap.servers": address, "group.id": "unused"})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number), 60)[1] for number in partitions)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        time.sleep(1)  # the machine was so busy that the broker's own heartbeat came late
        return end_offset(address, topic)
    finally:
        consumer.close()


def sql(url: str, statement: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, data=statement.encode()), timeout=60) as answer:
        text: str = answer.read().decode()
        return text.strip()


@pytest.fixture
def millrace(tmp_path: Path) -> Iterator[Millrace]:
    """Nothing runs yet."""
    command = Millrace(tmp_path / "data")
    yield command
    command.end()
    assert running(command.data) == []


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Millrace]:
    """A stack that runs, shared by the tests that leave it running."""
    command = Millrace(tmp_path_factory.mktemp("stack") / "data")
    command.up()
    yield command
    command.end()
    assert running(command.data) == []


def test_data_survives_down_and_up(millrace: Millrace) -> None:
    assert millrace.status(code=3) == {"processes": [], "addresses": {"kafka": None, "clickhouse": None}}
    assert millrace.kafka in millrace.up().stdout
    found = millrace.status()
    assert [set(row) for row in found["processes"]] == [PROCESS_KEYS, PROCESS_KEYS]
    assert [(row["name"], row["state"], row["restarts"]) for row in found["processes"]] == [
        ("kafka", "ready", 0),
        ("clickhouse", "ready", 0),
    ]
    assert found["addresses"] == {"kafka": millrace.kafka, "clickhouse": millrace.clickhouse}
    publish(millrace.kafka, "requests", b"{}")
    sql(millrace.clickhouse, "CREATE TABLE kept (x Int64) ENGINE = MergeTree ORDER BY x")
    sql(millrace.clickhouse, "INSERT INTO kept VALUES (42)")

    assert "stopped" in millrace("down").stdout
    assert "no stack runs" in millrace("down").stdout
    assert running(millrace.data) == []
    assert "no stack runs here" in millrace("status", code=3).stderr

    printed = json.loads(millrace.up("--json").stdout)
    now = millrace.status()
    assert printed["addresses"] == now["addresses"]
    assert [(set(row), row["name"], row["pid"]) for row in printed["processes"]] == [
        (PROCESS_KEYS, row["name"], row["pid"]) for row in now["processes"]
    ]
    assert end_offset(millrace.kafka, "requests") == 1
    assert sql(millrace.clickhouse, "SELECT x FROM kept") == "42"


def test_two_stacks_side_by_side_and_what_is_refused(stack: Millrace, tmp_path: Path) -> None:
    assert f"a stack already runs on {stack.data} (pid {stack.supervisor()})" in stack.up(code=3).stderr

    other = Millrace(tmp_path / "other", MILLRACE_CLICKHOUSE=stack.clickhouse)
    taken = other("up", "--no-workers", "--port-base", str(stack.base), code=3).stderr
    assert f"port {stack.base} (Kafka) is in use by pid {stack.process('kafka')['pid']} (java)" in taken
    assert "--port-base" in taken
    try:
        other.up()
        found = other.status()
        assert [row["name"] for row in found["processes"]] == ["kafka"], "the address in the settings replaces the embedded place"
        assert found["addresses"] == {"kafka": other.kafka, "clickhouse": stack.clickhouse}
        before = end_offset(stack.kafka, "requests")
        publish(other.kafka, "requests", b"{}")
        assert (end_offset(stack.kafka, "requests"), end_offset(other.kafka, "requests")) == (before, 1)
    finally:
        other.end()
    assert [row["state"] for row in stack.status()["processes"]] == ["ready", "ready"]


@pytest.mark.slow
def test_after_a_crash_of_up_the_next_one_cleans(millrace: Millrace) -> None:
    millrace.up()
    stack = stack_file.read(millrace.data)
    assert stack is not None
    frozen = millrace.process("clickhouse")["pid"]
    os.kill(frozen, signal.SIGSTOP)  # so that it cannot follow its supervisor by itself
    os.kill(stack.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: find(stack.supervisor) is None, 60, "up is gone")
    assert "millrace up was killed" in millrace("status", code=1).stderr
    assert psutil.pid_exists(frozen)

    millrace.up()
    assert find(stack.processes[1].identity) is None
    assert "had not ended in order" in (millrace.data / "logs" / "up.log").read_text()
    assert [row["state"] for row in millrace.status()["processes"]] == ["ready", "ready"]

    os.kill(millrace.process("clickhouse")["pid"], signal.SIGSTOP)
    os.kill(millrace.supervisor(), signal.SIGKILL)
    assert "stopped" in millrace("down").stdout, "down cleans as well"
    wait_until(lambda: running(millrace.data) == [], 60, "the broker, told by the kernel, has ended too")
    millrace.status(code=3)


def test_killed_places_come_back_with_their_data(stack: Millrace) -> None:
    kept = end_offset(stack.kafka, "requests") + 1
    publish(stack.kafka, "requests", b"{}")
    for name in ("clickhouse", "kafka"):
        before = stack.process(name)["pid"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda name=name: stack.process(name)["restarts"] == 1, 60, f"{name} started again")  # type: ignore[misc]
        wait_until(lambda name=name: stack.process(name)["state"] == "ready", 60, f"{name} ready again")  # type: ignore[misc]
        assert stack.process(name)["pid"] != before
    assert end_offset(stack.kafka, "requests") == kept
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{stack.base + 3}/metrics", timeout=60).read().decode()
    assert any(line.startswith("millrace_restarts_total") and '"kafka"' in line and line.endswith(" 1.0") for line in metrics.splitlines())


def test_ctrl_c_stops_everything(millrace: Millrace) -> None:
    process = millrace.foreground("--json")
    wait_until(lambda: millrace.process("kafka") != {}, 60, "status while starting")
    wait_until(lambda: (stack := stack_file.read(millrace.data)) is not None and stack.settled, 90, "ready")
    wait_until(lambda: pings(millrace.clickhouse), 60, "ClickHouse answers")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "\x1b" not in output, "no colours off a terminal"
    assert output.rstrip().endswith("stopped")
    before, _, after = output.partition('{"processes":')
    assert "ready: Kafka" in before, "one line of JSON once all is ready"
    document = json.loads('{"processes":' + after.splitlines()[0])
    assert [(set(row), row["name"]) for row in document["processes"]] == [(PROCESS_KEYS, "kafka"), (PROCESS_KEYS, "clickhouse")]
    assert document["addresses"] == {"kafka": millrace.kafka, "clickhouse": millrace.clickhouse}
    assert running(millrace.data) == []


def test_a_terminal_has_colours_and_a_pipe_has_none(stack: Millrace) -> None:
    stack.status()
    shown = stack.on_terminal("status")
    assert [f"{GREEN}{name}" in shown for name in ("kafka", "clickhouse")] == [True, True]
    assert ESCAPE not in stack("status").stdout


@pytest.mark.slow
def test_workers_go_on_after_up_was_killed(millrace: Millrace, tmp_path: Path) -> None:
    """All of it, with real workers: decide, kill ``up`` with everything that it started, start again, decide, compare."""
    (tmp_path / "m.onnx").write_bytes(perceptron([2, 4, 1]))
    rows = json.loads(millrace.with_workers("--json").stdout)["processes"]
    assert [row["name"] for row in rows] == ["kafka", "clickhouse", *(f"{role}-0" for role in WORKERS)]
    millrace("models", "add", "m", str(tmp_path / "m.onnx"))
    ask = ("predict", "m", "--vector", "[1, 2]", "--timeout", "60", "--json")
    first = json.loads(millrace(*ask).stdout)

    killed = stack_file.read(millrace.data)
    assert killed is not None
    os.kill(millrace.process("inference-0")["pid"], signal.SIGSTOP)  # so that it cannot follow by itself
    os.kill(killed.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: find(killed.supervisor) is None, 60, "up is gone")

    shown = millrace.on_terminal("up", "--detach", "--port-base", str(millrace.base))
    assert HIDE_CURSOR in shown, "it shows that it waits"
    assert "ready: Kafka" in shown
    assert [entry.name for entry in killed.processes if find(entry.identity)] == []
    second = json.loads(millrace(*ask).stdout)
    assert first["outputs"] == second["outputs"]
    assert first["request_id"] != second["request_id"]
    assert "clean" in millrace("verify").stdout
    assert sql(millrace.clickhouse, "SELECT count(), uniqExact(request_id) FROM millrace.v_predictions") == "2\t2"
    wait_until(lambda: [millrace.process(name)["lag"] for name in READING] == [0] * len(READING), 60, "nothing is behind")


def test_a_start_that_cannot_work_says_why_and_leaves_nothing(millrace: Millrace) -> None:
    (millrace.data / "kafka" / "log").mkdir(parents=True)
    (millrace.data / "kafka" / "version").write_text("9.9.9")
    said = millrace.up(code=3).stderr
    assert f"was formatted by Kafka 9.9.9, this is {kafka.VERSION}" in said
    assert str(millrace.data / "logs" / "up.log") in said
    millrace.status(code=3)


def test_a_place_that_cannot_start_ends_up_with_its_reason(millrace: Millrace) -> None:
    (millrace.data).mkdir()
    (millrace.data / "clickhouse").write_text("not a folder")
    said = millrace.up(code=3).stderr
    assert "clickhouse did not become ready" in said
    assert str(millrace.data / "logs" / "clickhouse.log") in said
    assert running(millrace.data) == []
