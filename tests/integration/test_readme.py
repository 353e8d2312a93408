"""Every command that the README and the guides show is run, in the order in which a reader meets it, against a real stack.

A fenced block of `sh` or `python` is run unless a comment above it says `not run: why`; `needs: program` runs it where the program is.
Addresses of the standard ports are put in place by those of the test's own stack.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.stack import claim_base

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("sh", "python")
OFFSETS = {"9092": 0, "8123": 2, "9464": 10}


class Block(NamedTuple):
    """One fenced block: where it stands, its language, its text and the comment above it."""

    place: str
    language: str
    text: str
    mark: str

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
        """Run a block; what it printed. Fails with its place and its output."""
        command = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, self._here(block.text)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
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


def test_the_readme_can_be_followed(reader: Reader) -> None:
    printed = {block.text: reader.follow(block) for block in blocks("README.md") if block.runs}
    said = "\n".join(printed.values())
    assert "it serves all requests" in said
    assert "approve version 1: ok" in said
    assert re.search(r'"request_id":"r-1".*"status":"ok"', said)
    assert "clean:" in said
    assert "millrace_predictions_total" in said


def test_the_guides_can_be_followed(reader: Reader) -> None:
    """First the models, then a producer, then an analyst, then whoever is on call."""
    subprocess.run(["millrace", "up", "--detach"], env=reader._environment, capture_output=True, timeout=120, check=True)
    for name in ("docs/models.md", "docs/producers.md", "docs/analysts.md", "docs/on-call.md"):
        for block in blocks(name):
            if block.language == "toml":
                (reader.folder / "approval.toml").write_text(block.text)
            elif block.runs:
                reader.follow(block)


def test_what_is_not_run_says_why() -> None:
    """Few blocks are left out, and none silently."""
    everything = [
        block
        for name in ("README.md", "docs/models.md", "docs/producers.md", "docs/analysts.md", "docs/on-call.md")
        for block in blocks(name)
    ]
    left_out = [block for block in everything if block.mark.startswith("not run: ")]
    assert len(left_out) <= 4
    assert all(len(block.mark) > len("not run: ") + 10 for block in left_out)
    assert sum(block.language in RUN for block in everything) > 20


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("http")]
    missing = [target for target in targets if target and not ((ROOT / name).parent / target).exists()]
    assert missing == []
