"""An archiver as a process that harms itself at the nth passing of a named point: ``worker archiver [POINT NTH kill|stop]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from millrace.workers.archiver import main as run
from millrace.workers.process import leave
from tests.integration.harness.worker import failpoint


def main(arguments: Sequence[str]) -> int:
    """Run the archiver; the exit code."""
    _, *rest = arguments
    return run(failpoint(rest[0], int(rest[1]), rest[2])) if rest else run()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
