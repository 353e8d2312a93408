"""The experimenter: assignments and outcomes by unit in, the moments of each experiment out, in one transaction with its state."""

from __future__ import annotations

from millrace.schemas.topics import EXPERIMENTS, READERS
from millrace.streams.experiment.fold import Fold
from millrace.workers.process import main
from millrace.workers.runner import Runner, Work

ROLE = "experimenter"


def work() -> Work:
    """What this worker does."""
    return Work(role=ROLE, inputs=READERS[ROLE], controls=(EXPERIMENTS,), step=Fold())


if __name__ == "__main__":
    main(ROLE, lambda settings, telemetry: Runner(work(), settings, telemetry))
