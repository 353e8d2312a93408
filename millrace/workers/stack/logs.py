"""One log file for each child: kept small, and read for the last error."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

KEPT = 3
ROTATE_BYTES = 64 << 20
TAIL_BYTES = 256 << 10
SHOWN_CHARACTERS = 300
# slf4j: "2026-11-21T09:00:00.000Z ERROR org.apache.kafka.Thing - message"
JAVA_ERROR = re.compile(r"\b(?:ERROR|FATAL)\b (?:\S+ - )?(.+)")
# What a command says before it ends: "millrace: port 9092 is in use", "python: No module named x"
COMMAND_ERROR = re.compile(r"(?:millrace|\S*python[\d.]*): (.+)")
TRACEBACK = "Traceback (most recent call last):"


def rotate(log: Path) -> None:
    """Move a log that has something in it out of the way: ``x.log`` to ``x.log.1``, and so on; the oldest is dropped."""
    if not log.exists() or log.stat().st_size == 0:
        return
    for number in range(KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))


def shorten(log: Path, limit_bytes: int = ROTATE_BYTES) -> None:
    """Copy a log that has grown past the limit to ``.1`` and empty it under the process that writes it.

    The writer appends, so it goes on at the new end. A line written between copy and truncation is not kept.
    """
    if log.exists() and log.stat().st_size > limit_bytes:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def last_error(log: Path) -> str:
    """The message of the last line that tells of an error, or ``""``."""
    found, in_traceback = "", False
    for line in _tail(log):
        if in_traceback and line[:1].strip():
            found, in_traceback = line.strip(), False  # the exception stands on the first line that is not indented
        elif line == TRACEBACK:
            in_traceback = True
        else:
            found = error_in(line) or found
    return found[:SHOWN_CHARACTERS]


def last_line(log: Path, characters: int = SHOWN_CHARACTERS) -> str:
    """The last line that is not empty, or ``""``."""
    lines = [line for line in _tail(log) if line.strip()]
    return lines[-1].strip()[:characters] if lines else ""


def error_in(line: str) -> str:
    """The message if this line of a log tells of an error by itself: JSON with level and message, slf4j, or a command's last word.

    >>> error_in('{"level": "ERROR", "message": "The place does not answer.", "reason": "refused"}')
    'The place does not answer. refused'
    >>> error_in('2026-11-21T09:00:00.000Z ERROR kafka.server.LogDirFailure - no space left')
    'no space left'
    >>> error_in('2026-11-21T09:00:00.000Z INFO kafka.server - all is well')
    ''
    """
    text = line.strip()
    if text.startswith("{"):
        return _json_error(text)
    found = JAVA_ERROR.search(text) or COMMAND_ERROR.match(text)
    return found.group(1) if found else ""


def _json_error(text: str) -> str:
    try:
        fields = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(fields, dict) or str(fields.get("level", "")).upper() not in ("ERROR", "CRITICAL", "FATAL"):
        return ""
    return " ".join(str(fields[key]) for key in ("message", "reason") if fields.get(key))


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
