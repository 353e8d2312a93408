"""A worker of a bench as a process that harms itself at the nth passing of a named point: ``worker BENCH [POINT NTH kill|stop]``."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from millrace.infra.settings import load
from millrace.workers.process import leave, run
from tests.integration.harness.rig import BENCHES

ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def failpoint(point: str, nth: int, action: str) -> Callable[[str], None]:
    """Called with each point that is passed; sends this process the signal when it is due."""
    passed: Counter[str] = Counter()

    def at(name: str) -> None:
        passed[name] += 1
        if name == point and passed[name] == nth:
            os.kill(os.getpid(), ACTIONS[action])

    return at


def main(arguments: Sequence[str]) -> int:
    """Run the bench's work; the exit code."""
    faulthandler.register(signal.SIGUSR1)
    name, *rest = arguments
    at = failpoint(rest[0], int(rest[1]), rest[2]) if rest else lambda point: None
    return run(BENCHES[name].work(), load(), at)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
