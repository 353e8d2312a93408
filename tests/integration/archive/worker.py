"""An archiver as a process that harms itself at the nth passing of a named point: ``worker archiver [POINT NTH kill|stop]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from millrace.infra.settings import load
from millrace.workers.archiver import ROLE, Archiver
from millrace.workers.process import leave, run_loop
from tests.integration.harness.worker import failpoint


def main(arguments: Sequence[str]) -> int:
    """Run the archiver; the exit code."""
    _, *rest = arguments
    at = failpoint(rest[0], int(rest[1]), rest[2]) if rest else lambda point: None
    settings = load()
    return run_loop(ROLE, settings, lambda telemetry: Archiver(settings, telemetry, at))


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
