"""Intake: outcomes in, outcomes on their units' partitions out, in one transaction."""

from __future__ import annotations

from millrace.infra.settings import Settings
from millrace.schemas.topics import READERS
from millrace.streams.intake import Intake
from millrace.workers.process import main
from millrace.workers.runner import Runner, Work

ROLE = "intake"


def work(settings: Settings) -> Work:
    """What this worker does."""
    return Work(role=ROLE, inputs=READERS[ROLE], step=Intake(settings.limits), stateless=True)


if __name__ == "__main__":
    main(ROLE, lambda settings, telemetry: Runner(work(settings), settings, telemetry))
