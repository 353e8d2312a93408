"""Progress is for a person: a spinner and colours on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.terminal import GREEN, HIDE_CURSOR, YELLOW, on_terminal

SCRIPT = """
import time
from millrace.workers.progress import Progress
progress = Progress()
with progress.waiting("starting kafka"):
    time.sleep(0.4)
progress.good("ready")
progress.bad("late")
progress.say("[red]stopped")
"""
COMMAND = [sys.executable, "-c", SCRIPT]


def test_on_a_terminal_it_spins_and_has_colours() -> None:
    shown = on_terminal(COMMAND, os.environ)
    assert shown.code == 0
    assert HIDE_CURSOR in shown.text
    assert "starting kafka" in shown.text
    assert len(set(re.findall("[\u2800-\u28ff]", shown.text))) > 1, "the spinner, which is of Braille patterns, turns"
    assert f"{GREEN}ready" in shown.text
    assert f"{YELLOW}late" in shown.text
    assert "[red]stopped" in shown.text, "text is shown as it is"


def test_elsewhere_it_is_plain_lines_on_standard_error() -> None:
    result = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, check=True)
    assert (result.stdout, result.stderr) == ("", "starting kafka\nready\nlate\n[red]stopped\n")
