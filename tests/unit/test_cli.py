"""The command line's frame: exit codes say who must act, and no error raised on purpose shows a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.schemas.errors import MillraceError, OffsetsLost, PathInUse, PortTaken, SettingsError, Unavailable, UsageError
from millrace.workers.cli import exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MillraceError, 1),
        (OffsetsLost, 1),
        (UsageError, 2),
        (SettingsError, 2),
        (Unavailable, 3),
        (PortTaken, 3),
        (PathInUse, 3),
    ],
)
def test_exit_codes(error: type[MillraceError], code: int) -> None:
    assert exit_code(error("x")) == code


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "millrace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin", **environment}, check=False)


def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = run("status", "--data", str(tmp_path), MILLRACE_NO_SUCH="1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("millrace: settings: ")
    assert result.stderr.count("\n") == 1


def test_settings_are_shown_with_their_origin_and_without_secrets(tmp_path: Path) -> None:
    environment = {"MILLRACE_KAFKA": "k:1", "MILLRACE_CLICKHOUSE__PASSWORD": "hunter2"}
    result = run("settings", "--changed", "--data", str(tmp_path), "--json", **environment)
    assert result.returncode == 0
    assert json.loads(result.stdout) == [
        {"key": "kafka.address", "value": "k:1", "from": "MILLRACE_KAFKA"},
        {"key": "clickhouse.password", "value": "***", "from": "MILLRACE_CLICKHOUSE__PASSWORD"},
        {"key": "stack.data", "value": str(tmp_path), "from": "--data"},
    ]
    lines = run("settings", "--data", str(tmp_path), **environment).stdout.splitlines()
    assert lines[0].split() == ["setting", "value", "from"]
    assert [line.split() for line in lines if line.startswith("runner.poll_records")] == [["runner.poll_records", "5000", "default"]]


def test_a_wrong_option_is_exit_code_2() -> None:
    assert run("up", "--no-such-option").returncode == 2
    assert run("up", "--port-base", "80").returncode == 2


def test_help_needs_nothing() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in ("up", "status", "down"))
