"""Logs are kept small, and the last error is found in each of the three kinds of line."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.workers.stack import logs

TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
millrace.schemas.errors.OffsetsLost: group inference has no offset
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", ""),
        ("all is well\n", ""),
        ('{"level": "ERROR", "message": "The commit failed."}\n{"level": "INFO", "message": "again"}\n', "The commit failed."),
        ('{"level": "WARNING", "message": "slow"}\n', ""),
        ("2026-11-21T09:00:00.000Z ERROR kafka.log.LogDir - no space left\n2026-11-21T09:00:01.000Z INFO kafka - bye\n", "no space left"),
        (TRACEBACK, "millrace.schemas.errors.OffsetsLost: group inference has no offset"),
        ("/usr/bin/python3.11: No module named x\n", "No module named x"),
        ("millrace: port 9092 (Kafka) is in use\n", "port 9092 (Kafka) is in use"),
        ('{"half a line\n["not", "an", "object"]\n', ""),
    ],
)
def test_last_error(tmp_path: Path, text: str, error: str) -> None:
    log = tmp_path / "x.log"
    log.write_text(text)
    assert logs.last_error(log) == error


def test_a_log_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert logs.last_error(tmp_path / "x.log") == logs.last_line(tmp_path / "x.log") == ""


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("millrace: long ago\n" + "fine\n" * logs.TAIL_BYTES)
    assert logs.last_error(log) == ""


def test_rotation_keeps_three_older_logs(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for number in range(5):
        log.write_text(str(number))
        logs.rotate(log)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.log.1": "4", "x.log.2": "3", "x.log.3": "2"}


def test_an_empty_log_is_not_rotated(tmp_path: Path) -> None:
    (tmp_path / "x.log").touch()
    logs.rotate(tmp_path / "x.log")
    assert [path.name for path in tmp_path.iterdir()] == ["x.log"]


def test_a_log_past_its_limit_is_shortened_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old " * 10)
        logs.shorten(log, limit_bytes=40)
        assert log.stat().st_size == 40, "at the limit it stays"
        logs.shorten(log, limit_bytes=39)
        writer.write(b"new")
    assert (log.read_bytes(), (tmp_path / "x.log.1").read_bytes()) == (b"new", b"old " * 10)
