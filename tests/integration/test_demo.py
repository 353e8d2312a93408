"""The demo as a newcomer runs it: a process of its own, whose stack comes and goes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.stack import wait_until

ARGUMENTS = ("-m", "millrace", "demo")


def environment(temporary: Path) -> dict[str, str]:
    """Ours, with temporary files apart, and with places in the settings that a demo must never touch."""
    elsewhere = {"MILLRACE_KAFKA": "127.0.0.1:1", "MILLRACE_CLICKHOUSE": "http://127.0.0.1:1", "MILLRACE_TOPIC_PREFIX": "other."}
    return os.environ | elsewhere | {"TMPDIR": str(temporary)}


def left_running(temporary: Path) -> list[str]:
    """The command lines of processes that work below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(temporary) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def test_the_demo_decides_everything_once_and_leaves_nothing_behind(temporary: Path) -> None:
    page = temporary.parent / "report.html"
    asked = [sys.executable, *ARGUMENTS, "--requests", "1500", "--warm-up", "1", "--seed", "7", "--report", str(page), "--json"]
    done = subprocess.run(asked, env=environment(temporary), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["good"] is True
    assert [found[name] for name in ("requests", "predictions", "assignments", "outcomes")] == [1_500] * 4
    assert (found["lost"], found["duplicated"], found["wrong"], found["problems"]) == (0, 0, 0, [])
    assert set(found["accuracy"]) == {"linear", "trees"}
    assert all(0.85 < accuracy <= 1 for accuracy in found["accuracy"].values()), found["accuracy"]
    variants = found["variants"].values()
    assert sum(arm["assignments"] for arm in variants) == 1_500
    assert all(arm["assignments"] == arm["predictions"] == arm["outcomes"] > 650 for arm in variants)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
    assert found["verified_records"] >= 4 * 1_500 + 3 * 1_000, "what warmed it up is not counted, but compared"
    assert found["warm_up_seconds"] == 1
    assert found["seconds"] > 1
    assert left_running(temporary) == []
    assert list(temporary.iterdir()) == []
    experiment = found["experiment"]
    assert (experiment["units"], sum(experiment["arms"].values())) == (1_500, 1_500)
    assert experiment["compared"] > 100
    assert (experiment["equal"], experiment["unequal"], experiment["health"]) == (True, 0, [])
    low, high = experiment["interval"]
    accuracy = found["accuracy"]
    assert low < experiment["effect"] < high
    assert abs(experiment["effect"] - (accuracy["trees"] - accuracy["linear"])) < 2e-4
    assert experiment["decision"] in ("implement", "continue", "reject")
    assert experiment["reason"] in page.read_text()


def test_a_demo_that_is_ended_stops_what_it_started(temporary: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *ARGUMENTS, "--requests", "100000", "--json"],
        env=environment(temporary),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: any("kafka" in line for line in left_running(temporary)), 60, "the demo's broker runs")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert left_running(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("wrong", [("--requests", "0"), ("--rate", "-1"), ("--seed", "x"), ("--report", "no/such/folder/report.html")])
def test_a_wrong_option_is_refused(wrong: tuple[str, str], temporary: Path) -> None:
    asked = [sys.executable, *ARGUMENTS, *wrong]
    done = subprocess.run(asked, env=environment(temporary), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert wrong[0] in done.stderr
    assert list(temporary.iterdir()) == []
