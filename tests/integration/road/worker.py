"""Inference as a process that harms itself at the nth passing of a named point: ``worker inference [POINT NTH kill|stop]``."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Sequence

from millrace.infra.settings import load
from millrace.workers.inference import ROLE, work
from millrace.workers.process import leave, run_loop
from millrace.workers.runner import Runner
from tests.integration.harness.worker import failpoint


def main(arguments: Sequence[str]) -> int:
    """Run inference; the exit code."""
    faulthandler.register(signal.SIGUSR1)
    _, *rest = arguments
    at = failpoint(rest[0], int(rest[1]), rest[2]) if rest else lambda point: None
    settings = load()
    return run_loop(ROLE, settings, lambda telemetry: Runner(work(settings, telemetry), settings, telemetry, at))


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
