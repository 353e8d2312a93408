"""A terminal for tests: a command believes that a person looks on."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ESCAPE = "\x1b["
GREEN, YELLOW, RED = f"{ESCAPE}32m", f"{ESCAPE}33m", f"{ESCAPE}31m"
HIDE_CURSOR = f"{ESCAPE}?25l"


class Shown(NamedTuple):
    """How a command ended, and all that it wrote to the terminal."""

    code: int
    text: str


def on_terminal(command: Sequence[str], environment: Mapping[str, str], seconds: float = 100) -> Shown:
    """Run a command whose input, outputs and errors are one terminal of 160 columns."""
    ours, theirs = pty.openpty()
    look = {"TERM": "xterm-256color", "COLUMNS": "160"}
    quiet = {"NO_COLOR", "FORCE_COLOR", "CI"}
    try:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={k: v for k, v in environment.items() if k not in quiet} | look
        )
    finally:
        os.close(theirs)
    try:
        text = _all(ours)
        return Shown(process.wait(seconds), text)
    finally:
        process.kill()
        os.close(ours)


def _all(terminal: int) -> str:
    """What is written until nobody has the terminal any more, which Linux tells as an error."""
    found = b""
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            piece = b""
        if not piece:
            return found.decode()
        found += piece
