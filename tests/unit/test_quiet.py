"""Nothing that millrace runs on reports to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOAD = "from millrace.infra.models.session import onnxruntime; onnxruntime.SessionOptions()"


def test_onnxruntime_sends_nothing_home(tmp_path: Path) -> None:
    """Its telemetry leaves a session file among the temporary ones before it sends anything."""
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "GITHUB_ACTIONS")}
    places = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-B", "-c", LOAD], env=kept | places, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
