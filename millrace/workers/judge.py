"""Judge: sealed sums in; results, signals, policies and, on harm, a stopped plan out, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from millrace.schemas.errors import SettingsError
from millrace.schemas.topics import EXPERIMENTS, READERS
from millrace.streams.bandits.custom import GROUP, CustomPolicy
from millrace.streams.judge.step import Judge
from millrace.workers.process import main
from millrace.workers.runner import Runner, Work

ROLE = "judge"


def installed() -> dict[str, CustomPolicy]:
    """The custom policies that are installed here, by entry point. Raises SettingsError for one that cannot be loaded."""
    found: dict[str, CustomPolicy] = {}
    for point in entry_points(group=GROUP):
        try:
            policy = point.load()
        except Exception as error:  # noqa: BLE001 - somebody else's module: whatever it raises when it is imported
            why = f"{type(error).__name__}: {error}"
            raise SettingsError(
                f"the policy {point.name!r} ({point.value}) cannot be loaded: {why}; mend or uninstall its package"
            ) from None
        if not callable(policy):
            raise SettingsError(f"the policy {point.name!r} ({point.value}) is no function: mend or uninstall its package")
        found[point.name] = policy
    return found


def work(policies: Mapping[str, CustomPolicy] | None = None) -> Work:
    """What this worker does, with the policies that are installed or others."""
    return Work(role=ROLE, inputs=READERS[ROLE], controls=(EXPERIMENTS,), step=Judge(installed() if policies is None else policies))


if __name__ == "__main__":
    main(ROLE, lambda settings, telemetry: Runner(work(), settings, telemetry))
