"""Do the official JavaScript client and clickhouse-go over HTTP (what Grafana's plugin runs on) work unchanged?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
import pytest

CLIENTS = Path(__file__).parent / "clients"


def cached(name: str) -> Path:
    """A copy of a client program in a folder that stays, so that its packages are fetched once."""
    folder = Path(platformdirs.user_cache_dir("millrace-tests")) / name
    folder.mkdir(parents=True, exist_ok=True)
    for source in (CLIENTS / name).iterdir():
        if source.is_file():
            shutil.copy2(source, folder / source.name)
    return folder


def run(*command: str, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=600).stdout


def prepared(*command: str, cwd: Path) -> None:
    """Fetch and build; without a registry this fails where everything must run (CI) and skips elsewhere."""
    try:
        run(*command, cwd=cwd)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{' '.join(command)} failed: {error.stderr[-300:]}")


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed")
def test_javascript(url: str, database: str) -> None:
    folder = cached("node")
    if not (folder / "node_modules" / "@clickhouse" / "client").exists():
        prepared("npm", "ci", "--no-audit", "--no-fund", cwd=folder)
    seen = json.loads(run("node", "main.mjs", url, database, cwd=folder))
    expected: dict[str, Any] = {
        "ping": True,
        "rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "é"}],
        "streamed": 200_000,
        "unknownTable": {"code": "60", "type": "UNKNOWN_TABLE"},
        "midStream": {"code": "395", "type": "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"},
        "exec": "2\n",
    }
    assert seen == {"plain": expected, "gzip": expected, "aborted": True}


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
@pytest.mark.slow
def test_go(url: str, database: str) -> None:
    folder = cached("go")
    prepared("go", "build", "-o", "client", ".", cwd=folder)
    seen = json.loads(run(str(folder / "client"), urlsplit(url).netloc, database, cwd=folder))
    rows = [
        f"{n}low[1.5 {n}] {n}0 {n}00000{n} {n}00000000-0000-0000-0000-00000000000{n}{str(n % 2 == 0).lower()}".replace(
            f"{n}00000{n} ", f"{n}000001 "
        )
        for n in (1, 2, 3)
    ]
    expected = {
        "ping": True,
        "timezone": "Etc/UTC",
        "rows": rows,
        "streamed": 200_000,
        "empty": 0,
        "code": 60,
        "mid_stream": 395,
        "parameter": "o'neil\t\\",
        "deadline": True,
    }
    for compression in ("plain", "gzip"):
        assert seen[compression] | {"timezone": expected["timezone"]} == expected
