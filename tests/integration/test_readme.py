"""Every command that the README and the guides show is run, in the order in which a reader meets it, against a real stack.

A fenced block of `sh` or `python` is run unless a comment above it says `not run: why`; `needs: program` runs it where the program is.
A block of another language says `not run: why` too, or `checked: as what`: what a record or a file shows is then read as millrace reads it.
What a command prints is compared only where a test below names it.
Addresses of the standard ports are put in place by those of the test's own stack. A reader on a slow machine asks twice: what only asks
(``millrace status``, ``predict``, ``experiments results``, ``topics tail``) is run again for a minute, until it has its answer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from millrace.schemas.topics import BY_NAME
from millrace.schemas.wire import codec
from millrace.workers.experiment_file import read_plan
from tests.stack import claim_base

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("sh", "python")
OFFSETS = {"9092": 0, "8123": 2, "9463": 3, "9464": 10}
GUIDES = ("docs/models.md", "docs/producers.md", "docs/experiments.md", "docs/analysts.md", "docs/on-call.md")
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
LEFT_OUT = 6
"""How many blocks of commands are not run, at most."""
SHOWN = {"millrace topics tail predictions\n": r'"request_id":"r-1".*"status":"ok"'}
"""What a block that looks once shows in the end."""
PATIENT = """
millrace() {
    case "$1 ${2-}" in "status "*|"predict "*|"experiments results"|"experiments report") ;; *) command millrace "$@"; return ;; esac
    local end=$((SECONDS + 60))
    until command millrace "$@"; do
        if ((SECONDS > end)); then return 1; fi
        sleep 1
    done
}
"""


class Block(NamedTuple):
    """One fenced block: where it stands, its language, its text and the comment above it."""

    place: str
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return self.place

    @property
    def runs(self) -> bool:
        """Whether it is to be run here."""
        if self.language not in RUN or self.mark.startswith("not run: "):
            return False
        return not self.mark.startswith("needs: ") or shutil.which(self.mark.removeprefix("needs: ")) is not None


def blocks(name: str) -> list[Block]:
    """The fenced blocks of a document."""
    text = (ROOT / name).read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        found.append(Block(f"{name}:{line}", match["language"], match["text"], match["mark"] or ""))
    return found


class Reader:
    """Somebody who follows a document on a machine of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = claim_base()
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        places = {"MILLRACE_DATA": str(folder / "data"), "MILLRACE_STACK__PORT_BASE": str(self.base), "PATH": programs}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")} | places

    def follow(self, block: Block) -> str:
        """Run a block, until it shows what it is to show; what it printed. Fails with its place and its output."""
        deadline = time.monotonic() + 60
        while True:
            printed = self._run(block)
            if re.search(SHOWN.get(block.text, ""), printed) or time.monotonic() > deadline:
                return printed
            time.sleep(1)

    def _run(self, block: Block) -> str:
        shell = ["bash", "-euo", "pipefail", "-c"]
        command = [*shell, PATIENT + self._here(block.text)] if block.language == "sh" else [sys.executable, "-c", self._here(block.text)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{block.place}\n{block.text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def end(self) -> None:
        """Stop the stack, whatever the document did."""
        subprocess.run(["millrace", "down"], env=self._environment, capture_output=True, timeout=120, check=True)

    def _here(self, text: str) -> str:
        for port, offset in OFFSETS.items():
            text = re.sub(rf"\b{port}\b", str(self.base + offset), text)
        return text


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an empty folder."""
    made = Reader(tmp_path)
    yield made
    made.end()


@pytest.mark.timeout(900)
def test_the_readme_can_be_followed(reader: Reader) -> None:
    printed = {block.text: reader.follow(block) for block in blocks("README.md") if block.runs}
    said = "\n".join(printed.values())
    assert "it serves all requests" in said
    assert "approve version 1: ok" in said
    assert all(re.search(shown, printed[text]) for text, shown in SHOWN.items())
    assert "clean:" in said
    assert "millrace_predictions_total" in said


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_guides_can_be_followed(reader: Reader) -> None:
    """First the models, then a producer, then who runs an experiment, then an analyst, then whoever is on call."""
    subprocess.run(["millrace", "up", "--detach"], env=reader._environment, capture_output=True, timeout=120, check=True)
    for name in GUIDES:
        for block in blocks(name):
            if block.language == "toml":
                (reader.folder / "approval.toml").write_text(block.text)
            elif block.runs:
                reader.follow(block)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_run_or_checked_or_says_why_not(name: str) -> None:
    found = blocks(name)
    assert 2 * len(found) == len(re.findall("^ *```", (ROOT / name).read_text(), re.MULTILINE)), "a block without a language"
    for block in found:
        kind, _, reason = block.mark.partition(": ")
        followed = block.language in RUN and name in ("README.md", *GUIDES)
        assert (followed and kind in ("", "needs")) or kind in ("not run", "checked"), f"{block.place}: say why it is not run"
        assert kind in ("", "needs") or len(reason) > 10, f"{block.place}: a reason"


def test_few_blocks_of_commands_are_not_run() -> None:
    commands = [block for name in DOCUMENTS for block in blocks(name) if block.language in RUN]
    assert len(commands) > 20
    assert sum(block.mark.startswith("not run") for block in commands) <= LEFT_OUT


@pytest.mark.parametrize("block", [block for name in DOCUMENTS for block in blocks(name) if block.mark.startswith("checked")], ids=str)
def test_what_is_checked_is_good(block: Block, tmp_path: Path) -> None:
    match block.mark.removeprefix("checked: ").split(" of "):
        case ["a record", topic]:
            codec(BY_NAME[topic]).decode(block.text.encode(), None)
        case ["the file", "an experiment"]:
            file = tmp_path / "experiment.toml"
            file.write_text(block.text)
            assert read_plan(file, datetime.now(UTC)).variants
        case ["the batch answer"]:
            assert block.text.startswith('millrace sql "'), "its numbers are compared in tests/contract/experiments/test_documented.py"
        case _:
            pytest.fail(f"{block.place}: nothing checks {block.mark!r}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("http")]
    missing = [target for target in targets if target and not ((ROOT / name).parent / target).exists()]
    assert missing == []
